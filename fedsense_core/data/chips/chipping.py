"""From a source's scenes and images to chips: each wholly or not at all.

Shapes: n chips, k of which have invalid pixels, C bands, S chip size, h x w window of pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fedsense_core.data.batches.prefetch import prefetch
from fedsense_core.data.chips.gaps import count_constant, filled
from fedsense_core.data.chips.statistics import Statistics
from fedsense_core.data.raster.formats import Unreadable
from fedsense_core.data.raster.other_bands import OtherBands
from fedsense_core.data.raster.scenes import ChipSpec, PixelWindow, files_needed, metadata_needed, read_scene
from fedsense_core.data.raster.units import Units
from fedsense_core.data.raster.validity import Pixels, as_stored, both, finite, missing
from fedsense_core.data.sites.archives import on_disk
from fedsense_core.data.sites.schema import Images, Scene, Source

Array = NDArray[Any]
Bools = NDArray[np.bool_]

READING_FORMAT = 3
"""Part of every key: raise it when the same files give other chips."""
PREFETCHED_WINDOWS = 2
"""Windows that wait between reading and judging: enough that neither waits for the other's slow
ones."""
PIECE = 256
"""Chips that are looked at at once, when those of a segment are copied or counted."""
LOCATION = np.dtype([("row", "<i4"), ("col", "<i4"), ("valid", "<f4")])
"""Of one chip: pixel row and column of its upper left corner in its scene, and the valid fraction
of its pixels."""

Progress = Callable[[int, int, int], None]
"""Called with the scenes done, the scenes in all, and the chips so far."""


@dataclass(frozen=True)
class ChipArrays:
    """Chips, with where they come from and which of their pixels are valid."""

    chips: Array
    """(n, C, S, S)"""
    locations: Array
    """(n,) of type `LOCATION`."""
    masks: Array
    """(k, S S / 8) uint8: packed bits, 1 where valid, of each chip whose valid fraction is below
    1."""

    @classmethod
    def of(cls, chips: Array, locations: Array, valid: Bools | None) -> ChipArrays:
        """Join chips, locations, and which pixels (n, S, S) are valid; None for all."""
        size = chips.shape[2] * chips.shape[3]
        if valid is None:
            return cls(chips, locations, np.empty((0, -(-size // 8)), np.uint8))
        partial = locations["valid"] < 1
        return cls(chips, locations, np.packbits(valid[partial].reshape(-1, size), axis=1))

    def __len__(self) -> int:
        return len(self.locations)

    def part(self, start: int, stop: int) -> ChipArrays:
        """Return the chips from ``start`` up to ``stop``."""
        first, last = (int(np.count_nonzero(self.locations["valid"][:end] < 1)) for end in (start, stop))
        return ChipArrays(self.chips[start:stop], self.locations[start:stop], self.masks[first:last])

    def pieces(self, start: int, stop: int) -> list[ChipArrays]:
        """Return the same in pieces that are small enough to look at."""
        return [self.part(first, min(first + PIECE, stop)) for first in range(start, stop, PIECE)]

    def statistics(self) -> Statistics:
        """Return the statistics of the valid pixels."""
        valid = np.ones((len(self), *self.chips.shape[2:]), dtype=bool)
        size = valid[0].size if len(valid) else 0
        bits = np.unpackbits(self.masks, axis=1, count=size).astype(bool)
        valid[self.locations["valid"] < 1] = bits.reshape(-1, *self.chips.shape[2:])
        return Statistics.of(self.chips, valid)


@dataclass(frozen=True)
class ChipRecord:
    """What one chip source gave: chips in a row in one segment; or a reason why it was left out."""

    reason: str = ""
    segment: str = ""
    start: int = 0
    count: int = 0
    whole: bool = True
    """False if there was no room for all its chips."""
    constant: int = 0
    """How many of its chips have one value all over, in every band."""
    other_bands: bool = False
    """True if it was skipped because its bands are not the card's."""

    def fits(self, room: int) -> bool:
        """Tell whether chipping the source with so much room would give no chips but these."""
        return self.whole or self.count >= room


class ChipSource(Protocol):
    """What is chipped as a whole: a scene, or an image of a dataset."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    @property
    def key(self) -> str:
        """What identifies it, its present state and how it is to be read."""

    def windows(self) -> Iterator[PixelWindow]:
        """Yield its pixels. Raises Unreadable or OtherBands for one to skip, perhaps half-way, and
        SiteError."""


class ChipWriter(Protocol):
    """A segment to which chips of one type are written."""

    name: str
    """Of the segment."""
    count: int
    """How many chips it holds."""
    statistics: Statistics
    """Of the chips that are to stay; whoever writes them adds theirs."""

    def append(self, arrays: ChipArrays) -> None:
        """Add chips at the end."""

    def truncate(self, count: int) -> None:
        """Keep only the first ``count`` chips."""


@dataclass(frozen=True)
class SceneSource:
    """A scene of a source."""

    scene: Scene
    source: Source
    spec: ChipSpec

    @property
    def name(self) -> str:
        """Path of the file after which the scene is named."""
        return str(self.scene.path)

    @property
    def key(self) -> str:
        """Digest of the state of its files and of everything that decides what chips they give."""
        source, files = self.source, files_needed(self.scene, self.source, self.spec.bands)
        return digest(
            _reading(source, self.spec),
            [[str(layer.path), layer.bands] for layer in self.scene.layers],
            [_state(path) for path in (*files, *metadata_needed(self.scene, source, self.spec.bands))],
            [(source.digests or {}).get(on_disk(path), "unlisted") for path in files]
            if source.digests is not None
            else None,
            asdict(source.mask) if source.mask and self.scene.mask else None,
            source.gsd_range_m,
            source.baseline_offset,
            self.scene.fault,
        )

    def windows(self) -> Iterator[PixelWindow]:
        """Yield its pixels."""
        return read_scene(self.scene, self.source, self.spec)


@dataclass(frozen=True)
class ImageSource:
    """An image of a dataset."""

    images: Images
    number: int
    source: Source
    spec: ChipSpec

    @property
    def name(self) -> str:
        """The dataset's own name of it."""
        return self.images.name(self.number)

    @property
    def key(self) -> str:
        """Digest of the dataset's own key and of everything that decides what chips it gives."""
        return digest(_reading(self.source, self.spec), self.images.key(self.number))

    def windows(self) -> Iterator[PixelWindow]:
        """Yield the whole image as one window."""
        card, size = self.source.card, self.spec.size
        values, valid = self.images.read(self.number)
        height, width = values.shape[1:]
        if min(height, width) < size:
            raise Unreadable(f"is {width} x {height} pixels, smaller than one chip of {size}")
        needed = height * width * len(self.spec.bands) * (values.dtype.itemsize + 1)
        if needed > self.spec.limits.max_window_bytes:
            raise Unreadable(f"has {width} x {height} pixels, more than {self.spec.limits.max_window_bytes} bytes")
        chosen = np.ascontiguousarray(values[list(card.positions(self.spec.bands, self.source.sensor))])
        unwanted = as_stored(card.nodata, str(values.dtype))
        nodata = [() if unwanted is None else (unwanted,)] * len(chosen)
        gaps = missing(chosen, nodata, card.nodata_bands == "any")
        pixels = Pixels(chosen, both(valid, finite(chosen)), gaps)
        yield PixelWindow(*Units.of_image(self.source, len(chosen)).convert(chosen, pixels.measured), 0, 0)


def chip_sources(source: Source, spec: ChipSpec, images: Images | None) -> list[ChipSource]:
    """Return a source's scenes, or the images of its dataset."""
    if images is not None:
        return [ImageSource(images, number, source, spec) for number in range(len(images))]
    return [SceneSource(scene, source, spec) for scene in source.scenes]


def digest(*parts: Any) -> str:
    """Return a short digest of plain values."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def chip(
    sources: Sequence[ChipSource],
    spec: ChipSpec,
    writer_of: Callable[[str], ChipWriter],
    room_for: Callable[[int], int],
) -> Iterator[tuple[int, ChipRecord]]:
    """Yield what each source gave, in order, its chips being written to ``writer_of`` their type.

    ``room_for`` says how many chips a source may have; where that is none, chipping ends.
    Raises SiteError when an image of a dataset contradicts its sensor card.
    """
    with closing(prefetch(_read(sources), PREFETCHED_WINDOWS)) as events:
        chipping: _Chipping | None = None
        for number, event in events:
            if chipping is None:
                room = room_for(number)
                if room < 1:
                    return
                chipping = _Chipping(spec, writer_of, room)
            if isinstance(event, PixelWindow):
                chipping.add(event)
                if chipping.whole:
                    continue
                yield number, chipping.record()
                return
            yield number, chipping.undone(event, sources[number].name) if event else chipping.record()
            chipping = None


def _read(sources: Sequence[ChipSource]) -> Generator[tuple[int, PixelWindow | Unreadable | OtherBands | None]]:
    """Yield each source's windows and, at its end, None or what was wrong with it."""
    for number, source in enumerate(sources):
        try:
            for window in source.windows():
                yield number, window
        except (Unreadable, OtherBands) as reason:
            yield number, reason
        except OSError as error:
            yield number, Unreadable(f"cannot be read ({error.strerror})")
        else:
            yield number, None


class _Chipping:
    """The chipping of one source."""

    def __init__(self, spec: ChipSpec, writer_of: Callable[[str], ChipWriter], room: int) -> None:
        self.whole = True
        self._spec = spec
        self._writer_of = writer_of
        self._writer: ChipWriter | None = None
        self._start = 0
        self._constant = 0
        self._room = room
        self._statistics = Statistics.empty(len(spec.bands))

    def add(self, window: PixelWindow) -> None:
        """Judge a window's chips and write the usable ones, as many as there is room for."""
        for part in _parts(window, self._spec):
            self._add(part)
            if not self.whole:
                return

    def _add(self, window: PixelWindow) -> None:
        chips, valid, locations = usable_chips(window, self._spec)
        if self._writer is None and len(chips):
            self._writer = self._writer_of(str(chips.dtype))
            self._start = self._writer.count
        if self._writer is None:
            return
        left = self._room - (self._writer.count - self._start)
        if len(chips) > left:
            self.whole = False
            chips, valid, locations = chips[:left], None if valid is None else valid[:left], locations[:left]
        self._statistics = self._statistics.merge(_statistics(window, chips, valid, self._spec))
        chips = chips if valid is None else filled(chips, valid)
        self._constant += count_constant(chips)
        self._writer.append(ChipArrays.of(chips, locations, valid))

    def record(self) -> ChipRecord:
        """Return what there is."""
        if self._writer is None:
            return ChipRecord(f"has no chip with {self._spec.limits.min_valid:.0%} valid pixels")
        self._writer.statistics = self._writer.statistics.merge(self._statistics)
        count = self._writer.count - self._start
        return ChipRecord("", self._writer.name, self._start, count, self.whole, self._constant)

    def undone(self, fault: Unreadable | OtherBands, name: str) -> ChipRecord:
        """Take back what was written of the source of that name."""
        if self._writer is not None:
            self._writer.truncate(self._start)
        # A file's name need not be text, but what is written down must be.
        other_bands = isinstance(fault, OtherBands)
        reason = fault.of_scene(name) if isinstance(fault, OtherBands) else str(fault)
        return ChipRecord(reason.encode("utf-8", "backslashreplace").decode(), other_bands=other_bands)


def usable_chips(window: PixelWindow, spec: ChipSpec) -> tuple[Array, Bools | None, Array]:
    """Return chips (n, C, S, S) with enough valid pixels, which pixels those are (n, S, S) or None,
    and locations (n,)."""
    size, stride = spec.size, spec.stride
    grid = sliding_window_view(window.values, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    grid = grid.transpose(1, 2, 0, 3, 4)
    down, across = grid.shape[:2]
    if window.valid is None:
        rows, columns = (index.ravel() for index in np.indices((down, across)))
        chips = np.ascontiguousarray(grid).reshape(-1, *grid.shape[2:])
        valid, fraction = None, np.ones(len(chips))
    else:
        masks = sliding_window_view(window.valid, (size, size))[::stride, ::stride]
        fractions = np.count_nonzero(masks, axis=(2, 3)) / (size * size)
        rows, columns = np.nonzero(fractions >= spec.limits.min_valid)
        chips, valid, fraction = grid[rows, columns], masks[rows, columns], fractions[rows, columns]
    locations = np.empty(len(chips), LOCATION)
    locations["row"], locations["col"] = rows * stride + window.row, columns * stride + window.col
    locations["valid"] = fraction
    return chips, valid, locations


def _parts(window: PixelWindow, spec: ChipSpec) -> Iterator[PixelWindow]:
    """Yield a window's chips in their order, so many at once as the limit allows: overlap repeats
    their pixels."""
    size, stride = spec.size, spec.stride
    bands, height, width = window.values.shape
    down, across = ((length - size) // stride + 1 for length in (height, width))
    chips = max(1, spec.limits.max_window_bytes // (bands * size * size * window.values.itemsize))
    columns = min(across, chips)
    rows = max(1, chips // across)
    for top in range(0, down * stride, rows * stride):
        for left in range(0, across * stride, columns * stride):
            # A slice ends with its array.
            here = np.s_[top : top + (rows - 1) * stride + size, left : left + (columns - 1) * stride + size]
            valid = None if window.valid is None else window.valid[here]
            yield PixelWindow(window.values[:, *here], valid, window.row + top, window.col + left)


def _statistics(window: PixelWindow, chips: Array, valid: Bools | None, spec: ChipSpec) -> Statistics:
    if valid is not None:
        return Statistics.of(chips, valid)
    # Chips that tile the window hold the same pixels, and there each band lies in one piece.
    pixels = window.values[None] if chips.size == window.values.size and spec.stride == spec.size else chips
    return Statistics.of(pixels, np.ones((len(pixels), *pixels.shape[2:]), dtype=bool))


def _state(path: Path) -> list[Any]:
    """Return size, time of change and readability of a file, or of its archive; one that has
    vanished is found missing by its reader."""
    try:
        stat = on_disk(path).stat()
    except OSError:
        return [str(path)]
    return [str(path), stat.st_size, stat.st_mtime_ns, os.access(on_disk(path), os.R_OK)]


def _reading(source: Source, spec: ChipSpec) -> list[Any]:
    # How many chips a site may have does not change those of a scene.
    limits = spec.limits.model_dump(exclude={"max_chips"})
    return [READING_FORMAT, source.card.model_dump(), spec.bands, spec.size, spec.stride, limits]
