"""Counts that Sentinel-2 products carry on top of their reflectance, and what says so.

Since processing baseline 04.00 (25 January 2022) counts are (reflectance + 0.1) * 10,000. The
product's metadata state the number to add, -1000, for each band; see the Sentinel-2 Products
Specification Document, issue 14.9, and https://sentiwiki.copernicus.eu/web/s2-products.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.parsers import expat

from fedsense_core.data.sites.archives import BadArchive, is_file, on_disk, read_start

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""By ``band_id`` of the product's metadata."""
METADATA_NAMES = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
"""Of the product's metadata, in its outermost folder."""
METADATA_BYTES = 4 << 20
"""Real ones have some 60 kB, those of the format before 2017 up to some hundred."""
OFFSETS = ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET")
"""Of level 2A and level 1C: elements of the metadata, and tags of bands that GDAL makes of them."""
# The compact naming convention of products since December 2016. A discriminator follows, and more
# where a file's name begins with its product's.
_PRODUCT = re.compile(
    r"(?<![A-Z0-9])S2[A-D]_MSIL(?:1C|2A)_\d{8}T\d{6}_N(\d\d)(\d\d)_R\d{3}_T\d\d[A-Z]{3}(?![A-Z0-9])", re.IGNORECASE
)
_NUMBER = re.compile(r"(\d{1,2})\.(\d{1,2})")


@dataclass(frozen=True, order=True)
class Baseline:
    """A processing baseline, such as 05.09."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major:02}.{self.minor:02}"

    @classmethod
    def of(cls, text: str) -> Baseline | None:
        """Return the baseline that a text such as ``05.09`` or ``4.0`` names, or None."""
        found = _NUMBER.fullmatch(text.strip())
        return cls(int(found[1]), int(found[2].ljust(2, "0"))) if found else None

    @property
    def is_official(self) -> bool:
        """Whether ESA's own processing has such numbers: users of the toolbox write 99.99."""
        return self < Baseline(90, 0)

    @property
    def has_offset(self) -> bool:
        """Whether products of it carry counts on top."""
        return self >= WITH_OFFSET and self.is_official

    @property
    def is_known(self) -> bool:
        """Whether it was in use when this was written."""
        return self <= NEWEST_KNOWN or not self.is_official


WITH_OFFSET = Baseline(4, 0)
"""From which products carry an offset."""
NEWEST_KNOWN = Baseline(5, 12)
"""In use since February 2026. What a later one does to the counts is not known."""


@dataclass(frozen=True)
class Metadata:
    """What a product's metadata say about its counts."""

    baseline: Baseline | None
    offsets: Mapping[str, float]
    """Number to add to the counts of each band, by the band's code; empty before baseline 04.00."""


@dataclass(frozen=True)
class Offset:
    """The number added to the stored counts of each band of a file, and why."""

    counts: tuple[float, ...]
    why: str
    """For people: ``by metadata``, ``by name (N0509)``; of zeros, what speaks for none."""
    unknown: Baseline | None = None
    """The baseline that decided, where it is newer than the newest known."""


def added_offset(path: Path, tags: Sequence[Mapping[str, str]], codes: Sequence[str], by_baseline: float) -> Offset:
    """Return what is added to a file's counts.

    ``tags`` are those of the dataset, then those of each band, whose ``codes`` are such as B04.
    The first of these that says something decides: offsets in the file's tags, offsets in the
    product's metadata beside it, a baseline in the tags, in the metadata, in a product's name.
    ``by_baseline`` is added where only a baseline speaks for an offset. Raises ValueError, which
    goes on after the file's name, for metadata that cannot be made sense of.
    """
    tagged = _tagged_offsets(tags)
    if tagged is not None:
        return Offset(tagged, "by metadata")
    beside = metadata_file(path)
    metadata = read_metadata(beside) if beside else Metadata(None, {})
    if metadata.offsets:
        return Offset(_of_bands(metadata.offsets, codes), "by metadata")
    return _by_baseline(path, tags[0], metadata.baseline, len(codes), by_baseline)


def metadata_file(path: Path) -> Path | None:
    """Return the metadata of the product in whose folder a file lies, or None.

    Such a folder's name ends in .SAFE or is a product's; the nearest one with metadata counts.
    """
    products = (folder for folder in path.parents if is_product(folder.name))
    files = (folder / name for folder in products for name in METADATA_NAMES)
    return next((file for file in files if is_file(file)), None)


def is_product(name: str) -> bool:
    """Tell whether a folder of this name is a product."""
    return name.upper().endswith(".SAFE") or baseline_in(name) is not None


def baseline_in(name: str) -> Baseline | None:
    """Return the processing baseline in a name that is, or begins with, that of a product."""
    found = _PRODUCT.search(name)
    return Baseline(int(found[1]), int(found[2])) if found else None


def read_metadata(path: Path) -> Metadata:
    """Parse the metadata in a product's folder. Raises ValueError as `added_offset` does."""
    try:
        state = on_disk(path).stat()
        return _read(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise ValueError(f"lies beside {path.name}, which cannot be read ({error.strerror})") from error
    except BadArchive as error:
        raise ValueError(f"lies beside {path.name}, which {error}") from error


@lru_cache(maxsize=64)
def _read(path: Path, _size: int, _changed: int) -> Metadata:
    content = read_start(path, METADATA_BYTES + 1)
    if len(content) > METADATA_BYTES:
        raise ValueError(f"lies beside {path.name}, which has more than {METADATA_BYTES} bytes")
    return parse_metadata(content, path.name)


def parse_metadata(content: bytes, name: str) -> Metadata:
    """Parse the metadata of a product, which errors call ``name``. Raises ValueError.

    Whoever reads ``content`` limits its size to `METADATA_BYTES`. Declarations of types and
    entities, which no product has, are refused, so that nothing can expand or be fetched.
    """
    reading = _Reading()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = _refuse
    parser.StartElementHandler, parser.EndElementHandler = reading.start, reading.end
    parser.CharacterDataHandler = reading.text
    try:
        parser.Parse(content, True)
        return reading.result()
    except (expat.ExpatError, ValueError, IndexError) as error:
        raise ValueError(f"lies beside {name}, which is no metadata of a Sentinel-2 product ({error})") from error


class _Reading:
    """Collects the few elements that are needed, wherever in the document they are."""

    def __init__(self) -> None:
        self._wanted = ""
        self._band = 0
        self._said: list[str] = []
        self._baseline: Baseline | None = None
        self._offsets: dict[str, float] = {}

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        name = tag.rpartition(" ")[2]
        if name in OFFSETS:
            self._band = int(attributes.get("band_id", ""))
        self._wanted = name if name in (*OFFSETS, "PROCESSING_BASELINE") else ""
        self._said = []

    def text(self, part: str) -> None:
        if self._wanted:
            self._said.append(part)

    def end(self, _tag: str) -> None:
        said = "".join(self._said).strip()
        if self._wanted in OFFSETS:
            if not 0 <= self._band < len(BANDS):
                raise ValueError(f"there is no band_id {self._band}")
            self._offsets[BANDS[self._band]] = _number(said)
        elif self._wanted and self._baseline is None:
            self._baseline = Baseline.of(said)
        self._wanted = ""

    def result(self) -> Metadata:
        return Metadata(self._baseline, self._offsets)


def _refuse(*_: Any) -> None:
    raise ValueError("it declares a document type")


def _tagged_offsets(tags: Sequence[Mapping[str, str]]) -> tuple[float, ...] | None:
    """Return the offsets of the bands that tags say, or None where no tag says one."""
    common, *bands = tags
    said = [next((own[key] for own in (band, common) for key in OFFSETS if key in own), None) for band in bands]
    if all(text is None for text in said):
        return None
    try:
        return tuple(_number(text or "0") for text in said)
    except ValueError as error:
        raise ValueError(f"has a tag {' or '.join(OFFSETS)} that is no number ({error})") from error


def _of_bands(offsets: Mapping[str, float], codes: Sequence[str]) -> tuple[float, ...]:
    """Return the offsets of bands; so far those of all bands are the same."""
    if len(set(offsets.values())) == 1:
        return (next(iter(offsets.values())),) * len(codes)
    missing = [code for code in codes if code not in offsets]
    if missing:
        raise ValueError(f"is of a product with offsets that differ by band, and with none for {missing[0] or 'it'}")
    return tuple(offsets[code] for code in codes)


def _by_baseline(path: Path, tags: Mapping[str, str], stated: Baseline | None, count: int, offset: float) -> Offset:
    tagged = Baseline.of(tags.get("PROCESSING_BASELINE", ""))
    if tagged or stated:
        baseline, source = tagged or stated, "metadata"
    else:
        names = (baseline_in(part) for part in reversed(path.parts))
        baseline, source = next((one for one in names if one), None), "name"
    if baseline is None:
        return Offset((0.0,) * count, "no baseline stated")
    shown = f"baseline {baseline}" if source == "metadata" else f"N{baseline.major:02}{baseline.minor:02}"
    if not baseline.has_offset:
        kind = "before 04.00" if baseline.is_official else "of the toolbox"
        return Offset((0.0,) * count, f"by {source} ({shown}, {kind})")
    return Offset((offset,) * count, f"by {source} ({shown})", None if baseline.is_known else baseline)


def _number(text: str) -> float:
    value = float(text)
    if not -(1 << 16) < value < 1 << 16:
        raise ValueError(f"{text!r} is no offset of counts")
    return value
