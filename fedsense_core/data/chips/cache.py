"""The chip store: each source's chips on disk, where only what is new or changed is chipped again.

Layout: `<cache>/<site>-<source, bands and size>/` holds segments, which never change, and
`index.json`, which says what lies where. The index is put in place last and whole, so what it
refers to is complete. One process at a time changes a folder; others wait for it and find its work.

Where a source has more chips than it may, scenes are chipped in the order of a draw until there are
enough (`drawing`). Which chips are used follows from the files and the limits, never from what the
store held before.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fedsense_core.atomic_io import write_whole
from fedsense_core.data.chips.chipping import ChipArrays, ChipRecord, ChipSource, Progress, chip, digest
from fedsense_core.data.chips.gaps import count_constant
from fedsense_core.data.chips.segments import SegmentWriter, load_segment, statistics_of
from fedsense_core.data.chips.statistics import Statistics, merged
from fedsense_core.data.raster.scenes import ChipSpec
from fedsense_core.data.sites.schema import Skipped
from fedsense_core.errors import PolicyError, SiteError

INDEX = "index.json"
LOCK = ".lock"
INDEX_FORMAT: Literal[1] = 1
"""Raise it when the meaning of the files changes: another index counts as none."""
SEGMENT_BYTES = 2 << 30
"""Chips are put in place whenever a segment has so much: a crash costs no more."""
MOST_SMALL = 8
"""More segments than this of less than half that size are joined."""


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
    order: Sequence[int]
    """Positions of ``sources`` in the order of the draw."""
    spec: ChipSpec
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
    drawn: int
    """How many chip sources were looked at: all, or as many as it took."""

    @property
    def count(self) -> int:
        """Number of chips."""
        return sum(record.count for record in self.used)


@dataclass(frozen=True)
class Drawn:
    """The chip sources of a draw, up to those with which there are enough chips."""

    chips: Mapping[int, int]
    """How many each gives, by position: one with which there are enough may give more."""
    missing: Sequence[int]
    """Those that are still to be chipped; while there are any, the rest is a guess."""
    of: int
    """Chip sources in all."""
    more: bool
    """Whether a chip source has more chips than a site may have."""

    @property
    def count(self) -> int:
        """Number of chips."""
        return sum(self.chips.values())

    @property
    def complete(self) -> bool:
        """Whether these are all chips that there are."""
        return len(self.chips) == self.of and not self.more


class ChipStore:
    """The chips of one source of a site in one folder: what lies there intact and is still wanted,
    and what is to be cut."""

    def __init__(self, folder: Path, request: IngestRequest) -> None:
        self._folder = folder
        self._request = request
        self._keys = [source.key for source in request.sources]
        self._segments: dict[str, ChipArrays] = {}
        self._records: dict[str, ChipRecord] = {}
        self._total: tuple[str, dict[str, Any]] = ("", {})
        self._writers: dict[str, SegmentWriter] = {}
        self._load()

    def draw(self, target: int) -> Drawn:
        """Chip in the order of the draw, where that is still to be done, until there are ``target``
        chips.

        Raises SiteError as `chipping.chip` does, and when the folder cannot be written.
        """
        drawn = self._draw(target)
        if drawn.missing:
            with self._changing():
                drawn = self._chip(target)
                self._commit()
        return drawn

    def take(self, room: int) -> IngestResult:
        """Return ``room`` chips, or all if there are fewer, chipping what is new or changed.

        Raises SiteError as `draw` does.
        """
        result = self._result(room)
        if result is None:
            with self._changing():
                self._fill(room)
                result = self._result(room)
        if result is None:
            raise SiteError(f"{self._folder}: the chip cache changed while it was read. Delete the folder, try again.")
        return result

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Keep other processes waiting, and begin with what they have left."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with _alone(self._folder):
                self._load()
                try:
                    yield
                finally:
                    for writer in self._writers.values():
                        writer.discard()
                    self._writers.clear()
        except OSError as error:
            raise SiteError(
                f"{self._folder}: the chip cache cannot be written ({error.strerror}). "
                "Give a cache folder with write permission and free space."
            ) from error

    def _result(self, room: int) -> IngestResult | None:
        """Return the chips, or None where some are still missing."""
        drawn = self._draw(room)
        if drawn.missing:
            return None
        used = self._used(drawn, room)
        if self._total[0] != _digest_of(used.values()):
            return None
        try:
            statistics = Statistics.from_json(self._total[1])
        except ValueError:
            return None
        segments = {record.segment: self._segments[record.segment] for record in used.values()}
        names = [self._request.sources[number].name for number in used]
        skipped = self._skipped(drawn, room)
        return IngestResult(segments, list(used.values()), names, statistics, skipped, len(drawn.chips))

    def _fill(self, room: int) -> None:
        """Chip what is missing, join what is scattered, remove the rest."""
        drawn = self._chip(room)
        self._join()
        used = list(self._used(drawn, room).values())
        self._total = (_digest_of(used), self._statistics(used).to_json())
        self._commit()
        self._sweep()

    def _load(self) -> None:
        self._segments, self._records = {}, {}
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

    def _draw(self, target: int) -> Drawn:
        chips: dict[int, int] = {}
        missing: list[int] = []
        before, more, most = 0, False, self._request.spec.limits.max_chips
        for number in self._request.order:
            if before >= target:
                break
            record, room = self._records.get(self._keys[number]), most - before
            if record is None or not record.fits(room):
                missing.append(number)
                record = record or ChipRecord()
            chips[number] = min(record.count, room)
            more |= not record.whole or record.count > room
            before += chips[number]
        return Drawn(chips, missing, len(self._keys), more)

    def _used(self, drawn: Drawn, room: int) -> dict[int, ChipRecord]:
        """Return the records of exactly ``room`` chips, or of all, by position and in its order."""
        used: dict[int, ChipRecord] = {}
        for number, count in drawn.chips.items():
            record, count = self._records[self._keys[number]], min(count, room)
            if count:
                used[number] = record if count == record.count else self._cut(record, count)
            room -= count
        return dict(sorted(used.items()))

    def _cut(self, record: ChipRecord, count: int) -> ChipRecord:
        chips = self._segments[record.segment].chips[record.start : record.start + count]
        return replace(record, count=count, whole=False, constant=count_constant(chips))

    def _skipped(self, drawn: Drawn, room: int) -> list[Skipped]:
        limits = self._request.spec.limits
        found = []
        for number, (source, key) in enumerate(zip(self._request.sources, self._keys, strict=True)):
            if number not in drawn.chips:
                why = f"is not among the {room} chips drawn: `limits.max_chips` of the site is {limits.max_chips}"
                found.append(Skipped(source.name, why))
            elif (record := self._records[key]).reason:
                found.append(Skipped(source.name, record.reason, record.other_bands))
        return found

    def _chip(self, target: int) -> Drawn:
        """Chip what is missing of a draw, in its order."""
        while missing := self._draw(target).missing:
            sources = [self._request.sources[number] for number in missing]
            done, chips = len(self._keys) - len(missing), sum(record.count for record in self._records.values())
            room = self._room_for(missing, target)
            for i, record in chip(sources, self._request.spec, self._writer_of, room):
                self._records[self._keys[missing[i]]] = record
                chips += record.count
                if self._request.progress is not None:
                    try:
                        self._request.progress(done + i + 1, len(self._keys), chips)
                    except PolicyError:
                        self._commit()  # what is cut stays for the next try
                        raise
                if any(writer.bytes >= SEGMENT_BYTES for writer in self._writers.values()):
                    self._commit()
            self._put_in_place()
        return self._draw(target)

    def _room_for(self, missing: Sequence[int], target: int) -> Callable[[int], int]:
        """Return what says how many chips each missing source may have, asked for in the order of
        the draw: none once there are enough."""
        order, most = self._request.order, self._request.spec.limits.max_chips
        places = {number: place for place, number in enumerate(order)}
        before, counted = 0, 0

        def room(i: int) -> int:
            nonlocal before, counted
            for number in order[counted : places[missing[i]]]:
                before += min(self._records[self._keys[number]].count, most - before)
            counted = places[missing[i]]
            return most - before if before < target else 0

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


def _digest_of(used: Iterable[ChipRecord]) -> str:
    return digest([[one.segment, one.start, one.count] for one in used])


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process changes ``folder``, and keep others waiting."""
    with (folder / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
