"""The chip store: each source's chips on disk, where only what is new or changed is chipped again.

Layout: `<cache>/<site>-<source, bands and size>/` holds segments, which never change, and
`index.json`, which says what lies where. The index is put in place last and whole, so what it
refers to is complete. One process at a time changes a folder; others wait for it and find its work.

A segment is four files of one name: `.npy`, the chips; `.places.npy`, where each was cut;
`.masks.npy`, the valid pixels of chips that have others too; `.statistics.json`, the statistics of
all valid pixels together.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fedsense_core.atomic_io import sync, write_whole
from fedsense_core.data.chips.chipping import LOCATION, ChipArrays, ChipRecord, ChipSource, Progress, chip, digest
from fedsense_core.data.chips.statistics import Statistics, merged
from fedsense_core.data.raster.scenes import ChipSpec
from fedsense_core.data.sites.schema import Skipped
from fedsense_core.errors import SiteError

INDEX = "index.json"
LOCK = ".lock"
INDEX_FORMAT: Literal[1] = 1
"""Raise it when the meaning of the files changes: another index counts as none."""
SEGMENT_BYTES = 2 << 30
"""Chips are put in place whenever a segment has so much: a crash costs no more."""
MOST_SMALL = 8
"""More segments than this of less than half that size are joined."""
NPY_HEADER_BYTES = 128
"""Room for the `.npy` header, which can only be written when the number of chips is known."""
FLUSH_BYTES = 64 << 20
"""After so much the disk begins to take what was written: else all of it waits for the end."""
UNFINISHED = "writing-"
"""How the names of files begin that nobody refers to yet."""
STATISTICS = ".statistics.json"


class Index(BaseModel):
    """What `index.json` says."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    format: Literal[1]
    records: dict[str, ChipRecord] = Field(alias="subjects")
    """By the key of the chip source; the file's own word stays, so that stores of old are read."""
    total_of: str
    """Digest of the records that are used."""
    total: dict[str, Any]
    """Their statistics together."""


@dataclass(frozen=True)
class IngestRequest:
    """Which chips are wanted of one source of a site."""

    sources: Sequence[ChipSource]
    spec: ChipSpec
    room: int
    """Most chips."""
    progress: Progress | None = None


@dataclass(frozen=True)
class IngestResult:
    """The chips of one source of a site."""

    segments: Mapping[str, ChipArrays]
    used: Sequence[ChipRecord]
    """In the order of the chip sources."""
    names: Sequence[str]
    """What the chip sources of ``used`` are called."""
    statistics: Statistics
    skipped: Sequence[Skipped]

    @property
    def count(self) -> int:
        """Number of chips."""
        return sum(record.count for record in self.used)


def ingest(request: IngestRequest, folder: Path) -> IngestResult:
    """Return the chips in ``folder``, chipping what is new or changed since they were put there.

    Raises SiteError as `chipping.chip` does, and when the folder cannot be written.
    """
    keys = [source.key for source in request.sources]
    result = ChipStore(folder, request, keys).result()
    if result is not None:
        return result
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            store = ChipStore(folder, request, keys)
            store.fill()
            result = store.result()
    except OSError as error:
        raise SiteError(
            f"{folder}: the chip cache cannot be written ({error.strerror}). "
            "Give a cache folder with write permission and free space."
        ) from error
    if result is None:
        raise SiteError(f"{folder}: the chip cache changed while it was read. Delete the folder and try again.")
    return result


class ChipStore:
    """The contents of one folder, as far as they are intact and still wanted."""

    def __init__(self, folder: Path, request: IngestRequest, keys: Sequence[str]) -> None:
        self._folder = folder
        self._request = request
        self._keys = keys
        self._segments: dict[str, ChipArrays] = {}
        self._records: dict[str, ChipRecord] = {}
        self._total: tuple[str, dict[str, Any]] = ("", {})
        self._writers: dict[str, SegmentWriter] = {}
        self._load()

    def result(self) -> IngestResult | None:
        """Return the chips, or None where some are still missing."""
        sources, (plan, skipped, missing) = self._request.sources, self._plan()
        used = list(plan.values())
        if missing or self._total[0] != _digest_of(used):
            return None
        try:
            statistics = Statistics.from_json(self._total[1])
        except ValueError:
            return None
        segments = {record.segment: self._segments[record.segment] for record in used}
        return IngestResult(segments, used, [sources[number].name for number in plan], statistics, skipped)

    def fill(self) -> None:
        """Chip what is missing, join what is scattered, remove the rest. One process at a time."""
        try:
            # New chips may leave less room for later sources, which are then chipped again.
            while missing := self._plan()[2]:
                self._chip(missing)
            self._join()
        finally:
            for writer in self._writers.values():
                writer.discard()
        used = list(self._plan()[0].values())
        self._total = (_digest_of(used), self._statistics(used).to_json())
        self._commit()
        self._sweep()

    def _load(self) -> None:
        try:
            index = Index.model_validate_json((self._folder / INDEX).read_bytes())
        except (OSError, ValueError):
            return
        self._total = (index.total_of, index.total)
        wanted = {key: index.records[key] for key in self._keys if key in index.records}
        for name in {record.segment for record in wanted.values() if not record.reason}:
            with contextlib.suppress(OSError, ValueError, EOFError, TypeError):
                arrays, size = load_segment(self._folder, name), self._request.spec.size
                if arrays.chips.shape[1:] == (len(self._request.spec.bands), size, size):
                    self._segments[name] = arrays
        self._records = {key: record for key, record in wanted.items() if record.reason or self._is_intact(record)}

    def _is_intact(self, record: ChipRecord) -> bool:
        arrays = self._segments.get(record.segment)
        return arrays is not None and record.start >= 0 < record.count <= len(arrays) - record.start

    def _plan(self) -> tuple[dict[int, ChipRecord], list[Skipped], list[int]]:
        """Return the records in use by number of source, what is skipped, and which sources are
        still to be chipped."""
        used: dict[int, ChipRecord] = {}
        skipped: list[Skipped] = []
        missing: list[int] = []
        room, most = self._request.room, self._request.spec.limits.max_chips
        for number, (source, key) in enumerate(zip(self._request.sources, self._keys, strict=True)):
            record = self._records.get(key)
            if room < 1:
                skipped.append(Skipped(source.name, f"comes after the {most} chips that a site may have"))
            elif record is None or not record.fits(room):
                missing.append(number)
            elif record.reason:
                skipped.append(Skipped(source.name, record.reason, record.other_bands))
            else:
                used[number] = record
                room -= record.count
        return used, skipped, missing

    def _chip(self, missing: Sequence[int]) -> None:
        """Chip these sources, in their order."""
        sources = [self._request.sources[number] for number in missing]
        done, chips = len(self._keys) - len(missing), sum(record.count for record in self._records.values())
        for i, record in chip(sources, self._request.spec, self._writer_of, self._room_for(missing)):
            self._records[self._keys[missing[i]]] = record
            chips += record.count
            if self._request.progress is not None:
                self._request.progress(done + i + 1, len(self._keys), chips)
            if any(writer.bytes >= SEGMENT_BYTES for writer in self._writers.values()):
                self._commit()
        self._put_in_place()

    def _room_for(self, missing: Sequence[int]) -> Callable[[int], int]:
        """Return what says how many chips are left for each missing source, asked for in order,
        after those before it."""
        left, counted = self._request.room, 0

        def room(i: int) -> int:
            nonlocal left, counted
            for key in self._keys[counted : missing[i]]:
                record = self._records.get(key)
                left -= record.count if record is not None and record.fits(left) else 0
            counted = missing[i]
            return left

        return room

    def _writer_of(self, dtype: str) -> SegmentWriter:
        if dtype not in self._writers:
            self._writers[dtype] = SegmentWriter(self._folder, dtype, len(self._request.spec.bands))
        return self._writers[dtype]

    def _commit(self) -> None:
        """Put what was written in place, then the index that refers to it."""
        self._put_in_place()
        index = Index(format=INDEX_FORMAT, records=self._records, total_of=self._total[0], total=self._total[1])
        write_whole(self._folder / INDEX, index.model_dump_json(by_alias=True).encode())

    def _put_in_place(self) -> None:
        """Put segments in place; only the index makes them count."""
        for dtype, writer in list(self._writers.items()):
            writer.finish()
            del self._writers[dtype]
            if writer.count:
                self._segments[writer.name] = load_segment(self._folder, writer.name)

    def _join(self) -> None:
        """Rewrite segments that are mostly unused, or small and many."""
        live = Counter[str]()
        for record in self._records.values():
            live[record.segment] += record.count
        segments = {name: self._segments[name] for name in live if name}
        chosen = {name for name, arrays in segments.items() if 2 * live[name] < len(arrays)}
        small = {name for name, arrays in segments.items() if 2 * arrays.chips.nbytes < SEGMENT_BYTES}
        if len(small) > MOST_SMALL:
            chosen |= small
        for key, record in self._records.items():
            if record.segment in chosen:
                self._records[key] = self._copied(record)
        self._put_in_place()

    def _copied(self, record: ChipRecord) -> ChipRecord:
        arrays = self._segments[record.segment]
        writer = self._writer_of(str(arrays.chips.dtype))
        start = writer.count
        for piece in arrays.pieces(record.start, record.start + record.count):
            writer.append(piece)
            writer.statistics = writer.statistics.merge(piece.statistics())
        return replace(record, segment=writer.name, start=start)

    def _statistics(self, used: Sequence[ChipRecord]) -> Statistics:
        stretches: dict[str, list[tuple[int, int]]] = {}
        for record in used:
            stretches.setdefault(record.segment, []).append((record.start, record.count))
        parts = [statistics_of(self._folder, name, self._segments[name], those) for name, those in stretches.items()]
        return merged([Statistics.empty(len(self._request.spec.bands)), *parts])

    def _sweep(self) -> None:
        """Remove what the index does not refer to: segments of old, and what a crash left."""
        named = {record.segment for record in self._records.values()}
        for path in self._folder.iterdir():
            if path.name not in (INDEX, LOCK) and path.name.split(".")[0] not in named:
                # Another process may hold it open where that forbids removal.
                with contextlib.suppress(OSError):
                    path.unlink()


def _digest_of(used: Sequence[ChipRecord]) -> str:
    return digest([[one.segment, one.start, one.count] for one in used])


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process changes ``folder``, and keep others waiting."""
    with (folder / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
            path = self._folder / f"{self.name}.{suffix}.npy"
            np.save(path, array, allow_pickle=False)
            sync(path)
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
