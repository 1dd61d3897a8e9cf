"""Names and pixels together tell label rasters from imagery."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layouts import chips_of, drafted, pixels_of, raster

from fedsense_core.tools.onboarding.label_rasters import CLASSES, HEIGHTS

SIDE = (64, 64)
FLAT = np.repeat(np.repeat(np.arange(48).reshape(3, 4, 4), 16, axis=1), 16, axis=2).astype(np.uint8)
"""Classes painted as colours (3, H, W)."""


def test_photographs_in_a_folder_that_is_called_masks_are_imagery(tmp_path: Path) -> None:
    """SpaceNet 7 has pictures in `images_masked`; a place may be called Target, a folder 60cm."""
    for path in ("masks/a.tif", "images_masked/b.tif", "60cm/c.tif", "target-creek/d.tif"):
        raster(tmp_path / "archive" / path, pixels_of(path, (3, *SIDE), "uint8", 0, 255))
    draft, site = drafted(tmp_path / "archive")
    assert sum(len(source.scenes) for source in site.sources) == 4
    assert not draft.grouping.left_out


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("gt/a.tif", CLASSES),
        ("5_Labels_all/top_potsdam_2_10_label.tif", CLASSES),
        ("a_instance_color_RGB.png", CLASSES),
        ("masks2/a.png", CLASSES),
        ("dsm/a.tif", HEIGHTS),
        ("0_0_dem.tif", HEIGHTS),
    ],
)
def test_label_rasters_and_heights_are_left_out_with_the_reason(tmp_path: Path, path: str, why: str) -> None:
    raster(tmp_path / "archive" / "images" / "a.tif", pixels_of("a", (3, *SIDE), "uint8", 0, 255))
    if why == HEIGHTS:
        raster(tmp_path / "archive" / path, pixels_of("d", SIDE, "float32", 0, 900))
    else:
        raster(tmp_path / "archive" / path, FLAT)
    draft, site = drafted(tmp_path / "archive")
    assert draft.grouping.left_out == {why: [path]}
    assert [len(source.scenes) for source in site.sources] == [1]


def test_fills_do_not_make_powers_of_radar_decibels(tmp_path: Path) -> None:
    """Sentinel-1 RTC of the Planetary Computer fills with -32768, and others without saying so."""
    for declared, folder in ((-32768.0, "a"), (None, "b")):
        for band in ("vv", "vh"):
            values = pixels_of(band, SIDE, "float32", 0.01, 0.5)
            values[:40] = -32768 if declared else -9999
            raster(tmp_path / folder / f"scene_{band}.tif", values, nodata=declared)
        _, site = drafted(tmp_path / folder)
        (source,) = site.sources
        assert source.card.decibels == "power"


@pytest.mark.parametrize("folder", ["masks", "dem"])
def test_bands_of_a_product_are_imagery_whatever_their_folder_is_called(tmp_path: Path, folder: str) -> None:
    """A project on elevation may lie in `dem`, with the scenes that it is about."""
    for band in ("B02", "B03", "B04"):
        values = pixels_of(band, SIDE, "uint16", 100, 4000)
        raster(tmp_path / "archive" / folder / f"T32TQM_20230605T101559_{band}_10m.tif", values)
    raster(tmp_path / "archive" / folder / "T32TQM_dem.tif", pixels_of("d", SIDE, "int16", 0, 900))
    draft, site = drafted(tmp_path / "archive")
    assert [len(source.scenes) for source in site.sources] == [1]
    assert draft.grouping.left_out == {HEIGHTS: [f"{folder}/T32TQM_dem.tif"]}


def test_eight_bit_files_of_four_bands_in_a_folder_of_landsat_have_four(tmp_path: Path) -> None:
    """A draft with a card of three bands for them would not load."""
    raster(tmp_path / "landsat8" / "ortho.tif", pixels_of("o", (4, *SIDE), "uint8", 0, 255), photometric="RGB")
    _, site = drafted(tmp_path / "landsat8")
    assert [source.sensor for source in site.sources] == ["aerial-rgbn"]
    assert len(chips_of(site)[0]) == 1
