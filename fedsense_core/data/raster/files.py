"""Open one file, or a member of an archive, with the one driver that its name allows; and its
claims."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning

from fedsense_core.data.raster.formats import DTYPES, FAULTS, JPEG2000, Unreadable, driver_of, opened, unread
from fedsense_core.data.raster.jpeg2000 import check_blocks, check_codestream
from fedsense_core.data.raster.netcdf import DRIVER as NETCDF
from fedsense_core.data.raster.netcdf import open_netcdf
from fedsense_core.data.raster.vrt import open_vrt, sources_of
from fedsense_core.data.sites.archives import BadArchive, gdal_name, is_file, read_start, stored_bytes
from fedsense_core.data.sites.limits import ReadLimits

MOST_PAGES = 64
"""Pages of a GeoTIFF that are looked at for its mask: more are overviews of overviews."""
HEADER_BYTES = 4 << 20
"""In which a JPEG 2000 file's codestream has to begin."""
NAMED = 4
"""Pages that a message names."""


def open_raster(path: Path, limits: ReadLimits | None = None) -> Any:
    """Open ``path`` with the one driver that its suffix allows, its claims checked where opening
    costs memory.

    Raises Unreadable.
    """
    driver, limits = driver_of(path), limits or ReadLimits()
    # Pipes and devices would block, and GDAL's virtual file systems are no files.
    if str(path).startswith("/vsi") or not is_file(path):
        raise unread(path, driver, "no such file")
    try:
        if driver == "VRT":
            return open_vrt(path, lambda source: _open_source(source, limits))
        if driver == NETCDF:
            return open_netcdf(path, lambda file: check_claims(file, DTYPES, limits))
        name = gdal_name(path)
        if driver == JPEG2000:
            return _open_jpeg2000(path, name, limits)
    except (BadArchive, OSError) as error:
        raise unread(path, driver, str(error)) from error
    return opened(name, path, driver)


def check_claims(file: Any, dtypes: Sequence[str], limits: ReadLimits) -> tuple[int, int]:
    """Return the largest block (rows, columns) of a file within the limits. Raises Unreadable for
    another one."""
    if file.dtypes[0] not in dtypes:
        raise Unreadable(f"has pixels of type {file.dtypes[0]}; allowed are {', '.join(dtypes)}")
    if file.width * file.height > limits.max_file_pixels:
        raise Unreadable(f"claims {file.width} x {file.height} pixels, more than {limits.max_file_pixels}")
    rows, columns = (max(shape[axis] for shape in file.block_shapes) for axis in (0, 1))
    needed = rows * columns * np.dtype(file.dtypes[0]).itemsize * file.count  # interleaved blocks hold every band
    if needed > limits.max_block_bytes:
        raise Unreadable(
            f"has blocks of {columns} x {rows} pixels, {needed} bytes decoded, more than {limits.max_block_bytes}; "
            "rewrite it with `gdal_translate -co TILED=YES`"
        )
    return rows, columns


def check_pages(path: Path, file: Any, limits: ReadLimits) -> None:
    """Refuse a GeoTIFF of several pictures, and one whose mask claims blocks above the limit.

    Raises Unreadable. Overviews and masks are pages too, and belong to their picture.
    """
    if file.driver != "GTiff":
        return
    masked = any(MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags for flags in file.mask_flag_enums)
    several = len(file.subdatasets) > 1
    if not masked and not several:
        return
    pictures = []
    for number in range(1, MOST_PAGES + 2):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                page = rasterio.open(f"GTIFF_DIR:{number}:{gdal_name(path)}", driver="GTiff")
        except (*FAULTS, OSError):
            break  # the last page came before
        with page:
            rows, columns = page.block_shapes[0]
            if number > 1 and masked and rows * columns > limits.max_block_bytes:
                raise Unreadable(
                    f"has a mask with blocks of {columns} x {rows} pixels, more than {limits.max_block_bytes} bytes"
                )
            if f"GTIFF_DIR:{number}:" in " ".join(file.subdatasets):
                pictures.append((number, page.width, page.height))
    _check_one_picture(pictures, file)


def _check_one_picture(pictures: Sequence[tuple[int, int, int]], file: Any) -> None:
    """Raise Unreadable where a page is as large as the first: a thumbnail may be smaller."""
    others = [page for page in pictures if page[0] > 1 and page[1] * page[2] >= file.width * file.height]
    if others:
        named = ", ".join(f"page {number} of {width} x {height}" for number, width, height in others[:NAMED])
        named += ", ..." * (len(others) > NAMED)
        raise Unreadable(
            f"has {len(file.subdatasets)} pages ({named}), and only the first would be read; "
            "write each into a file of its own: `gdal_translate GTIFF_DIR:2:FILE NEW.tif`"
        )


def check_expansion(path: Path, file: Any, share: float, limits: ReadLimits) -> None:
    """Refuse a file of which the ``share`` that is there claims far more bytes than it takes.
    Raises Unreadable."""
    decoded = share * file.width * file.height * file.count * np.dtype(file.dtypes[0]).itemsize
    ratio = decoded / max(1, sum(map(stored_bytes, parts_of(path))))
    if ratio > limits.max_expansion:
        raise Unreadable(f"claims {ratio:.0f} times its own size, more than {limits.max_expansion}")


def parts_of(path: Path) -> tuple[Path, ...]:
    """Return the files that reading ``path`` reads: itself, and a VRT's sources."""
    return (path, *sources_of(path)) if driver_of(path) == "VRT" else (path,)


def origins_of(path: Path) -> tuple[Path, ...]:
    """Return the files whose numbers ``path`` shows: itself, or a VRT's sources."""
    return parts_of(path)[1:] or (path,)


def _open_source(path: Path, limits: ReadLimits) -> Any:
    """Open a file that a VRT shows, checked as if it were read by itself. Raises Unreadable."""
    file = open_raster(path, limits)
    try:
        check_claims(file, file.dtypes, limits)
        check_pages(path, file, limits)
        check_expansion(path, file, 1.0, limits)
    except Unreadable:
        file.close()
        raise
    return file


def _open_jpeg2000(path: Path, name: str, limits: ReadLimits) -> Any:
    claims = check_codestream(io.BytesIO(read_start(path, HEADER_BYTES)), limits)
    # Damage is an error where it is noticed. GEOREF_SOURCES would leave a codestream without boxes
    # the coordinates that were in memory before (GDAL 3.10).
    options = {"STRICT": "YES", "OPEN_REMOTE_GML": "NO", "USE_TILE_AS_BLOCK": "YES" if claims.tiles > 1 else "NO"}
    file = opened(name, path, JPEG2000, **options)
    try:
        check_blocks(claims, file.block_shapes[0], stored_bytes(path), limits)
    except Unreadable:
        file.close()
        raise
    return file
