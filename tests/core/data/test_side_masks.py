"""A mask that GDAL writes beside a raster is named, and read where the site file says so.

RFC 15 (https://gdal.org/development/rfc/rfc15_nodatabitmask.html): `image.tif.msk`, 0 where there
is no measurement.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import rasterio
from stored_chips import pixels_of

from fedsense_core.data.opening import open_chips
from fedsense_core.data.sites.side_masks import unread_side_masks

RGB = ("red", "green", "blue")
REMEDY = 'sensor = "rgb"\n[sources.mask]\npaths = ["{scene}.tif.msk"]\ndrop = [0]\nrequired = false'


def test_mask_beside_a_raster_is_named_and_its_remedy_leaves_out_what_gdal_does(
    write_tiff: Any, write_site: Any, image: Any
) -> None:
    write_tiff("b.tif", image(seed=1))
    path = write_tiff("a.tif", image())
    mask = np.full((128, 192), 255, np.uint8)
    mask[70:, 100:] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    assert path.with_name("a.tif.msk").is_file()
    with rasterio.open(path) as file:
        expected = file.dataset_mask() != 0
    site = write_site()
    assert len(open_chips(site, RGB, 64, None)) == 12
    (text,) = unread_side_masks(site.sources[0])
    assert text.startswith("1 of 2 files have a mask beside them, such as a.tif.msk")
    assert '`paths = ["{scene}.tif.msk"]`, `drop = [0]`, `required = false`' in text
    read = write_site(REMEDY, paths="{scene}.tif")
    assert unread_side_masks(read.sources[0]) == []
    chips = open_chips(read, RGB, 64, None)
    kept = [expected[y : y + 64, x : x + 64].mean() >= 0.9 for y in (0, 64) for x in (0, 64, 128)]
    assert kept.count(False) == 2
    assert len(chips) == 6 + kept.count(True)
    assert np.array_equal(pixels_of(chips)[0], image()[:, :64, :64])
