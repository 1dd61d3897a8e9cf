"""netCDF files with one variable a band, as xarray, openEO and xcube write them.

The variables are shown as the bands of one raster, each under its name. Attributes are those of the
CF conventions (https://cfconventions.org), sections 2.5.1 (missing data), 5.6 (grid mappings) and
8.1 (packed data); GDAL's driver reads them (https://gdal.org/drivers/raster/netcdf.html).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from fedsense_core.data.raster.formats import FAULTS, Unreadable, one_line, opened
from fedsense_core.data.raster.netcdf_header import HEADER_BYTES, check_header
from fedsense_core.data.sites.archives import archive_of

DRIVER = "netCDF"
MOST_VARIABLES = 256
"""Hyperspectral products have about so many bands."""
_PLACES = {"lat", "lon", "latitude", "longitude", "projection_x_coordinate", "projection_y_coordinate"}
"""Names of variables that say where pixels lie, and CF's standard names of them."""
_BANDS = ("band", "bands", "wavelength")
"""What a dimension of bands is called."""
_TYPES = {"uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32"}
_TYPES |= {"float32": "Float32", "float64": "Float64"}
_TAKE_ONE = "write the ones that are imagery into files of their own: `gdal_translate NETCDF:FILE:VARIABLE NEW.tif`"

Check = Callable[[Any], object]
"""Checks the claims of an open variable. Raises Unreadable."""


@dataclass(frozen=True)
class _Variable:
    """What a variable says that it is."""

    name: str
    grid: tuple[Any, ...]
    """Width, height, transform and reference system."""
    dtype: str
    nodata: float | None
    scale: float
    offset: float


def open_netcdf(path: Path, check: Check) -> Any:
    """Open a file whose variables are bands, each checked. Raises Unreadable where they are not, or
    do not share a grid and a type."""
    if archive_of(path):
        raise Unreadable("is a netCDF file in an archive, which is not read; unpack it")
    if '"' in str(path):
        raise Unreadable("is a netCDF file with a quotation mark in its path; rename it")
    with path.open("rb") as start:
        check_header(start.read(HEADER_BYTES))
    file = opened(str(path), path, DRIVER)
    names = [_name(path, text) for text in file.subdatasets]
    if not names and file.count:
        return _single(file)
    file.close()
    if len(names) > MOST_VARIABLES:
        raise Unreadable(f"has {len(names)} variables, more than {MOST_VARIABLES}")
    found = (_look(path, name, check) for name in names)
    variables = [variable for variable in found if variable is not None]
    if not variables:
        raise Unreadable("is a netCDF file without a variable of pixels")
    for what, key in (("grids", "grid"), ("types", "dtype")):
        _check_equal(variables, what, key)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(_text(path, variables), driver="VRT")
    except (*FAULTS, OSError) as error:
        raise Unreadable(f"is no readable netCDF file ({one_line(error)})") from error


def _name(path: Path, text: str) -> str:
    """Return the variable of a subdataset as GDAL lists it, such as ``netcdf:/data/a.nc:B02``."""
    return text.partition(":")[2].replace('"', "").removeprefix(f"{path}:")


def _single(file: Any) -> Any:
    """Return a file of one variable: with several layers only where these are bands."""
    dimensions = file.tags().get("NETCDF_DIM_EXTRA", "").strip("{}")
    if file.count > 1 and dimensions.lower() not in _BANDS:
        count = file.count
        file.close()
        raise Unreadable(_layers("its variable", count, dimensions))
    return file


def _layers(what: str, count: int, dimensions: str) -> str:
    return (
        f"is a netCDF file in which {what} has {count} layers along {dimensions or 'a further dimension'}, and no band "
        "is told from another by it; write each layer into a file of its own, with `gdal_translate -b`"
    )


def _look(path: Path, name: str, check: Check) -> _Variable | None:
    """Return a variable of pixels; None for one that says where pixels lie."""
    with opened(f'NETCDF:"{path}":{name}', path, DRIVER) as file:
        standard = file.tags(1).get("standard_name", "") if file.count else ""
        if not file.count or {name.rpartition("/")[2].lower(), standard.lower()} & _PLACES:
            return None
        if file.count > 1:
            raise Unreadable(_layers(f"{name!r}", file.count, file.tags().get("NETCDF_DIM_EXTRA", "").strip("{}")))
        check(file)
        return _Variable(
            name,
            (file.width, file.height, file.transform, file.crs),
            file.dtypes[0],
            file.nodatavals[0],
            file.scales[0],
            file.offsets[0],
        )


def _check_equal(variables: list[_Variable], what: str, key: str) -> None:
    """Refuse variables that make no one raster. Raises Unreadable naming the odd ones."""
    usual = Counter(getattr(variable, key) for variable in variables).most_common(1)[0][0]
    odd = [variable.name for variable in variables if getattr(variable, key) != usual]
    if odd:
        raise Unreadable(
            f"is a netCDF file of variables with several {what} ({', '.join(odd[:4])} differ); {_TAKE_ONE}"
        )


def _text(path: Path, variables: list[_Variable]) -> str:
    """Return a VRT that shows the variables as bands, whatever else the file holds."""
    width, height, transform, crs = variables[0].grid
    root = Xml.Element("VRTDataset", {"rasterXSize": str(width), "rasterYSize": str(height)})
    if crs:
        Xml.SubElement(
            root, "SRS", {"dataAxisToSRSAxisMapping": "2,1" if crs.is_geographic else "1,2"}
        ).text = crs.to_wkt()
    if not transform.is_identity:
        Xml.SubElement(root, "GeoTransform").text = ", ".join(map(repr, map(float, transform.to_gdal())))
    for number, variable in enumerate(variables, start=1):
        band = Xml.SubElement(root, "VRTRasterBand", {"dataType": _TYPES[variable.dtype], "band": str(number)})
        Xml.SubElement(band, "Description").text = variable.name
        for key, value in (("NoDataValue", variable.nodata), ("Offset", variable.offset), ("Scale", variable.scale)):
            if value is not None:
                Xml.SubElement(band, key).text = repr(float(value))
        source = Xml.SubElement(band, "SimpleSource")
        attributes = {"relativeToVRT": "0", "shared": "0"}
        Xml.SubElement(source, "SourceFilename", attributes).text = f'NETCDF:"{path}":{variable.name}'
        Xml.SubElement(source, "SourceBand").text = "1"
        place = {"xOff": "0", "yOff": "0", "xSize": str(width), "ySize": str(height)}
        for corner in ("SrcRect", "DstRect"):
            Xml.SubElement(source, corner, place)
    return Xml.tostring(root, encoding="unicode")
