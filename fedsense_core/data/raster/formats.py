"""Which raster formats are read and how GDAL is told to, and why a scene may be skipped.

Only drivers that read one file by itself are ever tried. VRTs, which lead to other files, are read
by `vrt.open_vrt` alone, netCDF by `netcdf.open_netcdf`.
"""

from __future__ import annotations

import warnings
from pathlib import PurePath
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from fedsense_core.data.raster.units import CHIP_DTYPES

DTYPES = (*CHIP_DTYPES, "int8", "uint32", "int32", "float64")
"""What pixels may be; chips have the first ones. 64-bit integers and complex numbers are no
imagery."""
MASK_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32")
"""What classes and flags may be."""
JPEG2000 = "JP2OpenJPEG"
DRIVERS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jp2": JPEG2000,
    ".j2k": JPEG2000,
    ".vrt": "VRT",
    ".nc": "netCDF",
    ".nc4": "netCDF",
}
"""By suffix. All else has to be a GeoTIFF: formats that point at other files are never tried."""
_CONVERT = "convert it with `gdal_translate FILE NEW.tif`"
_CONVERT_EACH = "convert each variable with `gdal_translate {name}:FILE:VARIABLE NEW.tif`; `gdalinfo FILE` lists them"
NOT_READ = {
    ".img": _CONVERT,
    ".hdf": _CONVERT_EACH.format(name="HDF4_EOS:EOS_GRID"),
    ".h5": _CONVERT_EACH.format(name="HDF5"),
    ".he5": _CONVERT_EACH.format(name="HDF5"),
    ".grd": _CONVERT,
    ".bil": _CONVERT,
    ".bip": _CONVERT,
    ".bsq": _CONVERT,
    ".ecw": _CONVERT,
    ".sid": _CONVERT,
    ".zarr": _CONVERT,
    ".ntf": _CONVERT,
    ".nitf": _CONVERT,
    ".pix": _CONVERT,
    ".jxl": _CONVERT,
    ".webp": _CONVERT,
    ".bmp": _CONVERT,
    ".gif": _CONVERT,
    ".heic": _CONVERT,
    ".avif": _CONVERT,
}
"""Rasters of other formats, by suffix, and what to do about them. Their libraries are large, and
not made for files that nobody vouches for."""
GDAL_OPTIONS: dict[str, Any] = {
    # Side files could point the reader at other files; a COG needs none.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    # GDAL's cache of decoded blocks, in bytes; by default 5 % of the memory, for each client.
    "GDAL_CACHEMAX": 64 << 20,
    # Several threads lose the errors of JPEG 2000 tiles, which then read as zeros.
    "GDAL_NUM_THREADS": 1,
    # Its shortcut for whole PNGs returns whatever was in memory where a file is cut off.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
    # Else damaged JPEG blocks read as other pixels.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
    # Its rows of 8-bit files that are one long strip look like blocks that the file does not hold.
    "GDAL_ENABLE_TIFF_SPLIT": "NO",
}
FAULTS = (RasterioError, CPLE_BaseError, UnicodeError, MemoryError)
"""What rasterio raises for a file that it cannot make sense of."""
_NAMES = {"GTiff": "GeoTIFF", JPEG2000: "JPEG 2000"}


class Unreadable(Exception):
    """A reason to skip one scene. Never leaves `fedsense_core.data`."""


def driver_of(path: PurePath) -> str:
    """Return the one driver that may read a file of this name."""
    return DRIVERS.get(path.suffix.lower(), "GTiff")


def unread(path: PurePath, driver: str, why: str) -> Unreadable:
    """Return the reason to skip a file that its driver does not take."""
    remedy = NOT_READ.get(path.suffix.lower())
    hint = f"; {path.suffix} is not read: {remedy}" if remedy else ""
    return Unreadable(f"is no readable {_NAMES.get(driver, driver)} ({why}){hint}")


def opened(name: str, path: PurePath, driver: str, **options: str) -> Any:
    """Open with this driver and no other what GDAL calls ``name`` and people ``path``; ``options``
    are the driver's.

    Raises Unreadable.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(name, driver=driver, **options)
    except (*FAULTS, OSError) as error:
        raise unread(path, driver, one_line(error)) from error


def one_line(error: BaseException) -> str:
    """Return the words of an error, or of its cause, without line breaks."""
    return " ".join(str(error.__cause__ or error).split())[:200]
