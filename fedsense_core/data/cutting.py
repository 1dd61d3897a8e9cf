"""From a site's files to its chips: file by file, each wholly or not at all.

Shapes: n chips, C bands, S chip size.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsense_core.data.holdings import Site
from fedsense_core.data.limits import ReadLimits
from fedsense_core.data.rasters import DTYPES, Raster, Skipped, Unreadable, inspect, read_chips
from fedsense_core.data.statistics import Moments, merge_all
from fedsense_core.errors import SiteError

Array = NDArray[Any]


@dataclass(frozen=True)
class Request:
    """What is wanted of a site."""

    bands: tuple[str, ...]
    size: int
    """Chip size S, in pixels."""
    limits: ReadLimits


@dataclass(frozen=True)
class FileChips:
    """How many chips one file gave. Chips lie in the order of the files."""

    path: str
    source: int
    """0-based position of its entry among the site's sources."""
    count: int


@dataclass(frozen=True)
class Cut:
    """The record of one cutting."""

    dtype: str
    files: tuple[FileChips, ...]
    moments: tuple[Moments, ...]
    """Of the valid pixels kept, one for each of the site's sources, in stored units."""
    skipped: tuple[Skipped, ...]

    @property
    def count(self) -> int:
        """Number of chips."""
        return sum(file.count for file in self.files)


class Sink(Protocol):
    """Where chips go as they are cut."""

    def append(self, chips: Array) -> None:
        """Add chips (n, C, S, S) at the end."""

    def truncate(self, count: int) -> None:
        """Keep only the first ``count`` chips."""


class MemorySink:
    """Keeps the chips in memory."""

    def __init__(self) -> None:
        self._parts: list[Array] = []

    def append(self, chips: Array) -> None:
        """Add chips (n, C, S, S) at the end."""
        self._parts.append(chips)

    def truncate(self, count: int) -> None:
        """Keep only the first ``count`` chips."""
        self._parts = [np.concatenate(self._parts)[:count]] if self._parts and count else []

    def values(self) -> Array:
        """Return all chips (n, C, S, S)."""
        return np.concatenate(self._parts)


def cut_site(site: Site, request: Request, sink: Sink) -> Cut:
    """Send every usable chip of ``site`` to ``sink`` and return the record.

    Raises SiteError when a file contradicts its sensor card, a band is not there, or no chip at all is usable.
    """
    rasters, skipped = _inspect_all(site, request)
    dtype = _common_dtype([raster.dtype for _, raster in rasters])
    moments = [Moments.empty(len(request.bands)) for _ in site.sources]
    files: list[FileChips] = []
    count = 0
    for source, raster in rasters:
        try:
            kept, of_file = _cut_file(raster, request, sink, dtype, request.limits.max_chips - count)
        except Unreadable as reason:
            sink.truncate(count)
            skipped.append(Skipped(str(raster.path), str(reason)))
            continue
        count += kept
        moments[source] = moments[source].merge(of_file)
        files.append(FileChips(str(raster.path), source, kept))
    if not files:
        raise SiteError(_nothing_usable(site, skipped))
    return Cut(dtype, tuple(files), tuple(moments), tuple(skipped))


def pooled(cut: Cut, site: Site) -> Moments:
    """Return the moments over all sources: in stored units if they share scale and offset, else in physical ones."""
    units = [(source.card.scale, source.card.offset) for source in site.sources]
    if len(set(units)) == 1:
        return merge_all(list(cut.moments))
    return merge_all([part.scaled(*unit) for part, unit in zip(cut.moments, units, strict=True)])


def _inspect_all(site: Site, request: Request) -> tuple[list[tuple[int, Raster]], list[Skipped]]:
    rasters: list[tuple[int, Raster]] = []
    skipped: list[Skipped] = []
    for number, source in enumerate(site.sources):
        for path in source.files:
            try:
                rasters.append((number, inspect(path, source.card, request.bands, request.size, request.limits)))
            except Unreadable as reason:
                skipped.append(Skipped(str(path), str(reason)))
    return rasters, skipped


def _common_dtype(dtypes: Sequence[str]) -> str:
    """Return the narrowest allowed type that holds every file's values."""
    if not dtypes:
        return "float32"
    joint = str(np.result_type(*dtypes))
    return joint if joint in DTYPES else "float32"


def _cut_file(raster: Raster, request: Request, sink: Sink, dtype: str, room: int) -> tuple[int, Moments]:
    """Send one file's chips to ``sink``; return their number and moments. Raises Unreadable, perhaps half-way."""
    if room < 1:
        raise Unreadable(f"comes after the {request.limits.max_chips} chips that a site may have")
    kept, moments = 0, Moments.empty(len(request.bands))
    for block in read_chips(raster, request.size, request.limits):
        usable = block.valid.mean(axis=(1, 2)) >= request.limits.min_valid
        values, valid = block.values[usable][: room - kept], block.valid[usable][: room - kept]
        if len(values):
            moments = moments.merge(Moments.of(values, valid))
            sink.append(_filled(values, valid).astype(dtype, copy=False))
            kept += len(values)
    if not kept:
        raise Unreadable(f"has no chip with {request.limits.min_valid:.0%} valid pixels")
    return kept, moments


def _filled(values: Array, valid: NDArray[np.bool_]) -> Array:
    """Give invalid pixels of chips (n, C, S, S) their chip's mean of the band, so that a gap draws no edge."""
    for chip in np.flatnonzero(~valid.all(axis=(1, 2))):
        for band in values[chip]:
            mean = band[valid[chip]].mean(dtype=np.float64)
            band[~valid[chip]] = mean if band.dtype.kind == "f" else round(mean)
    return values


def _nothing_usable(site: Site, skipped: Sequence[Skipped]) -> str:
    """Say why a site has no chip, most frequent reason first, with one file as an example of each."""
    # Reasons differ in their figures and in GDAL's words in brackets; those with the same beginning count together.
    kinds = [re.sub(r"\d+", "N", item.reason.split(" (")[0]) for item in skipped]
    lines = []
    for kind, count in Counter(kinds).most_common(5):
        example = skipped[kinds.index(kind)]
        lines.append(f"{count} of {len(skipped)} files, such as {example.path}: {example.reason}")
    return f"{site.path}: site {site.name!r} has no usable chip. " + "; ".join(lines) + "."
