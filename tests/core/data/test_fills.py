"""Fills that nothing declares are named with share and remedy, and honest imagery is left alone.

Values and layouts are those of real exports: -9999 of ENVI and HLS, the least float32 of ArcGIS
(its own documentation shortens it to -3.40282e+38), 65535 and -32768 of 16-bit products, black
collars of mosaics whose nodata was lost.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from stored_chips import chips_of_array

from fedsense_core.config import resolve
from fedsense_core.data.chips.fills import constant_chips, fill_warnings, warnings_of
from fedsense_core.data.chips.statistics import Statistics
from fedsense_core.data.opening import load_site, open_chips, open_site
from fedsense_core.data.sites.locations import public_file, site_files

RGB = ("red", "green", "blue")
Array = np.ndarray[Any, Any]


def ground(dtype: str, low: float, high: float, side: int = 256) -> Array:
    """Return three bands of noise."""
    values = np.random.default_rng(0).uniform(low, high, (3, side, side))
    return values.astype(dtype)


def warned(values: Array) -> list[str]:
    """Return what is said of bands (3, H, W) cut into chips of 32 pixels."""
    bands, height, width = values.shape
    chips = values.reshape(bands, height // 32, 32, width // 32, 32).transpose(1, 3, 0, 2, 4).reshape(-1, bands, 32, 32)
    return fill_warnings(chips_of_array(np.ascontiguousarray(chips), RGB))


@pytest.mark.parametrize(
    ("dtype", "low", "high", "fill"),
    [
        ("float32", 0.01, 0.5, -9999.0),
        ("float32", 0.01, 0.5, -3.4028234663852886e38),
        ("float32", 0.01, 0.5, 9.969209968386869e36),
        ("float32", -25.0, 5.0, -9999.0),
        ("int16", -200, 9000, -9999),
        ("int16", 100, 6000, -32768),
        ("uint16", 200, 11000, 65535),
        ("uint8", 40, 220, 0),
        ("uint16", 300, 9000, 0),
        ("float32", -30.0, -2.0, 0.0),
    ],
)
def test_a_fill_is_named_with_its_share_and_the_remedy_that_cures_it(
    dtype: str, low: float, high: float, fill: float, write_tiff: Any, write_site: Any
) -> None:
    values = ground(dtype, low, high)
    values[:, :64, :128] = fill  # one eighth: 8 of 64 chips, and a corner of none
    write_tiff("a.tif", values)
    card = "gsd_m = 10.0\nbands = [" + ", ".join(f'{{name="{name}", wavelength_um=0.5}}' for name in RGB) + "]"
    found = fill_warnings(open_chips(write_site(f"[sources.sensor]\n{card}"), RGB, 32, None))
    assert len(found) == 2, found
    assert "13 % of the pixels" in found[0] or "12 % of the pixels" in found[0]
    assert found[1].startswith("8 of 64 chips are constant")
    (remedy,) = re.findall(r"`(nodata = \S+)`", found[0])
    cured = open_chips(write_site(f"[sources.sensor]\n{card}\n{remedy}"), RGB, 32, None)
    assert fill_warnings(cured) == []
    measured = values[:, (values != np.array(fill, dtype)).all(axis=0)].reshape(3, 1, 1, -1)
    assert cured.statistics[0] == Statistics.of(measured.transpose(1, 0, 2, 3), np.ones((1, *measured.shape[2:]), bool))


@pytest.mark.parametrize(("kind", "dtype", "fill"), [("optical", "int16", -9999), ("sar", "uint16", 65535)])
def test_the_remedy_is_the_number_in_the_file_whatever_it_is_converted_to(
    kind: str, dtype: str, fill: int, write_tiff: Any, write_site: Any
) -> None:
    """A file that declares a scale, and amplitudes that become decibels."""
    values = ground(dtype, 100, 6000)
    values[:, :64, :128] = fill
    path = write_tiff("a.tif", values)
    if kind == "optical":
        with rasterio.open(path, "r+") as file:
            file.scales = (0.0001,) * 3
    band = "wavelength_um=0.5" if kind == "optical" else 'polarisation="VV"'
    bands = ", ".join(f'{{name="{name}", {band}}}' for name in RGB)
    decibels = 'decibels = "amplitude"\n' if kind == "sar" else ""
    card = f'[sources.sensor]\nkind = "{kind}"\ngsd_m = 10.0\n{decibels}bands = [{bands}]\n'
    site = write_site(card)
    found = warnings_of([open_chips(site, RGB, 32, None)], site)
    assert found[0].startswith(f"custom: {fill} (in the card's units")
    assert f"Set `nodata = {fill}` for this source" in found[0]
    cured = write_site(f"{card}nodata = {fill}")
    assert warnings_of([open_chips(cured, RGB, 32, None)], cured) == []


@pytest.mark.parametrize(("fill", "pixels"), [(-9999.0, 1), (-3.4028234663852886e38, 1), (-9999.0, 3600)])
def test_so_few_pixels_that_no_percentile_shows_them_still_rule_the_deviation(fill: float, pixels: int) -> None:
    values = ground("float32", 0.01, 0.5)
    values.reshape(3, -1)[:, :pixels] = fill
    (found,) = warned(values)
    assert re.search(r"makes the deviation (more than a million|[\d,]+) times as large", found)


def test_a_fill_of_some_bands_needs_one_key_more() -> None:
    values = ground("float32", 0.01, 0.5)
    values[1, :32], values[2, :64] = -9999, -9999
    (found,) = warned(values)
    assert "25 % of the pixels of green, blue, far" in found
    assert 'Set `nodata = -9999` and `nodata_bands = "any"`' in found


def test_two_fills_of_one_source_are_both_named() -> None:
    values = ground("float32", 0.01, 0.5)
    values[:, :8], values[:, 8:16] = -3.4028234663852886e38, -9999
    assert {re.findall(r"`nodata = (\S+)`", text)[0] for text in warned(values)} == {"-3.4028235e+38", "-9999"}


def saturated() -> Array:
    """Snow: a third of the picture at 255, around it what is nearly so."""
    values = ground("float32", 20, 180)
    values[:, :80] += np.linspace(400, 0, 80)[:, None]
    return np.clip(values, 0, 255).astype("uint8")


def dark_water() -> Array:
    """A lake whose noise is clipped at 0 in all bands."""
    values = ground("float32", 20, 180)
    values[:, :100] = np.random.default_rng(1).normal(0, 3, (3, 100, 256))
    return np.clip(values, 0, 255).astype("uint8")


def radar_power() -> Array:
    """Speckle with some targets that are ten thousand times as bright."""
    rng = np.random.default_rng(2)
    values = rng.exponential(0.1, (3, 256, 256))
    values[:, rng.integers(0, 256, 20), rng.integers(0, 256, 20)] *= 1e4
    return values.astype("float32")


def saturated_counts() -> Array:
    """Cloud tops that stop a 16-bit sensor, with all that is nearly so bright."""
    return np.clip(np.random.default_rng(3).gamma(2, 14000, (3, 256, 256)), 0, 65535).astype("uint16")


def one_lost_line() -> Array:
    """A detector's line of 0 in one band."""
    values = ground("uint16", 300, 9000)
    values[1, 100] = 0
    return values


@pytest.mark.parametrize(
    "picture", [saturated, dark_water, radar_power, saturated_counts, one_lost_line], ids=lambda one: one.__name__
)
def test_honest_extremes_are_not_warned_of(picture: Any) -> None:
    assert warned(picture()) == []


def test_the_shipped_imagery_is_not_warned_of(tmp_path: Path) -> None:
    config = resolve({})
    for path in [*site_files(config), public_file(config)]:
        assert warnings_of(open_site(path, config, tmp_path), load_site(path)) == [], path.name


def test_constant_chips_are_counted_as_stored_and_by_source(tmp_path: Path, write_tiff: Any, write_site: Any) -> None:
    values = ground("uint8", 40, 220)
    values[:, :32, :160] = 7
    values[:, 32:64, :32] = np.array([1, 2, 3], np.uint8)[:, None, None]
    values[:, 32:64, 32:64] = np.array([1, 2, 3], np.uint8)[:, None, None]
    values[2, 40, 50] = 9  # not constant, though its corners say so
    values[:, 224:, 224:], values[:, 255, 255] = 5, 0  # constant where it is valid
    write_tiff("a.tif", values)
    write_tiff("b.tif", ground("uint8", 40, 220))
    text = 'sensor = "rgb"\nnodata = 0'
    for _ in range(2):
        chips = open_chips(write_site(text), RGB, 32, tmp_path / "cache")
        assert chips.constant == (7, 0)
        assert constant_chips(chips) == (7, 128)
    write_tiff("c.tif", np.full((3, 32, 64), 9, np.uint8))
    assert open_chips(write_site(text), RGB, 32, tmp_path / "cache").constant == (7, 0, 2)
