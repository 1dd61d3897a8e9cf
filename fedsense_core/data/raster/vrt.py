"""VRT mosaics and band stacks, as `gdalbuildvrt` writes them, of files below the VRT's own folder.

A VRT can lead anywhere and compute anything. So GDAL never sees the file: it is given a new text,
written here of the parts that are allowed, once each source has been checked as a file of its own.
Elements are those of https://gdal.org/drivers/raster/vrt.html.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree as Xml

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning

from fedsense_core.data.raster.formats import DRIVERS, FAULTS, Unreadable, one_line
from fedsense_core.data.sites.archives import archive_of

VRT_BYTES = 4 << 20
"""Largest VRT: some 8,000 sources."""
MOST_STRETCHED = 16
"""A source's pixels may be so many times as large or small as the mosaic's."""
MOST_PLACES = 1 << 26
"""Corners of sources, across times down, of which it is worked out whether they leave holes."""
SUFFIXES = (".tif", ".tiff", *(suffix for suffix, driver in DRIVERS.items() if driver not in ("VRT", "netCDF")))
"""What sources may be."""
_KEPT = {
    "VRTDataset": {"SRS", "GeoTransform", "Metadata", "VRTRasterBand"},
    "VRTRasterBand": {
        *("Description", "NoDataValue", "ColorInterp", "UnitType", "Offset", "Scale", "Metadata"),
        *("SimpleSource", "ComplexSource"),
    },
    "SimpleSource": {"SourceFilename", "SourceBand", "SrcRect", "DstRect"},
    "ComplexSource": {"SourceFilename", "SourceBand", "SrcRect", "DstRect", "NODATA"},
}
"""Elements, by the one around them, that go into the new text."""
_DROPPED = {
    "VRTDataset": {"OverviewList", "BlockXSize", "BlockYSize"},
    "VRTRasterBand": {"Histograms", "CategoryNames", "ColorTable", "HideNoDataValue"},
    "SimpleSource": {"SourceProperties"},
    "ComplexSource": {"SourceProperties"},
}
"""Elements that change no pixel, or only hide what is no measurement."""
_ATTRIBUTES = {
    "VRTDataset": {"rasterXSize", "rasterYSize"},
    "VRTRasterBand": {"dataType", "band", "blockXSize", "blockYSize"},
    "SimpleSource": {"resampling"},
    "ComplexSource": {"resampling"},
}
_TYPES = {"Byte": "uint8", "UInt16": "uint16", "Int16": "int16", "Float32": "float32", "Int8": "int8", "Int32": "int32"}
_TYPES |= {"UInt32": "uint32", "Float64": "float64"}

_TELLING = ("PROCESSING_BASELINE", "BOA_ADD_OFFSET", "RADIO_ADD_OFFSET", "FEDSENSE_CHIP_SIZE")
"""Tags of files that say how their pixels are to be read: a VRT does not repeat them."""
Number = TypeVar("Number", float, None)
Opener = Callable[[Path], Any]
"""Opens and checks a source as a file of its own. Raises Unreadable."""


@dataclass(frozen=True)
class _Source:
    """A part of one band of a mosaic."""

    path: Path
    band: int
    target: tuple[float, float, float, float]
    """Left, top, width and height in the mosaic's pixels."""
    left_out: str | None
    """Its value that leaves the mosaic as it is, where there is one."""


def open_vrt(path: Path, open_source: Opener) -> Any:
    """Open a VRT after all that it leads to has been checked. Raises Unreadable, naming what is not
    allowed."""
    if archive_of(path):
        raise Unreadable("is a VRT in an archive, which is not read; unpack it")
    path = path.resolve()
    root = _parsed(path)
    _check_elements(root)
    bands = root.findall("VRTRasterBand")
    parts = [list(_sources(band, path)) for band in bands]
    has_alpha = bands[-1].findtext("ColorInterp") == "Alpha"
    tags: list[dict[str, str]] = []
    for file_path in dict.fromkeys(source.path for sources in parts for source in sources):
        with open_source(file_path) as file:
            tags.append({key: text for key, text in file.tags().items() if key in _TELLING})
            for band, sources in zip(bands, parts, strict=True):
                for source in (one for one in sources if one.path == file_path):
                    _check_band(source, file, band, has_alpha)
    for band, sources in zip(bands, parts, strict=True):
        _check_cover(sources, band, *(_whole(root.get(key), key) for key in ("rasterXSize", "rasterYSize")))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(_text(root, path, tags), driver="VRT")
    except (*FAULTS, OSError) as error:
        raise Unreadable(f"is no readable VRT ({one_line(error)})") from error


def sources_of(path: Path) -> tuple[Path, ...]:
    """Return the files that a VRT leads to, without links, each once; none where it is no allowed
    VRT."""
    path = path.resolve()
    try:
        bands = _parsed(path).findall("VRTRasterBand")
        return tuple(dict.fromkeys(source.path for band in bands for source in _sources(band, path)))
    except Unreadable:
        return ()


def _parsed(path: Path) -> Xml.Element:
    try:
        with path.open("rb") as file:
            text = file.read(VRT_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from error
    if len(text) > VRT_BYTES:
        raise Unreadable(f"is a VRT of more than {VRT_BYTES} bytes; write a GeoTIFF with `gdal_translate`")
    # Document types declare entities, which may grow or lead elsewhere; UTF-16 would hide them.
    if b"\0" in text or b"<!" in text.replace(b"<!--", b""):
        raise Unreadable("is a VRT with a document type or raw text, which is not read")
    try:
        root = Xml.fromstring(text)
    except (Xml.ParseError, ValueError, RecursionError, LookupError) as error:
        raise Unreadable(f"is no readable VRT ({error})") from error
    if root.tag != "VRTDataset":
        raise Unreadable(f"is no readable VRT (it is <{root.tag[:40]}>)")
    return root


def _check_elements(element: Xml.Element) -> None:
    """Refuse what is not on the lists above. Raises Unreadable naming it."""
    known = _KEPT.get(element.tag)
    if known is None:
        if any(len(inner) or (element.tag, inner.tag) != ("Metadata", "MDI") for inner in element):
            raise _refused(f"elements in <{element.tag}>")
        return
    extra = sorted(set(element.attrib) - _ATTRIBUTES.get(element.tag, set()))
    if extra:
        raise _refused(f'<{element.tag} {extra[0]}="{element.get(extra[0], "")[:40]}">')
    for inner in element:
        if inner.tag not in known | _DROPPED[element.tag]:
            raise _refused(f"<{inner.tag}> in <{element.tag}>")
        if _is_kept(inner, element):
            _check_elements(inner)
    if element.tag == "VRTDataset" and element.find("VRTRasterBand") is None:
        raise Unreadable("is a VRT without bands")
    if element.tag == "VRTRasterBand" and element.get("dataType", "Byte") not in _TYPES:
        raise _refused(f"bands of type {element.get('dataType')}")


def _is_kept(inner: Xml.Element, element: Xml.Element) -> bool:
    """Tell whether an element goes into the new text: metadata of other domains than GDAL's own
    does not."""
    return inner.tag in _KEPT.get(element.tag, {inner.tag}) and not (inner.tag == "Metadata" and inner.attrib)


def _refused(what: str) -> Unreadable:
    return Unreadable(
        f"is a VRT with {what[:120]}, and only plain mosaics and stacks of files are read; "
        "write its pixels into a GeoTIFF with `gdal_translate`"
    )


def _sources(band: Xml.Element, path: Path) -> Iterator[_Source]:
    """Yield the parts of a band. Raises Unreadable for a file that is not below the VRT's
    folder."""
    for element in band:
        if element.tag not in ("SimpleSource", "ComplexSource"):
            continue
        text = (element.findtext("SourceFilename") or "").strip()
        number = (element.findtext("SourceBand") or "1").strip()
        if not number.isascii() or not number.isdecimal():
            raise _refused(f"the band {number[:20]!r} of a file")
        target, part = _rectangle(element.find("DstRect")), _rectangle(element.find("SrcRect"))
        if any(not 1 / MOST_STRETCHED <= a / b <= MOST_STRETCHED for a, b in zip(target[2:], part[2:], strict=True)):
            raise _refused(f"pixels more than {MOST_STRETCHED} times as large or small as its own")
        yield _Source(_local(text, path), int(number), target, element.findtext("NODATA"))


def _local(text: str, path: Path) -> Path:
    """Return the file that a VRT means, without links. Raises Unreadable for one elsewhere."""
    if not text or text.startswith("/vsi") or ":" in text or "<" in text or "\0" in text:
        raise _refused(f"the source {text[:80]!r}, which is no plain path")
    file, folder = (path.parent / text).resolve(), path.parent.resolve()
    if not file.is_relative_to(folder):
        raise Unreadable(
            f"is a VRT that leads to {text[:80]!r}, which is not below its folder; move it above its files"
        )
    if file.suffix.lower() not in SUFFIXES:
        raise Unreadable(f"is a VRT that leads to {text[:80]!r}; its files may end in {', '.join(SUFFIXES)}")
    return file


def _rectangle(element: Xml.Element | None) -> tuple[float, float, float, float]:
    if element is None:
        raise _refused("a file that has no <SrcRect> or <DstRect>")
    try:
        left, top, width, height = (float(element.get(key, "")) for key in ("xOff", "yOff", "xSize", "ySize"))
    except ValueError as error:
        raise _refused(f"a <{element.tag}> without four numbers") from error
    if not (all(map(math.isfinite, (left, top))) and 0 < width < 1e9 and 0 < height < 1e9):
        raise _refused(f"an impossible <{element.tag}>")
    return left, top, width, height


def _check_band(source: _Source, file: Any, band: Xml.Element, has_alpha: bool) -> None:
    """Refuse a source whose pixels would come out as others. Raises Unreadable."""
    name, wanted = source.path.name, _TYPES[band.get("dataType", "Byte")]
    if source.band not in file.indexes:
        raise Unreadable(f"is a VRT of band {source.band} of {name}, which has {file.count}")
    i = source.band - 1
    if file.dtypes[i] != wanted:
        raise Unreadable(f"is a VRT of type {wanted} over {name}, which has {file.dtypes[i]}: numbers would be cut off")
    declared = (file.scales[i], file.offsets[i])
    if declared != (_number(band.findtext("Scale"), 1.0), _number(band.findtext("Offset"), 0.0)):
        raise Unreadable(f"is a VRT with another scale and offset than {name} declares, {declared}")
    flags = file.mask_flag_enums[i]
    if MaskFlags.per_dataset in flags and not (MaskFlags.alpha in flags and has_alpha):
        raise Unreadable(f"is a VRT that leaves out the mask of {name}; write a GeoTIFF with `gdal_translate`")
    nodata, kept = file.nodatavals[i], source.left_out or band.findtext("NoDataValue")
    if nodata is not None and not _same(nodata, _number(kept, None)):
        raise Unreadable(
            f"is a VRT in which the nodata value of {name}, {nodata:g}, is a measurement; write it again with "
            "`gdalbuildvrt`"
        )


def _check_cover(sources: list[_Source], band: Xml.Element, width: int, height: int) -> None:
    """Refuse a band with pixels that no source covers and no nodata value to tell them by. Raises
    Unreadable."""
    if band.find("NoDataValue") is not None:
        return
    if any(source.left_out for source in sources) or not _is_covered(sources, width, height):
        raise Unreadable(
            "is a VRT with pixels that none of its files covers, and no nodata value; write it again with "
            "`gdalbuildvrt -vrtnodata VALUE`, a value that means no measurement"
        )


def _is_covered(sources: list[_Source], width: int, height: int) -> bool:
    """Tell whether every pixel of a band belongs to some source."""
    corners = np.array([source.target for source in sources], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    corners = np.clip(np.round(corners), 0, [width, height] * 2)
    x, y = np.unique([0, width, *corners[:, ::2].ravel()]), np.unique([0, height, *corners[:, 1::2].ravel()])
    if len(x) * len(y) > MOST_PLACES:
        return False
    filled = np.zeros((len(y) - 1, len(x) - 1), dtype=bool)
    for left, top, right, bottom in corners:
        filled[slice(*np.searchsorted(y, (top, bottom))), slice(*np.searchsorted(x, (left, right)))] = True
    return bool(filled.all())


def _same(a: float, b: float | None) -> bool:
    return b is not None and (a == b or (math.isnan(a) and math.isnan(b)))


def _text(root: Xml.Element, path: Path, tags: list[dict[str, str]]) -> str:
    """Return the text that GDAL is given, with the telling ``tags`` of its files. Raises Unreadable
    where they differ."""
    new = _rewritten(root, path)
    if any(other != tags[0] for other in tags):
        raise Unreadable(f"is a VRT of files that differ in a tag ({', '.join(_TELLING[:3])}); make one of each kind")
    for key, text in tags[0].items() if tags else ():
        Xml.SubElement(Xml.SubElement(new, "Metadata"), "MDI", {"key": key}).text = text
    return Xml.tostring(new, encoding="unicode")


def _rewritten(element: Xml.Element, path: Path) -> Xml.Element:
    """Return a copy with nothing but what is allowed, and with absolute paths without links."""
    new = Xml.Element(element.tag, dict(element.attrib))
    new.text = element.text
    for inner in element:
        if inner.tag == "SourceFilename":
            name = Xml.SubElement(new, inner.tag, {"relativeToVRT": "0", "shared": "0"})
            name.text = str(_local((inner.text or "").strip(), path))
        elif _is_kept(inner, element):
            new.append(_rewritten(inner, path))
    return new


def _number(text: str | None, default: Number) -> float | Number:
    if text is None:
        return default
    try:
        return float(text)
    except ValueError as error:
        raise _refused(f"the number {text[:20]!r}") from error


def _whole(text: str | None, key: str) -> int:
    if text is None or not text.isascii() or not text.isdecimal() or not 0 < int(text) < 1 << 31:
        raise _refused(f"{key} = {text!r}")
    return int(text)
