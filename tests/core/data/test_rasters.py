"""Hostile and broken files: each is named and skipped, and what is left is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from stored_chips import pixels_of

from fedsense_core.data.opening import open_chips
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.errors import SiteError

RGB = ("red", "green", "blue")
Damage = Callable[[Path], None]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def headless(path: Path) -> None:
    path.write_bytes(b"no image at all")


def flipped(path: Path) -> None:
    """Flip one bit of the last block's compressed data: the blocks before it have been read by
    then."""
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", 1))
    data = bytearray(path.read_bytes())
    data[offset + 500] ^= 1
    path.write_bytes(bytes(data))


def virtual(path: Path) -> None:
    """Put a VRT, which opens any other file, under a GeoTIFF's name."""
    other = path.parent / "secret.png"
    with rasterio.open(other, "w", driver="PNG", count=3, width=128, height=128, dtype="uint8") as file:
        file.write(np.ones((3, 128, 128), "uint8"))
    rasterio.shutil.copy(other, path, driver="VRT")


def huge_blocks(path: Path) -> None:
    """Claim blocks of gigabytes in a file of a few hundred bytes."""
    profile = {"driver": "GTiff", "count": 3, "width": 32768, "height": 32768, "dtype": "uint16"}
    with rasterio.open(path, "w", tiled=True, blockxsize=32768, blockysize=32768, SPARSE_OK=True, **profile):
        pass
    assert path.stat().st_size < 2000


def empty_claim(path: Path) -> None:
    """Claim far more pixels than the file can hold."""
    profile = {"driver": "GTiff", "count": 3, "width": 30000, "height": 30000, "dtype": "uint8"}
    with rasterio.open(path, "w", tiled=True, blockxsize=256, blockysize=256, SPARSE_OK=True, **profile):
        pass


def complex_pixels(path: Path) -> None:
    with rasterio.open(path, "w", driver="GTiff", count=3, width=64, height=64, dtype="complex64") as file:
        file.write(np.ones((3, 64, 64), "complex64"))


def tiny(path: Path) -> None:
    with rasterio.open(path, "w", driver="GTiff", count=3, width=63, height=200, dtype="uint8") as file:
        file.write(np.ones((3, 200, 63), "uint8"))


DAMAGES = {
    truncated: "",
    headless: "no readable GeoTIFF",
    flipped: "cannot be decoded",
    virtual: "no readable GeoTIFF",
    huge_blocks: "has blocks of 32768 x 32768",
    empty_claim: "no chip with 90% valid",
    complex_pixels: "complex64",
    tiny: "63 x 200 pixels, smaller than one chip of 64",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("cached", [False, True])
def test_a_bad_file_is_named_and_skipped_and_the_others_equal_a_site_without_it(
    damage: Damage, cached: bool, tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    write_tiff("a.tif", image(seed=1))
    write_tiff("c.tif", image(seed=3))
    cache = tmp_path / "cache" if cached else None
    alone = open_chips(write_site(), RGB, 64, cache)
    damage(write_tiff("b.tif", image(seed=2)))
    chips = open_chips(write_site(), RGB, 64, cache)
    assert [Path(item.path).name for item in chips.skipped] == ["b.tif"]
    assert DAMAGES[damage] in chips.skipped[0].reason
    assert np.array_equal(pixels_of(chips), pixels_of(alone))
    assert chips.origin_mean[0].tolist() == alone.origin_mean[0].tolist()
    assert [Path(s).name for s in chips.scene_paths] == ["a.tif", "c.tif"]


@pytest.mark.parametrize("cached", [False, True])
def test_a_site_with_nothing_usable_says_why_and_how_often(
    cached: bool, tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    for name in ("a.tif", "b.tif"):
        headless(write_tiff(name, image()))
    tiny(write_tiff("c.tif", image()))
    with pytest.raises(SiteError) as error:
        open_chips(write_site(), RGB, 64, tmp_path / "cache" if cached else None)
    for word in ("site 'here'", "2 of 3 files", "a.tif", "1 of 3 files", "smaller than one chip"):
        assert word in str(error.value)
    assert not list(tmp_path.glob("cache/*/*.npy"))


def test_a_file_that_vanishes_after_the_listing_is_skipped(write_tiff: Any, write_site: Any, image: Any) -> None:
    write_tiff("a.tif", image())
    gone = write_tiff("b.tif", image())
    site = write_site()
    gone.unlink()
    assert [Path(item.path) for item in open_chips(site, RGB, 64, None).skipped] == [gone]


def test_huge_block_is_refused_even_where_its_claim_is_within_the_file_limit(
    write_tiff: Any, write_site: Any, image: Any
) -> None:
    write_tiff("a.tif", image())
    huge_blocks(write_tiff("b.tif", image()))
    limits = ReadLimits(max_expansion=1 << 40)
    (skipped,) = open_chips(write_site(), RGB, 64, None, limits).skipped
    assert "blocks of 32768 x 32768" in skipped.reason
    assert "TILED=YES" in skipped.reason


def test_a_wrong_band_count_names_file_found_and_expected(write_tiff: Any, write_site: Any, image: Any) -> None:
    write_tiff("a.tif", image(bands=4), photometric="MINISBLACK", alpha="NO")
    with pytest.raises(SiteError, match=r"a\.tif: holds 4 bands, but its sensor card has 3 \(red, green, blue\)"):
        open_chips(write_site(), RGB, 64, None)


def test_band_descriptions_that_contradict_the_site_file_are_refused(
    write_tiff: Any, write_site: Any, image: Any
) -> None:
    path = write_tiff("a.tif", image())
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("blue", "green", "red")
    with pytest.raises(SiteError, match=r"a\.tif: has band descriptions that say blue, green, red"):
        open_chips(write_site(), RGB, 64, None)


def test_an_unknown_band_is_refused_before_any_file_is_opened(write_tiff: Any, write_site: Any, image: Any) -> None:
    headless(write_tiff("a.tif", image()))
    with pytest.raises(SiteError, match=r"sources\[1\]: there is no band 'nir'"):
        open_chips(write_site(), ["red", "nir"], 64, None)


def test_chips_are_not_cut_across_the_seams_of_a_mosaic(write_tiff: Any, write_site: Any, image: Any) -> None:
    write_tiff("a.tif", image(), tags={"FEDSENSE_CHIP_SIZE": 64})
    assert len(open_chips(write_site(), RGB, 32, None)) == 24
    with pytest.raises(SiteError, match="mosaic of unrelated 64-pixel chips"):
        open_chips(write_site(), RGB, 128, None)


@pytest.mark.parametrize("limit", [1, 4, 7])
def test_no_more_chips_are_kept_than_allowed(limit: int, write_tiff: Any, write_site: Any, image: Any) -> None:
    write_tiff("a.tif", image(seed=1))
    write_tiff("b.tif", image(seed=2))
    chips = open_chips(write_site(), RGB, 64, None, ReadLimits(max_chips=limit))
    assert len(chips) == limit
    assert len(chips.skipped) == (limit < 7)


@pytest.mark.parametrize("block", [(16, 16), (64, 64), (128, 256), (48, 80), None])
@pytest.mark.parametrize("window_bytes", [1, 200_000, 1 << 26])
def test_chips_are_the_same_whatever_the_blocks_and_windows(
    block: tuple[int, int] | None, window_bytes: int, write_tiff: Any, write_site: Any, image: Any
) -> None:
    picture = image(height=200, width=330)
    tiling = {"blockysize": block[0], "blockxsize": block[1]} if block else {"tiled": False, "blockysize": 7}
    write_tiff("a.tif", picture, **({"blockxsize": None} | tiling))
    values = pixels_of(open_chips(write_site(), RGB, 64, None, ReadLimits(max_window_bytes=window_bytes)))
    expected = {picture[:, y : y + 64, x : x + 64].tobytes() for y in (0, 64, 128) for x in range(0, 320, 64)}
    assert {chip.tobytes() for chip in values} == expected
    assert len(values) == 15
