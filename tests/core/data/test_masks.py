"""Masks that come with products, under the products' own names: which pixels they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import from_origin

from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.data.sites.site_file import MaskEntry
from fedsense_core.errors import SiteError

RGB = ("red", "green", "blue")


def utm(pixel: float) -> dict[str, Any]:
    return {"crs": CRS.from_epsg(32632), "transform": from_origin(5e5, 5e6, pixel, pixel)}


def chips_of(folder: Path, source: str, mask: str) -> Chips:
    text = f'name = "here"\n[limits]\nmin_valid = 0.4\n[[sources]]\n{source}\n[sources.mask]\n{mask}\n'
    (folder / "site.toml").write_text(text)
    return open_chips(load_site(folder / "site.toml"), RGB, 64, None)


def test_planets_usable_data_mask_is_read_in_its_first_band(tmp_path: Path, write_tiff: Any, image: Any) -> None:
    """UDM2 has eight bands of 8 bits: clear, snow, shadow, light haze, heavy haze, cloud,
    confidence, and the mask of the first generation (docs.planet.com, PSScene, ortho_udm2)."""
    usable = np.zeros((8, 64, 192), np.uint8)
    usable[0, :, 64:] = 1
    usable[2, :, 128:] = 1
    usable[6] = 95
    name = "20230605_101559_00_2402"
    write_tiff(f"{name}_3B_AnalyticMS_SR_8b_clip.tif", image(8, 64, 192, "uint16") * 20, **utm(3))
    write_tiff(f"{name}_3B_udm2_clip.tif", usable, **utm(3))
    source = 'sensor = "planetscope-8"\npaths = ["{scene}_3B_AnalyticMS_SR_8b_clip.tif"]'
    mask = 'paths = ["{scene}_3B_udm2_clip.tif"]\n'
    assert chips_of(tmp_path, source, mask + 'kind = "planet-udm2"').col.tolist() == [64, 128]
    assert chips_of(tmp_path, source, mask + 'kind = "planet-udm2"\nband = 3').col.tolist() == [128]
    with pytest.raises(SiteError, match=r"udm2_clip\.tif is a mask of 8 bands; band 9 was asked for"):
        chips_of(tmp_path, source, mask + "keep = [1]\nband = 9")


def test_fmask_of_hls_leaves_out_clouds_their_shadows_their_neighbours_and_fill(
    tmp_path: Path, write_tiff: Any
) -> None:
    """HLS 2.0: one file a band, int16, -9999; Fmask has one byte of bits, 255 where there is
    nothing."""
    name = "HLS.S30.T32TQM.2023151T101559.v2.0"
    flags = np.zeros((64, 64), np.uint8)
    dropped = [0b10, 0b100, 0b1000, 255, 0b11000010]
    kept = [0, 0b1, 0b10000, 0b100000, 0b11000000]
    for row, value in enumerate([*dropped, *kept]):
        flags[row] = value
    for number, band in enumerate(("B02", "B03", "B04")):
        picture = np.full((1, 64, 64), 500 + number, np.int16)
        picture[0, 20 + number] = -9999  # another row in each band
        write_tiff(f"{name}/{name}.{band}.tif", picture, nodata=-9999, **utm(30))
    write_tiff(f"{name}/{name}.Fmask.tif", flags[None], nodata=255, **utm(30))
    chips = chips_of(
        tmp_path,
        'sensor = "hls-s30"\npaths = ["*/{scene}.{band}.tif"]\nbands = ["B02", "B03", "B04"]',
        'paths = ["*/{scene}.Fmask.tif"]\nkind = "hls-fmask"',
    )
    assert chips.valid.tolist() == [np.float32(1 - (len(dropped) + 3) / 64)]
    assert chips.statistics[0].minimum.tolist() == chips.statistics[0].maximum.tolist() == [502, 501, 500]


def test_a_mask_that_says_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"drops nothing: set `kind` .*hls-fmask.*`keep`"):
        MaskEntry(paths=["{scene}.tif"])
