"""A TIFF of several pictures is named, as only its first would be read; overviews and masks are no
pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from stored_chips import pixels_of

from fedsense_core.data.opening import open_chips

RGB = ("red", "green", "blue")


def add_page(path: Path, image: np.ndarray[Any, Any]) -> None:
    bands, height, width = image.shape
    profile = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": image.dtype}
    with rasterio.open(path, "w", APPEND_SUBDATASET="YES", **profile) as file:
        file.write(image)


@pytest.mark.parametrize("pages", [2, 6])
def test_pages_are_named_with_the_remedy(pages: int, write_tiff: Any, write_site: Any, image: Any) -> None:
    write_tiff("a.tif", image(width=128))
    path = write_tiff("b.tif", image(width=128))
    for _ in range(pages - 1):
        add_page(path, image(width=128))
    (skipped,) = open_chips(write_site(), RGB, 64, None).skipped
    assert skipped.reason.startswith(f"has {pages} pages (page 2 of 128 x 128")
    assert "gdal_translate GTIFF_DIR:2:FILE NEW.tif" in skipped.reason


def test_a_small_first_page_is_not_taken_for_the_picture(write_tiff: Any, write_site: Any, image: Any) -> None:
    write_tiff("a.tif", image())
    add_page(write_tiff("b.tif", image(width=64, height=64)), image())
    (skipped,) = open_chips(write_site(), RGB, 64, None).skipped
    assert "page 2 of 192 x 128" in skipped.reason


def test_overviews_masks_and_a_thumbnail_leave_the_picture_as_it_is(
    write_tiff: Any, write_site: Any, image: Any
) -> None:
    picture = image(width=128)
    path = write_tiff("a.tif", picture)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(np.full((128, 128), 255, "uint8"))
        file.build_overviews([2, 4], Resampling.nearest)
    add_page(path, image(width=32, height=32))
    assert np.array_equal(pixels_of(open_chips(write_site(), RGB, 128, None))[0], picture)


@pytest.mark.parametrize(("suffix", "remedy"), [(".he5", "HDF5:FILE:VARIABLE"), (".h5", "HDF5:FILE:VARIABLE")])
def test_a_format_that_is_not_read_is_named_with_the_remedy(
    suffix: str, remedy: str, tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    write_tiff("a.tif", image())
    (tmp_path / f"b{suffix}").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    (skipped,) = open_chips(write_site(paths="[ab].*"), RGB, 64, None).skipped
    assert f"{suffix} is not read: convert each variable" in skipped.reason
    assert remedy in skipped.reason
