"""What the numbers in a file mean: declared scales, Sentinel-2's offset, decibels. Never twice,
never of nodata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from stored_chips import pixels_of

from fedsense_core.data.chips.chipping import ImageSource
from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.opening import open_chips
from fedsense_core.data.raster.scenes import ChipSpec
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.schema import Layer, Scene, Site, Source
from fedsense_core.data.sites.sensors import Band, SensorCard
from fedsense_core.errors import SiteError

OPTICAL = {"bands": [Band(name="red", wavelength_um=0.66)], "gsd_m": 10.0}
RADAR = {"bands": [Band(name="vv", polarisation="VV")], "gsd_m": 10.0, "kind": "sar"}


def chips_of(path: Path, card: dict[str, Any], **source: Any) -> Chips:
    one = Source("custom", SensorCard(**card), (Scene((Layer(path, (0,)),)),), **source)
    site = Site("here", "", Path("/site.toml"), (one,), ReadLimits(min_valid=0.5))
    return open_chips(site, "all", 64, None)


def declare(path: Path, scale: float, offset: float) -> Path:
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (scale,) * file.count, (offset,) * file.count
    return path


@pytest.fixture
def counts() -> np.ndarray[Any, Any]:
    picture = np.random.default_rng(0).integers(1, 12_000, (1, 64, 64)).astype(np.uint16)
    picture[0, :4] = 0  # nodata
    picture[0, 4] = 800  # below the offset
    picture[0, 5] = 65_535
    return picture


def test_a_whole_shift_of_counts_stays_whole_and_stops_at_zero(write_tiff: Any, counts: Any) -> None:
    path = declare(write_tiff("a.tif", counts), 1e-4, -0.1)
    chips = chips_of(path, OPTICAL | {"scale": 1e-4, "nodata": 0.0})
    assert chips.dtype == np.uint16
    expected = np.clip(counts[0, 4:].astype(int) - 1000, 0, None)
    assert np.array_equal(pixels_of(chips)[0, 0, 4:], expected)
    assert chips.valid.tolist() == [np.float32(60 / 64)]
    assert chips.statistics[0].mean[0] == expected.mean(), "what was nodata is no measurement of 0"


@pytest.mark.parametrize(
    ("dtype", "scale", "offset", "card"),
    [
        ("uint16", 1e-4, 0.0, {}),
        ("uint16", 2.75e-5, -0.2, {"scale": 1e-4, "offset": 0.0}),
        ("int16", 0.01, 5.0, {"scale": 0.5}),
        ("float32", 2.0, -3.0, {}),
        ("uint16", 1.0, 0.5, {}),
    ],
)
def test_other_declared_units_become_those_of_the_card(
    dtype: str, scale: float, offset: float, card: dict[str, float], write_tiff: Any, counts: Any
) -> None:
    stored = (counts // 2 + 1).astype(dtype)
    chips = chips_of(declare(write_tiff("a.tif", stored), scale, offset), OPTICAL | card)
    assert chips.dtype == np.float32
    physical = pixels_of(chips)[0].astype(float) * card.get("scale", 1.0) + card.get("offset", 0.0)
    np.testing.assert_allclose(physical, stored * scale + offset, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("declared", [(1.0, 0.0), (2.75e-5, -0.2), (0.0, 7.0), (float("nan"), 0.0)])
def test_units_that_agree_with_the_card_or_say_nothing_change_nothing(
    declared: tuple[float, float], write_tiff: Any, counts: Any
) -> None:
    path = declare(write_tiff("a.tif", counts), *declared)
    assert np.array_equal(pixels_of(chips_of(path, OPTICAL | {"scale": 2.75e-5, "offset": -0.2}))[0], counts)


@pytest.mark.parametrize("shift", [-70_000.0, -40_000.0, -3.0, 5.0, 40_000.0])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_shifted_numbers_never_wrap_around(shift: float, dtype: str, write_tiff: Any, image: Any) -> None:
    stored = image(1, 64, 64, dtype)
    chips = chips_of(declare(write_tiff("a.tif", stored), 1.0, shift), OPTICAL)
    expected = stored.astype(float) + shift
    if chips.dtype.kind != "f":
        expected = expected.clip(np.iinfo(dtype).min, np.iinfo(dtype).max)
    assert np.array_equal(pixels_of(chips)[0], expected)


NEW = "S2A_MSIL2A_20230101T000000_N0509_R001_T32TQM_20230101T030303"


@pytest.mark.parametrize(("scale", "offset", "shift"), [(1e-4, -0.1, 1000), (1e-4, 0.0, 0)])
def test_a_declared_offset_comes_before_the_baseline(
    scale: float, offset: float, shift: int, write_tiff: Any, counts: Any
) -> None:
    path = declare(write_tiff(f"{NEW}.tif", counts), scale, offset)
    got = pixels_of(chips_of(path, OPTICAL | {"scale": 1e-4, "nodata": 0.0}, baseline_offset=1000.0))[0, 0, 4:]
    assert np.array_equal(got, (counts[0, 4:].astype(int) - shift).clip(0))


@pytest.mark.parametrize(("kind", "factor"), [("amplitude", 20), ("power", 10)])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_radar_becomes_decibels_and_what_is_not_above_zero_is_no_measurement(
    kind: str, factor: int, dtype: str, write_tiff: Any, image: Any
) -> None:
    stored = image(1, 64, 64, dtype)
    stored[0, :4] = 0
    if dtype == "float32":
        stored[0, 0] = -5
    chips = chips_of(write_tiff("a.tif", stored), RADAR | {"decibels": kind})
    assert chips.dtype == np.float32
    np.testing.assert_allclose(pixels_of(chips)[0, 0, 4:], factor * np.log10(stored[0, 4:].astype(float)), rtol=1e-5)
    assert chips.valid.tolist() == [np.float32(60 / 64)]
    assert np.isfinite(pixels_of(chips)).all()


def test_a_band_without_a_scale_reads_the_same_whichever_bands_are_read_with_it(write_tiff: Any, counts: Any) -> None:
    stored = np.concatenate([counts, counts])
    path = write_tiff(f"{NEW}.tif", stored)
    with rasterio.open(path, "r+") as file:
        file.scales = (2e-4, 1.0)
    bands = [Band(name=name, wavelength_um=0.66) for name in ("a", "b")]
    card = SensorCard(bands=bands, gsd_m=10.0, scale=1e-4)
    source = Source("custom", card, (Scene((Layer(path, (0, 1)),)),), baseline_offset=1000.0)
    site = Site("here", "", Path("/site.toml"), (source,), ReadLimits())
    both, alone = (pixels_of(open_chips(site, names, 64, None)) for names in (["a", "b"], ["b"]))
    assert np.array_equal(both[:, 1:], alone)
    assert np.array_equal(alone[0, 0], stored[1])


@pytest.mark.parametrize(
    ("dtype", "becomes"), [("int8", "int16"), ("int32", "float32"), ("uint32", "float32"), ("float64", "float32")]
)
def test_types_that_chips_do_not_have_are_converted_without_loss(dtype: str, becomes: str, write_tiff: Any) -> None:
    """Google Earth Engine exports float64 and int32 where bands differ in type."""
    largest = {"int8": 127, "float64": 3.0e38}.get(dtype, 1 << 24)
    stored = np.linspace(-100 if dtype != "uint32" else 0, largest, 64 * 64).round().reshape(1, 64, 64).astype(dtype)
    stored[0, 0, :2] = 99
    chips = chips_of(write_tiff("a.tif", stored, nodata=99), OPTICAL)
    assert chips.dtype == np.dtype(becomes)
    valid = stored[0] != 99
    assert np.array_equal(pixels_of(chips)[0, 0][valid], stored[0][valid].astype(becomes))
    assert chips.valid[0] == np.float32(valid.mean())
    if dtype != "float64":
        assert np.array_equal(pixels_of(chips)[0, 0][valid].astype(dtype), stored[0][valid])


def test_nodata_is_found_before_the_type_is_changed(write_tiff: Any) -> None:
    stored = np.full((1, 64, 64), 2.0**25)
    stored[0, 0] = 2.0**25 + 1  # as a float32 it is the same as the others
    stored[0, 1] = 1e39  # no float32
    chips = chips_of(write_tiff("a.tif", stored, nodata=2.0**25 + 1), OPTICAL)
    assert chips.valid[0] == np.float32(62 / 64)
    assert (pixels_of(chips) == 2.0**25).all()


def test_counts_of_wide_types_lose_the_offset_too(write_tiff: Any, counts: Any) -> None:
    for dtype in ("int32", "float64"):
        path = write_tiff(f"{NEW}_{dtype}.tif", counts.astype(dtype))
        got = pixels_of(chips_of(path, OPTICAL | {"scale": 1e-4, "nodata": 0.0}, baseline_offset=1000.0))[0, 0, 4:]
        assert np.array_equal(got, (counts[0, 4:].astype(int) - 1000).clip(0)), dtype


@pytest.mark.parametrize("dtype", ["int64", "complex64"])
def test_types_that_are_no_imagery_are_named(dtype: str, write_tiff: Any, image: Any) -> None:
    with pytest.raises(SiteError, match=f"has pixels of type {dtype}; allowed are uint8, .*, float64"):
        chips_of(write_tiff("a.tif", image(1, 64, 64, dtype)), OPTICAL)


class Image:
    """A dataset of one image."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __len__(self) -> int:
        return 1

    def key(self, i: int) -> str:
        return f"{i}"

    name = key

    def read(self, _: int) -> tuple[Any, Any]:
        return self.values.copy(), np.ones(self.values.shape[1:], dtype=bool)


def test_images_of_datasets_lose_what_the_site_file_says_and_keep_valid_pixels(counts: Any) -> None:
    picture = np.concatenate([counts, counts[:, ::-1]])  # nodata in the first rows of one, the last of the other
    bands = [Band(name=name, wavelength_um=0.66) for name in ("a", "b")]
    spec = ChipSpec(("a", "b"), 64, 64, ReadLimits())
    keys = set()
    for fields, added, least in (
        ({}, 0, 0),
        ({"add_offset": -500.0}, -500, 0),
        ({"nodata_bands": "any"}, 0, 8),
    ):
        card = SensorCard(bands=bands, gsd_m=10.0, scale=1e-4, nodata=0.0, **fields)
        source = ImageSource(Image(picture), 0, Source("custom", card, (), baseline_offset=1000.0), spec)
        (window,) = source.windows()
        assert np.array_equal(window.values, (picture.astype(int) + added).clip(0))
        assert (0 if window.valid is None else np.count_nonzero(~window.valid.all(axis=1))) == least
        keys.add(source.key)
    assert len(keys) == 3
