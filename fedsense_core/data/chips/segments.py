"""Where cut chips lie: rows of chips of one type, in memory or in files that are written once.

A segment on disk is four files of one name: `.npy`, the chips; `.places.npy`, where each was cut;
`.masks.npy`, the valid pixels of chips that have others too; `.statistics.json`, the statistics of
all valid pixels together.

Shapes: n chips, k of which have invalid pixels, C bands, S chip size.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsense_core.atomic_io import sync, write_whole
from fedsense_core.data.chips.statistics import Statistics, merged

Array = NDArray[Any]

PLACE = np.dtype([("row", "<i4"), ("col", "<i4"), ("valid", "<f4")])
"""Of one chip: pixel row and column of its upper left corner in its scene, and the valid fraction
of its pixels."""
NPY_HEADER_BYTES = 128
"""Room for the `.npy` header, which can only be written when the number of chips is known."""
FLUSH_BYTES = 64 << 20
"""After so much the disk begins to take what was written, beside the cutting: else all of it waits
for the end."""
PIECE = 256
"""Chips that are looked at at once, when those of a segment are copied or counted."""
UNFINISHED = "writing-"
"""How the names of files begin that nobody refers to yet."""


@dataclass(frozen=True)
class Rows:
    """Chips, with what is to be known of them."""

    chips: Array
    """(n, C, S, S)"""
    places: Array
    """(n,) of type `PLACE`."""
    masks: Array
    """(k, S S / 8) uint8: packed bits, 1 where valid, of each chip whose valid fraction is below
    1."""

    @classmethod
    def of(cls, chips: Array, places: Array, valid: NDArray[np.bool_] | None) -> Rows:
        """Join chips, places, and which pixels (n, S, S) are valid; None for all."""
        size = chips.shape[2] * chips.shape[3]
        if valid is None:
            return cls(chips, places, np.empty((0, -(-size // 8)), np.uint8))
        partial = places["valid"] < 1
        return cls(chips, places, np.packbits(valid[partial].reshape(-1, size), axis=1))

    def __len__(self) -> int:
        return len(self.places)

    def part(self, start: int, stop: int) -> Rows:
        """Return the chips from ``start`` up to ``stop``."""
        first, last = (int(np.count_nonzero(self.places["valid"][:end] < 1)) for end in (start, stop))
        return Rows(self.chips[start:stop], self.places[start:stop], self.masks[first:last])

    def pieces(self, start: int, stop: int) -> list[Rows]:
        """Return the same in pieces that are small enough to look at."""
        return [self.part(first, min(first + PIECE, stop)) for first in range(start, stop, PIECE)]

    def statistics(self) -> Statistics:
        """Return the statistics of the valid pixels."""
        valid = np.ones((len(self), *self.chips.shape[2:]), dtype=bool)
        size = valid[0].size if len(valid) else 0
        bits = np.unpackbits(self.masks, axis=1, count=size).astype(bool)
        valid[self.places["valid"] < 1] = bits.reshape(-1, *self.chips.shape[2:])
        return Statistics.of(self.chips, valid)


class MemoryWriter:
    """Keeps chips in memory."""

    def __init__(self, name: str, bands: int) -> None:
        self.name = name
        self.count = 0
        self.statistics = Statistics.empty(bands)
        """Of the chips that are to stay; whoever cuts adds to it."""
        self._rows: list[Rows] = []

    def append(self, rows: Rows) -> None:
        """Add chips at the end."""
        self._rows.append(rows)
        self.count += len(rows)

    def truncate(self, count: int) -> None:
        """Keep only the first ``count`` chips."""
        while self.count > count:
            last = self._rows.pop()
            self.count -= len(last)
            if self.count < count:
                self.append(last.part(0, count - self.count))

    def finish(self) -> Rows:
        """Return everything in one piece."""
        return _joined(self._rows)


class FileWriter:
    """Writes chips behind a header that is filled in last, under a name that does not count yet."""

    def __init__(self, folder: Path, dtype: str, bands: int) -> None:
        self.count = 0
        self.dtype = dtype
        self.name = f"{dtype}-{secrets.token_hex(8)}"
        self.statistics = Statistics.empty(bands)
        """Of the chips that are to stay; whoever cuts adds to it."""
        self._folder = folder
        self._path = folder / f"{UNFINISHED}{self.name}"
        self._file = self._path.open("wb")
        self._file.seek(NPY_HEADER_BYTES)
        self._rows: list[Rows] = []
        """Without pixels."""
        self._shape: tuple[int, ...] = ()
        self._flusher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fedsense-flush")
        self._flushed = self._flusher.submit(os.fdatasync, self._file.fileno())
        self._flush_at = FLUSH_BYTES

    @property
    def bytes(self) -> int:
        """Bytes of the chips so far."""
        return self._file.tell() - NPY_HEADER_BYTES

    def append(self, rows: Rows) -> None:
        """Add chips at the end."""
        self._shape = rows.chips.shape[1:]
        self._file.write(np.ascontiguousarray(rows.chips).data)
        self._rows.append(Rows(np.empty((len(rows), 0)), rows.places, rows.masks))
        self.count += len(rows)
        if self.bytes >= self._flush_at and self._flushed.done():
            self._flushed.result()  # raises what the disk said
            self._flush_at = self.bytes + FLUSH_BYTES
            self._flushed = self._flusher.submit(os.fdatasync, self._file.fileno())

    def truncate(self, count: int) -> None:
        """Keep only the first ``count`` chips."""
        self._file.seek(NPY_HEADER_BYTES + count * (self.bytes // max(1, self.count)))
        self._file.truncate()
        self._rows = [_joined(self._rows).part(0, count)] if count else []
        self.count = count

    def finish(self) -> None:
        """Put the segment in place, whole and on the disk. An empty one vanishes."""
        if not self.count:
            self.discard()
            return
        shape, descr = (self.count, *self._shape), np.dtype(self.dtype).str
        fields = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
        magic = np.lib.format.magic(1, 0)
        room = NPY_HEADER_BYTES - len(magic) - 2
        self._flusher.shutdown()
        self._flushed.result()
        self._file.seek(0)
        self._file.write(magic + room.to_bytes(2, "little") + fields.encode().ljust(room - 1) + b"\n")
        self._file.close()
        rows = _joined(self._rows)
        for array, suffix in ((rows.places, "places"), (rows.masks, "masks")):
            path = self._folder / f"{self.name}.{suffix}.npy"
            np.save(path, array, allow_pickle=False)
            sync(path)
        write_whole(_statistics_path(self._folder, self.name), json.dumps(self.statistics.to_json()).encode())
        sync(self._path)
        self._path.replace(self._folder / f"{self.name}.npy")

    def discard(self) -> None:
        """Remove what was written."""
        self._flusher.shutdown()
        with contextlib.suppress(OSError):  # a full disk says so once more, of what is still to be written
            self._file.close()
        self._path.unlink(missing_ok=True)


def load_segment(folder: Path, name: str) -> Rows:
    """Map a segment's chips. Raises OSError or ValueError where a file is missing or damaged."""
    # As a plain array: numpy's own class of maps is slow to index.
    chips = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False).view(np.ndarray)
    places, masks = (np.load(folder / f"{name}.{kind}.npy", allow_pickle=False) for kind in ("places", "masks"))
    if chips.ndim != 4 or places.dtype != PLACE or places.shape != (len(chips),):
        raise ValueError(f"{folder / name}: {places.shape} places of chips {chips.shape}")
    shape = (np.count_nonzero(places["valid"] < 1), -(-chips.shape[2] * chips.shape[3] // 8))
    if masks.dtype != np.uint8 or masks.shape != shape:
        raise ValueError(f"{folder / name}: masks of shape {masks.shape} instead of {shape}")
    return Rows(chips, places, masks)


def statistics_of(folder: Path, name: str, rows: Rows, stretches: list[tuple[int, int]]) -> Statistics:
    """Return the statistics of some stretches (start, count) of a segment that `load_segment`
    returned.

    What was written down is used where it is of just these chips; else they are counted again.
    """
    if sum(count for _, count in stretches) == len(rows):
        try:
            found = Statistics.from_json(json.loads(_statistics_path(folder, name).read_bytes()))
        except (OSError, ValueError, TypeError):
            found = None
        if found is not None and found.bands == rows.chips.shape[1]:
            return found
    return merged([piece.statistics() for start, count in stretches for piece in rows.pieces(start, start + count)])


def _joined(rows: list[Rows]) -> Rows:
    return Rows(*(np.concatenate([getattr(row, field) for row in rows]) for field in ("chips", "places", "masks")))


def _statistics_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.statistics.json"
