"""What was cut of one source, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedsense_core.data.chips.chipping import Subject, Taken, cut
from fedsense_core.data.chips.segments import MemoryWriter, Rows
from fedsense_core.data.chips.statistics import Statistics, merged
from fedsense_core.data.raster.rasters import Skipped
from fedsense_core.data.raster.scenes import Request

Progress = Callable[[int, int, int], None]
"""Called with the scenes done, the scenes in all, and the chips so far."""


@dataclass(frozen=True)
class Held:
    """The chips of one source."""

    segments: Mapping[str, Rows]
    used: tuple[Taken, ...]
    """In the order of the subjects."""
    names: tuple[str, ...]
    """What the subjects of ``used`` are called."""
    statistics: Statistics
    skipped: tuple[Skipped, ...]

    @property
    def count(self) -> int:
        """Number of chips."""
        return sum(record.count for record in self.used)


@dataclass(frozen=True)
class Order:
    """What is wanted of one source."""

    subjects: Sequence[Subject]
    request: Request
    room: int
    """Most chips."""
    progress: Progress | None = None

    def report(self, done: int, chips: int) -> None:
        """Tell how far it is."""
        if self.progress is not None:
            self.progress(done, len(self.subjects), chips)

    def too_many(self) -> str:
        """Return the reason for what there is no room for."""
        return f"comes after the {self.request.limits.max_chips} chips that a site may have"


def hold_in_memory(order: Order) -> Held:
    """Cut everything and keep it in memory. Raises SiteError as `cutting.cut` does."""
    writers: dict[str, MemoryWriter] = {}
    used: list[Taken] = []
    names: list[str] = []
    skipped: list[Skipped] = []
    bands = len(order.request.bands)

    def writer_of(dtype: str) -> MemoryWriter:
        return writers.setdefault(dtype, MemoryWriter(dtype, bands))

    def room_for(_: int) -> int:
        return order.room - sum(writer.count for writer in writers.values())

    for number, taken in cut(order.subjects, order.request, writer_of, room_for):
        name = order.subjects[number].name
        if taken.reason:
            skipped.append(Skipped(name, taken.reason))
        else:
            names.append(name)
            used.append(taken)
        order.report(number + 1, order.room - room_for(number + 1))
    skipped += [Skipped(one.name, order.too_many()) for one in order.subjects[len(used) + len(skipped) :]]
    segments = {name: writer.finish() for name, writer in writers.items() if writer.count}
    statistics = merged([Statistics.empty(bands), *(writer.statistics for writer in writers.values())])
    return Held(segments, tuple(used), tuple(names), statistics, tuple(skipped))
