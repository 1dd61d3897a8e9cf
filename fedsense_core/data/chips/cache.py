"""Chips cut once and kept: what was cut before is read from the disk, and only what is new or
changed is cut.

Layout: `<cache_dir>/<site>-<source, bands and size>/` holds segments (see `segments`), which never
change, and `index.json`, which says what lies where. The index is put in place last and whole, so
what it refers to is complete. One process at a time changes a folder; others wait for it and find
its work.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fedsense_core.atomic_io import write_whole
from fedsense_core.data.chips.chipping import Taken, cut
from fedsense_core.data.chips.ingest import Held, Order
from fedsense_core.data.chips.segments import FileWriter, Rows, load_segment, statistics_of
from fedsense_core.data.chips.sources import digest
from fedsense_core.data.chips.statistics import Statistics, merged
from fedsense_core.data.raster.rasters import Skipped
from fedsense_core.errors import SiteError

INDEX = "index.json"
LOCK = ".lock"
INDEX_FORMAT: Literal[1] = 1
"""Raise it when the meaning of the files changes: another index counts as none."""
SEGMENT_BYTES = 2 << 30
"""What is cut is put in place whenever a segment has so much: a crash costs no more."""
MOST_SMALL = 8
"""More segments than this of less than half that size are joined."""


class Index(BaseModel):
    """What `index.json` says."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1]
    subjects: dict[str, Taken]
    """By key."""
    total_of: str
    """Digest of the records that are used."""
    total: dict[str, Any]
    """Their statistics together."""


def hold_on_disk(order: Order, folder: Path) -> Held:
    """Return the chips in ``folder``, cutting what is new or changed since they were put there.

    Raises SiteError as `cutting.cut` does, and when the folder cannot be written.
    """
    keys = [subject.key for subject in order.subjects]
    held = Shelf(folder, order, keys).held()
    if held is not None:
        return held
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            shelf = Shelf(folder, order, keys)
            shelf.fill()
            held = shelf.held()
    except OSError as error:
        raise SiteError(
            f"{folder}: the chip cache cannot be written ({error.strerror}). "
            "Give a cache folder with write permission and free space."
        ) from error
    if held is None:
        raise SiteError(f"{folder}: the chip cache changed while it was read. Delete the folder and try again.")
    return held


class Shelf:
    """The contents of one folder, as far as they are intact and still wanted."""

    def __init__(self, folder: Path, order: Order, keys: Sequence[str]) -> None:
        self._folder = folder
        self._order = order
        self._keys = keys
        self._segments: dict[str, Rows] = {}
        self._records: dict[str, Taken] = {}
        self._total: tuple[str, dict[str, Any]] = ("", {})
        self._writers: dict[str, FileWriter] = {}
        self._load()

    def held(self) -> Held | None:
        """Return the chips, or None where some are still to be cut."""
        plan, skipped, missing = self._plan()
        used = tuple(plan.values())
        if missing or self._total[0] != _digest_of(used):
            return None
        try:
            statistics = Statistics.from_json(self._total[1])
        except ValueError:
            return None
        segments = {record.segment: self._segments[record.segment] for record in used}
        names = tuple(self._order.subjects[number].name for number in plan)
        return Held(segments, used, names, statistics, tuple(skipped))

    def fill(self) -> None:
        """Cut what is missing, join what is scattered, and remove what is no longer wanted. Only
        for one at a time."""
        try:
            # What is cut may leave less room for what follows: that is then cut again.
            while missing := self._plan()[2]:
                self._cut(missing)
            self._join()
        finally:
            for writer in self._writers.values():
                writer.discard()
        used = tuple(self._plan()[0].values())
        self._total = (_digest_of(used), self._statistics(used).to_json())
        self._commit()
        self._sweep()

    def _load(self) -> None:
        try:
            index = Index.model_validate_json((self._folder / INDEX).read_bytes())
        except (OSError, ValueError):
            return
        self._total = (index.total_of, index.total)
        wanted = {key: index.subjects[key] for key in self._keys if key in index.subjects}
        for name in {record.segment for record in wanted.values() if not record.reason}:
            with contextlib.suppress(OSError, ValueError, EOFError, TypeError):
                rows, size = load_segment(self._folder, name), self._order.request.size
                if rows.chips.shape[1:] == (len(self._order.request.bands), size, size):
                    self._segments[name] = rows
        self._records = {key: record for key, record in wanted.items() if record.reason or self._is_intact(record)}

    def _is_intact(self, record: Taken) -> bool:
        rows = self._segments.get(record.segment)
        return rows is not None and record.start >= 0 < record.count <= len(rows) - record.start

    def _plan(self) -> tuple[dict[int, Taken], list[Skipped], list[int]]:
        """Return what is used, by its number, what is left out, and the numbers of the subjects
        still to be cut."""
        used: dict[int, Taken] = {}
        skipped: list[Skipped] = []
        missing: list[int] = []
        room = self._order.room
        for number, key in enumerate(self._keys):
            record = self._records.get(key)
            if room < 1:
                skipped.append(Skipped(self._order.subjects[number].name, self._order.too_many()))
            elif record is None or not record.fits(room):
                missing.append(number)
            elif record.reason:
                skipped.append(Skipped(self._order.subjects[number].name, record.reason))
            else:
                used[number] = record
                room -= record.count
        return used, skipped, missing

    def _cut(self, missing: Sequence[int]) -> None:
        """Cut these subjects, in their order."""
        room = _Room(self._order.room, self._keys, self._records)
        subjects = [self._order.subjects[number] for number in missing]
        done, chips = len(self._keys) - len(missing), sum(record.count for record in self._records.values())
        for i, taken in cut(subjects, self._order.request, self._writer_of, lambda i: room.before(missing[i])):
            self._records[self._keys[missing[i]]] = taken
            chips += taken.count
            self._order.report(done + i + 1, chips)
            if any(writer.bytes >= SEGMENT_BYTES for writer in self._writers.values()):
                self._commit()
        self._store()

    def _writer_of(self, dtype: str) -> FileWriter:
        if dtype not in self._writers:
            self._writers[dtype] = FileWriter(self._folder, dtype, len(self._order.request.bands))
        return self._writers[dtype]

    def _commit(self) -> None:
        """Put what was written in place, then the index that refers to it."""
        self._store()
        total_of, total = self._total
        index = Index(format=INDEX_FORMAT, total_of=total_of, total=total, subjects=self._records)
        write_whole(self._folder / INDEX, index.model_dump_json().encode())

    def _store(self) -> None:
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
        chosen = {name for name, rows in segments.items() if 2 * live[name] < len(rows)}
        small = {name for name, rows in segments.items() if 2 * rows.chips.nbytes < SEGMENT_BYTES}
        if len(small) > MOST_SMALL:
            chosen |= small
        for key, record in self._records.items():
            if record.segment in chosen:
                self._records[key] = self._copied(record)
        self._store()

    def _copied(self, record: Taken) -> Taken:
        rows = self._segments[record.segment]
        writer = self._writer_of(str(rows.chips.dtype))
        start = writer.count
        for piece in rows.pieces(record.start, record.start + record.count):
            writer.append(piece)
            writer.statistics = writer.statistics.merge(piece.statistics())
        return replace(record, segment=writer.name, start=start)

    def _statistics(self, used: Sequence[Taken]) -> Statistics:
        stretches: dict[str, list[tuple[int, int]]] = {}
        for record in used:
            stretches.setdefault(record.segment, []).append((record.start, record.count))
        parts = [statistics_of(self._folder, name, self._segments[name], those) for name, those in stretches.items()]
        return merged([Statistics.empty(len(self._order.request.bands)), *parts])

    def _sweep(self) -> None:
        """Remove what the index does not refer to: segments of old, and what a crash left."""
        named = {record.segment for record in self._records.values()}
        for path in self._folder.iterdir():
            if path.name not in (INDEX, LOCK) and path.name.split(".")[0] not in named:
                # Another process may hold it open where that forbids removal.
                with contextlib.suppress(OSError):
                    path.unlink()


class _Room:
    """How many chips are left for a subject, given what the ones before it have."""

    def __init__(self, room: int, keys: Sequence[str], records: Mapping[str, Taken]) -> None:
        self._left = room
        self._keys = keys
        self._records = records
        self._at = 0

    def before(self, number: int) -> int:
        """Return the room for the subject of this number; numbers must rise."""
        while self._at < number:
            record = self._records.get(self._keys[self._at])
            if record is not None and record.fits(self._left):
                self._left -= record.count
            self._at += 1
        return self._left


def _digest_of(used: Sequence[Taken]) -> str:
    return digest([[record.segment, record.start, record.count] for record in used])


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process changes ``folder``, and keep others waiting."""
    with (folder / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
