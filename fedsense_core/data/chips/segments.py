"""Segments of the chip store: written once, mapped for reading, never changed.

A segment is four files of one name: `.npy`, the chips; `.places.npy`, where each was cut;
`.masks.npy`, the valid pixels of chips that have others too; `.statistics.json`, the statistics of
all valid pixels together.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fedsense_core.atomic_io import sync, write_npy, write_whole
from fedsense_core.data.chips.chipping import LOCATION, ChipArrays
from fedsense_core.data.chips.statistics import Statistics, merged

NPY_HEADER_BYTES = 128
"""Room for the `.npy` header, which can only be written when the number of chips is known."""
FLUSH_BYTES = 64 << 20
"""After so much the disk begins to take what was written: else all of it waits for the end."""
UNFINISHED = "writing-"
"""How the names of files begin that nobody refers to yet."""
STATISTICS = ".statistics.json"


class SegmentWriter:
    """Writes chips behind a header that is filled in last, under a name that does not count yet."""

    def __init__(self, folder: Path, dtype: str, bands: int) -> None:
        self.count = 0
        self.dtype = dtype
        self.name = f"{dtype}-{secrets.token_hex(8)}"
        self.statistics = Statistics.empty(bands)
        self._folder = folder
        self._path = folder / f"{UNFINISHED}{self.name}"
        self._file = self._path.open("wb")
        self._file.seek(NPY_HEADER_BYTES)
        self._written: list[ChipArrays] = []
        """Without pixels."""
        self._shape: tuple[int, ...] = ()
        self._flusher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fedsense-flush")
        self._flushed = self._flusher.submit(os.fdatasync, self._file.fileno())
        self._flush_at = FLUSH_BYTES

    @property
    def bytes(self) -> int:
        """Bytes of the chips so far."""
        return self._file.tell() - NPY_HEADER_BYTES

    def append(self, arrays: ChipArrays) -> None:
        """Add chips at the end."""
        self._shape = arrays.chips.shape[1:]
        self._file.write(np.ascontiguousarray(arrays.chips).data)
        self._written.append(ChipArrays(np.empty((len(arrays), 0)), arrays.locations, arrays.masks))
        self.count += len(arrays)
        if self.bytes >= self._flush_at and self._flushed.done():
            self._flushed.result()  # raises what the disk said
            self._flush_at = self.bytes + FLUSH_BYTES
            self._flushed = self._flusher.submit(os.fdatasync, self._file.fileno())

    def truncate(self, count: int) -> None:
        """Keep only the first ``count`` chips."""
        self._file.seek(NPY_HEADER_BYTES + count * (self.bytes // max(1, self.count)))
        self._file.truncate()
        self._written = [_joined(self._written).part(0, count)] if count else []
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
        written = _joined(self._written)
        for array, suffix in ((written.locations, "places"), (written.masks, "masks")):
            write_npy(self._folder / f"{self.name}.{suffix}.npy", array)
        write_whole(self._folder / f"{self.name}{STATISTICS}", json.dumps(self.statistics.to_json()).encode())
        sync(self._path)
        self._path.replace(self._folder / f"{self.name}.npy")

    def discard(self) -> None:
        """Remove what was written."""
        self._flusher.shutdown()
        with contextlib.suppress(OSError):  # a full disk says so once more, of what is still to be written
            self._file.close()
        self._path.unlink(missing_ok=True)


def load_segment(folder: Path, name: str) -> ChipArrays:
    """Map a segment's chips. Raises OSError or ValueError where a file is missing or damaged."""
    # As a plain array: numpy's own class of maps is slow to index.
    chips = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False).view(np.ndarray)
    locations, masks = (np.load(folder / f"{name}.{kind}.npy", allow_pickle=False) for kind in ("places", "masks"))
    if chips.ndim != 4 or locations.dtype != LOCATION or locations.shape != (len(chips),):
        raise ValueError(f"{folder / name}: {locations.shape} locations of chips {chips.shape}")
    shape = (np.count_nonzero(locations["valid"] < 1), -(-chips.shape[2] * chips.shape[3] // 8))
    if masks.dtype != np.uint8 or masks.shape != shape:
        raise ValueError(f"{folder / name}: masks of shape {masks.shape} instead of {shape}")
    return ChipArrays(chips, locations, masks)


def statistics_of(folder: Path, name: str, arrays: ChipArrays, stretches: list[tuple[int, int]]) -> Statistics:
    """Return the statistics of some stretches (start, count) of a segment: as written down where
    that is of just these chips, else counted again."""
    if sum(count for _, count in stretches) == len(arrays):
        try:
            found = Statistics.from_json(json.loads((folder / f"{name}{STATISTICS}").read_bytes()))
        except (OSError, ValueError, TypeError):
            found = None
        if found is not None and found.bands == arrays.chips.shape[1]:
            return found
    return merged([piece.statistics() for start, count in stretches for piece in arrays.pieces(start, start + count)])


def _joined(parts: list[ChipArrays]) -> ChipArrays:
    return ChipArrays(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("chips", "locations", "masks")))
