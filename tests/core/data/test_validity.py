"""Which pixels of a file count: those of rasterio's `dataset_mask`, and none of them is changed.

Its rule (rasterio's documentation of `dataset_mask`): a mask or alpha band decides alone; else a
pixel is valid where any band differs from nodata.
"""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning
from stored_chips import pixels_of

from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.opening import open_chips
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.schema import ChipGrid, Layer, Scene, Site, Source
from fedsense_core.data.sites.sensors import Band, SensorCard

SIZE = 8
TYPES = ("uint8", "uint16", "int16", "float32", "int32", "float64")


def card_of(bands: int, **fields: Any) -> SensorCard:
    named = [Band(name=f"b{i}", wavelength_um=0.5 + 0.1 * i) for i in range(bands)]
    return SensorCard(bands=named, gsd_m=10.0, **fields)


def chips_of(path: Path, card: SensorCard, stride: int = SIZE, bands: Any = "all") -> Chips:
    source = Source("custom", card, (Scene((Layer(path, tuple(range(len(card.bands)))),)),))
    site = Site("here", "", Path("/site.toml"), (source,), ReadLimits(min_valid=0.02), ChipGrid(stride_px=stride))
    return open_chips(site, bands, SIZE, None)


def write(path: Path, picture: np.ndarray[Any, Any], mask: np.ndarray[Any, Any] | None = None, **profile: Any) -> Path:
    bands, height, width = picture.shape
    with (
        warnings.catch_warnings(),
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
    ):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        size = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": picture.dtype}
        with rasterio.open(path, "w", **(size | profile)) as file:
            file.write(picture)
            if mask is not None:
                file.write_mask(mask)
    return path


@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(TYPES),
    bands=st.integers(1, 4),
    nodata=st.sampled_from([None, 0, 1, 200]),
    shown_by=st.sampled_from(["nodata", "nodata", "mask", "alpha"]),
    holes=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_a_valid_pixel_is_one_of_dataset_mask_and_is_never_changed(
    seed: int, dtype: str, bands: int, nodata: int | None, shown_by: str, holes: bool
) -> None:
    random = np.random.default_rng(seed)
    picture = random.choice([0, 1, 5, 200], (bands, 24, 24), p=random.dirichlet(np.ones(4))).astype(dtype)
    gone = random.random((24, 24)) < 0.3
    picture[:, gone & (random.random((24, 24)) < 0.5)] = nodata or 0
    numbers = np.ones((24, 24), dtype=bool)
    if holes and picture.dtype.kind == "f":
        picture[random.integers(bands), random.random((24, 24)) < 0.1] = random.choice([np.nan, np.inf])
        numbers = np.isfinite(picture).all(axis=0)
    # Else GDAL takes the fourth band of 8-bit files for alpha.
    options: dict[str, Any] = {"nodata": nodata, "photometric": "MINISBLACK", "alpha": "NO"}
    stored = picture
    if shown_by == "alpha" and bands in (1, 3) and dtype in ("uint8", "uint16"):  # others are no alpha to GDAL
        stored = np.concatenate([picture, np.where(gone, 0, 255)[None].astype(dtype)])
        options = {"photometric": "RGB" if bands == 3 else "MINISBLACK", "alpha": "YES"}
    with TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.tif", stored, ~gone if shown_by == "mask" else None, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as file:
                valid = (file.dataset_mask() > 0) & numbers
        expected = {
            (row, col): float(valid[row : row + SIZE, col : col + SIZE].mean())
            for row in range(0, 17, SIZE)
            for col in range(0, 17, SIZE)
        }
        expected = {corner: share for corner, share in expected.items() if share >= 0.02}
        if not expected:
            return
        chips = chips_of(path, card_of(bands))
        corners = list(zip(chips.row.tolist(), chips.col.tolist(), strict=True))
        assert dict(zip(corners, chips.valid.tolist(), strict=True)) == pytest.approx(expected)
        for chip, (row, col) in zip(pixels_of(chips), corners, strict=True):
            here = np.s_[row : row + SIZE, col : col + SIZE]
            assert np.array_equal(chip[:, valid[here]], picture[:, *here][:, valid[here]])
            assert np.isfinite(chip).all()
        assert chips.statistics[0].minimum.tolist() == [float(band[valid].min()) for band in picture]
        assert chips.statistics[0].maximum.tolist() == [float(band[valid].max()) for band in picture]


def test_dark_water_keeps_every_valid_pixel_where_nodata_is_zero(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    water = np.stack([random.integers(low, high, (64, 64)) for low, high in ((0, 4), (8, 30), (20, 50))])
    chips = chips_of(write(tmp_path / "water.tif", water.astype(np.uint8), nodata=0), card_of(3))
    assert chips.valid.tolist() == [1.0] * 64
    for chip, row, col in zip(pixels_of(chips), chips.row, chips.col, strict=True):
        assert np.array_equal(chip, water[:, row : row + SIZE, col : col + SIZE])


@pytest.mark.parametrize("nodata_from", ["file", "card"])
def test_only_the_wanted_bands_are_asked_and_any_of_them_where_the_card_says_so(
    nodata_from: str, tmp_path: Path
) -> None:
    """HLS holds -9999 in single bands at the edge of a swath."""
    picture = np.full((3, 8, 24), 500, np.int16)
    picture[0, :4, :8] = -9999
    picture[:2, :4, 8:16] = -9999
    picture[:, :4, 16:] = -9999
    declared = {"nodata": -9999} if nodata_from == "file" else {}
    said = {"nodata": -9999.0} if nodata_from == "card" else {}
    path = write(tmp_path / "a.tif", picture, **declared)
    wanted = {("all", "all"): [1, 1, 0.5], ("any", "all"): [0.5, 0.5, 0.5], ("all", "two"): [1, 0.5, 0.5]}
    for (bands, asked), shares in wanted.items():
        names = ["b0", "b1"] if asked == "two" else "all"
        chips = chips_of(path, card_of(3, nodata_bands=bands, **said), bands=names)
        assert chips.valid.tolist() == shares, (bands, asked)


def test_nodata_of_a_file_can_be_ignored_and_that_of_the_site_file_still_counts(tmp_path: Path) -> None:
    picture = np.full((2, 8, 16), 7, np.uint8)
    picture[:, :4, :8] = 0
    picture[:, :4, 8:] = 255
    path = write(tmp_path / "a.tif", picture, nodata=0)
    for fields, shares in (
        ({}, [0.5, 1]),
        ({"file_nodata": False}, [1, 1]),
        ({"file_nodata": False, "nodata": 255.0}, [1, 0.5]),
        ({"nodata": 255.0}, [0.5, 0.5]),
    ):
        assert chips_of(path, card_of(2, **fields)).valid.tolist() == shares


def test_a_mask_decides_alone_even_against_the_site_file(tmp_path: Path) -> None:
    picture = np.zeros((2, 8, 16), np.uint8)
    mask = np.zeros((8, 16), dtype=bool)
    mask[:, 8:] = True
    path = write(tmp_path / "a.tif", picture, mask, nodata=0)
    for fields in ({}, {"nodata": 0.0, "nodata_bands": "any"}, {"file_nodata": False}):
        chips = chips_of(path, card_of(2, **fields))
        assert (chips.col.tolist(), chips.valid.tolist()) == ([8], [1])


def test_the_transparent_colour_of_a_png_is_its_nodata(tmp_path: Path) -> None:
    """PNG, section 11.3.2.1: tRNS names one colour; GDAL turns it into NODATA_VALUES, by band."""
    picture = np.full((3, 8, 16), 7, np.uint8)
    picture[:, :4, :8] = np.array([10, 20, 30])[:, None, None]
    picture[:, :, 8:] = np.array([10, 20, 31])[:, None, None]
    path = write(tmp_path / "a.png", picture, driver="PNG")
    data = path.read_bytes()
    chunk = b"tRNS" + bytes([0, 10, 0, 20, 0, 30])
    whole = (6).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4)
    at = data.index(b"IDAT") - 4
    path.write_bytes(data[:at] + whole + data[at:])
    assert chips_of(path, card_of(3)).valid.tolist() == [0.5, 1]
    assert chips_of(path, card_of(3, file_nodata=False)).valid.tolist() == [1, 1]
