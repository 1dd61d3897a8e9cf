"""From scenes to chips: scene by scene, each wholly or not at all.

Shapes: n chips, C bands, S chip size, h x w block of neighbouring chips.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fedsense_core.data.batches.prefetch import ahead
from fedsense_core.data.chips.segments import PLACE, Rows
from fedsense_core.data.chips.statistics import Statistics
from fedsense_core.data.raster.rasters import Unreadable
from fedsense_core.data.raster.scenes import Block, Request

Array = NDArray[Any]
Bools = NDArray[np.bool_]

BLOCKS_AHEAD = 2
"""Blocks that wait between reading and judging: enough that neither waits for the other's slow
ones."""


class Subject(Protocol):
    """What is cut as a whole: a scene, or an image of a dataset."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    @property
    def key(self) -> str:
        """What identifies it, its present state and how it is to be read."""

    def blocks(self) -> Iterator[Block]:
        """Yield its chips. Raises Unreadable for one to skip, perhaps half-way, and SiteError."""


class Writer(Protocol):
    """Where chips of one type go."""

    name: str
    """Of the segment that it writes."""
    count: int
    """How many chips it holds."""
    statistics: Statistics
    """Of the chips that are to stay."""

    def append(self, rows: Rows) -> None:
        """Add chips at the end."""

    def truncate(self, count: int) -> None:
        """Keep only the first ``count`` chips."""


@dataclass(frozen=True)
class Taken:
    """What one subject gave: chips in a row in one segment; or a reason why it was left out."""

    reason: str = ""
    segment: str = ""
    start: int = 0
    count: int = 0
    whole: bool = True
    """False if there was no room for all its chips."""

    def fits(self, room: int) -> bool:
        """Tell whether cutting the subject with so much room would give just these chips."""
        return self.count <= room if self.whole else self.count == room


def cut(
    subjects: Sequence[Subject],
    request: Request,
    writer_of: Callable[[str], Writer],
    room_for: Callable[[int], int],
) -> Iterator[tuple[int, Taken]]:
    """Yield what each subject gave, in order, its chips being written to ``writer_of`` their type.

    ``room_for`` says how many chips a subject may have; where that is none, cutting ends.
    Raises SiteError when a file contradicts its sensor card.
    """
    with closing(ahead(_read(subjects), BLOCKS_AHEAD)) as events:
        cutting: _Cutting | None = None
        for number, event in events:
            if cutting is None:
                room = room_for(number)
                if room < 1:
                    return
                cutting = _Cutting(request, writer_of, room)
            if isinstance(event, Block):
                cutting.add(event)
                if cutting.whole:
                    continue
                yield number, cutting.taken()
                return
            yield number, cutting.undone(str(event)) if event else cutting.taken()
            cutting = None


def _read(subjects: Sequence[Subject]) -> Generator[tuple[int, Block | Unreadable | None]]:
    """Yield each subject's blocks and, at its end, None or what was wrong with it."""
    for number, subject in enumerate(subjects):
        try:
            for block in subject.blocks():
                yield number, block
        except Unreadable as reason:
            yield number, reason
        except OSError as error:
            yield number, Unreadable(f"cannot be read ({error.strerror})")
        else:
            yield number, None


class _Cutting:
    """The cutting of one subject."""

    def __init__(self, request: Request, writer_of: Callable[[str], Writer], room: int) -> None:
        self.whole = True
        self._request = request
        self._writer_of = writer_of
        self._writer: Writer | None = None
        self._start = 0
        self._room = room
        self._statistics = Statistics.empty(len(request.bands))

    def add(self, block: Block) -> None:
        """Judge a block's chips and write the usable ones, as many as there is room for."""
        for part in _parts(block, self._request):
            self._add(part)
            if not self.whole:
                return

    def _add(self, block: Block) -> None:
        chips, valid, places = usable_chips(block, self._request)
        if self._writer is None and len(chips):
            self._writer = self._writer_of(str(chips.dtype))
            self._start = self._writer.count
        if self._writer is None:
            return
        left = self._room - (self._writer.count - self._start)
        if len(chips) > left:
            self.whole = False
            chips, valid, places = chips[:left], None if valid is None else valid[:left], places[:left]
        self._statistics = self._statistics.merge(_statistics(block, chips, valid, self._request))
        self._writer.append(Rows.of(chips if valid is None else filled(chips, valid), places, valid))

    def taken(self) -> Taken:
        """Return what there is."""
        if self._writer is None:
            return Taken(f"has no chip with {self._request.limits.min_valid:.0%} valid pixels")
        self._writer.statistics = self._writer.statistics.merge(self._statistics)
        return Taken("", self._writer.name, self._start, self._writer.count - self._start, self.whole)

    def undone(self, reason: str) -> Taken:
        """Take back what was written."""
        if self._writer is not None:
            self._writer.truncate(self._start)
        # A file's name need not be text, but what is written down must be.
        return Taken(reason.encode("utf-8", "backslashreplace").decode())


def usable_chips(block: Block, request: Request) -> tuple[Array, Bools | None, Array]:
    """Return chips (n, C, S, S) with enough valid pixels, which pixels those are (n, S, S) or None,
    and places (n,)."""
    size, stride = request.size, request.stride
    grid = sliding_window_view(block.values, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    grid = grid.transpose(1, 2, 0, 3, 4)
    down, across = grid.shape[:2]
    if block.valid is None:
        rows, columns = (index.ravel() for index in np.indices((down, across)))
        chips = np.ascontiguousarray(grid).reshape(-1, *grid.shape[2:])
        valid, fraction = None, np.ones(len(chips))
    else:
        windows = sliding_window_view(block.valid, (size, size))[::stride, ::stride]
        fractions = np.count_nonzero(windows, axis=(2, 3)) / (size * size)
        rows, columns = np.nonzero(fractions >= request.limits.min_valid)
        chips, valid, fraction = grid[rows, columns], windows[rows, columns], fractions[rows, columns]
    places = np.empty(len(chips), PLACE)
    places["row"], places["col"] = rows * stride + block.row, columns * stride + block.col
    places["valid"] = fraction
    return chips, valid, places


def _parts(block: Block, request: Request) -> Iterator[Block]:
    """Yield a block's chips in their order, so many at once as the limit allows: overlap repeats
    their pixels."""
    size, stride = request.size, request.stride
    bands, height, width = block.values.shape
    down, across = ((length - size) // stride + 1 for length in (height, width))
    chips = max(1, request.limits.max_window_bytes // (bands * size * size * block.values.itemsize))
    columns = min(across, chips)
    rows = max(1, chips // across)
    for top in range(0, down * stride, rows * stride):
        for left in range(0, across * stride, columns * stride):
            # A slice ends with its array.
            here = np.s_[top : top + (rows - 1) * stride + size, left : left + (columns - 1) * stride + size]
            valid = None if block.valid is None else block.valid[here]
            yield Block(block.values[:, *here], valid, block.row + top, block.col + left)


def filled(chips: Array, valid: Bools) -> Array:
    """Give invalid pixels of chips (n, C, S, S) their chip's mean of the band, so that a gap draws
    no edge."""
    for chip in np.flatnonzero(~valid.all(axis=(1, 2))):
        for band in chips[chip]:
            mean = band[valid[chip]].mean(dtype=np.float64)
            band[~valid[chip]] = mean if band.dtype.kind == "f" else round(mean)
    return chips


def _statistics(block: Block, chips: Array, valid: Bools | None, request: Request) -> Statistics:
    if valid is not None:
        return Statistics.of(chips, valid)
    # Chips that tile the block hold the same pixels, and there each band lies in one piece.
    pixels = block.values[None] if chips.size == block.values.size and request.stride == request.size else chips
    return Statistics.of(pixels, np.ones((len(pixels), *pixels.shape[2:]), dtype=bool))
