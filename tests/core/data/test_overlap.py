"""Imagery that two parties both hold is recognised without a pixel of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.opening import load_site, open_sources
from fedsense_core.data.overlap import Marks, OverlapShares, hashes_of, marks, marks_of, share_of, shares_asked

RGB = ("red", "green", "blue")
Array = np.ndarray[Any, Any]


def picture(seed: int, height: int = 128, width: int = 192) -> Array:
    """Return smooth noise, as different from another seed's as two places are."""
    rng = np.random.default_rng(seed)
    small = rng.uniform(30, 220, (3, height // 8 + 1, width // 8 + 1))
    return np.repeat(np.repeat(small, 8, 1), 8, 2)[:, :height, :width] + rng.normal(0, 3, (3, height, width))


def opened(folder: Path, size: int = 64) -> tuple[Chips, ...]:
    (folder / "site.toml").write_text('name = "here"\n[[sources]]\npaths = ["*.*f", "*.jpg"]\nsensor = "rgb"\n')
    return open_sources(load_site(folder / "site.toml"), RGB, size, None)


def write(path: Path, values: Array, dtype: str = "uint8", **profile: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    bands, height, width = values.shape
    options = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": dtype} | profile
    with rasterio.open(path, "w", **options) as file:
        file.write(values.clip(0).astype(dtype))


def test_same_chips_are_found_in_other_units_and_compression_and_others_are_not(tmp_path: Path) -> None:
    write(tmp_path / "public" / "a.tif", picture(1))
    write(tmp_path / "public" / "b.tif", picture(2))
    public = marks_of(opened(tmp_path / "public"))
    write(tmp_path / "site" / "scaled.tif", picture(1) * 40 + 900, "uint16")
    write(tmp_path / "site" / "own.tif", picture(3))
    write(tmp_path / "site" / "lossy.jpg", picture(2), driver="JPEG", quality=60)
    assert share_of(opened(tmp_path / "site"), public) == pytest.approx(2 / 3)
    write(tmp_path / "other" / "x.tif", picture(4))
    assert share_of(opened(tmp_path / "other"), public) == 0


def test_plain_chips_are_nobodys(tmp_path: Path) -> None:
    slope = np.broadcast_to(np.linspace(0, 250, 192), (3, 128, 192))
    write(tmp_path / "public" / "sea.tif", np.full((3, 128, 192), 9.0))
    write(tmp_path / "public" / "slope.tif", slope)
    assert not marks_of(opened(tmp_path / "public"))


def test_ground_is_compared_where_files_are_georeferenced(tmp_path: Path) -> None:
    """The public scene covers the eastern half of the site's, in another zone's coordinates and of
    another day; a map of half the world covers all, and does not count."""
    here = {"crs": "EPSG:32631", "transform": from_origin(700_000, 5_000_000, 10, 10)}
    write(tmp_path / "site" / "a.tif", picture(1), **here)
    public = {"crs": "EPSG:32631", "transform": from_origin(700_960, 5_001_000, 20, 20)}
    write(tmp_path / "public" / "p.tif", picture(2), **public)
    corner = rasterio.warp.transform("EPSG:32631", "EPSG:32632", [700_960], [5_001_000])
    turned = {"crs": "EPSG:32632", "transform": from_origin(corner[0][0], corner[1][0], 20, 20)}
    write(tmp_path / "zone32" / "p.tif", picture(2), **turned)
    world = {"crs": "EPSG:4326", "transform": from_origin(-180, 90, 1, 1)}
    write(tmp_path / "world" / "w.tif", picture(3), **world)
    site = opened(tmp_path / "site")
    assert share_of(site, marks_of(opened(tmp_path / "public"))) == pytest.approx(0.5)
    assert share_of(site, marks_of(opened(tmp_path / "zone32"))) == pytest.approx(0.5, abs=0.13)
    assert share_of(site, marks_of(opened(tmp_path / "world"))) == 0


def test_marks_survive_the_wire_and_foreign_bytes_are_refused() -> None:
    rng = np.random.default_rng(0)
    sent = marks([np.arange(9)], [rng.integers(0, 256, (50, 8)).astype(np.uint8)])
    data = sent.to_bytes()
    read = Marks.from_bytes(data)
    assert np.array_equal(read.footprints, sent.footprints)
    assert np.array_equal(read.hashes, sent.hashes)
    for wrong in (b"", data[:-1], data + b"x", b"\xff" * 8, data[:8] + np.full(9, np.nan, "<f4").tobytes() + data[44:]):
        with pytest.raises(ValueError, match=r"marks|corner|too many"):
            Marks.from_bytes(wrong)


@pytest.mark.parametrize("said", [b'{"public": 1.5}', b'{"other": 0.1}', b"[1]", b'{"public": "all"}', b"{", b"NaN"])
def test_shares_that_cannot_be_are_refused(said: bytes) -> None:
    channel = OverlapShares({"public": marks([], [])})
    with pytest.raises(ValueError, match=r"share|Expecting"):
        channel.judge(said, 0)


def test_hash_does_not_change_with_the_units_of_bands() -> None:
    values = picture(5)[None, :, :64, :64]
    other = values * np.array([1, 20, 0.1])[:, None, None] + np.array([0, -500, 7])[:, None, None]
    assert np.array_equal(hashes_of(values), hashes_of(other))


def test_only_a_share_is_answered(tmp_path: Path) -> None:
    write(tmp_path / "public" / "a.tif", picture(1))
    channel = OverlapShares({"public": marks_of(opened(tmp_path / "public")), "labelled": marks([], [])})
    assert set(channel.for_handshake()) == {"overlap-public"}
    assert shares_asked(opened(tmp_path / "public"), channel.for_handshake()) == {"public": 1.0}
