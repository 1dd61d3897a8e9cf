"""Clocks that jump while a run goes on: by an hour or a day, forth and back, of an institution's
machine, of the ServerApp, and of the coordinator's whole machine. The run goes on, or says which
replies it cost.

Flower signs an institution's requests with the time and takes 300 s of difference. libfaketime
moves the clock of processes that are already at work; the monotonic clock goes on, as it does where
a clock is set.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults.course import Course, Lost, hold
from faults.points import FIRST, LAST, asked, lost
from faults.processes import SITES, Deployed

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1500)]

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
HOUR, DAY, FOR_EVER = 3600, 86_400, 1e9
MACHINES = {
    "institution": ("beta supernode", "beta superexec"),
    "serverapp": ("coordinator superexec",),
    "coordinator": ("superlink", "coordinator superexec"),
}
ANY = frozenset((number, site) for number in (FIRST, LAST) for site in SITES)


@dataclass(frozen=True)
class Jump:
    """One jump in round 1, and when the clock is put right."""

    whose: str
    by_s: int
    lasts_s: float
    may_lose: Lost

    @property
    def label(self) -> str:
        size, unit = (abs(self.by_s) // DAY, "day") if abs(self.by_s) >= DAY else (abs(self.by_s) // HOUR, "hour")
        return f"{self.whose}-{'back' if self.by_s < 0 else 'forth'}-{size}-{unit}"


WRONG = ("institution", 40.0, lost(FIRST, LAST)), ("serverapp", FOR_EVER, ANY)
JUMPS = (
    *(Jump(whose, by, lasts, may) for whose, lasts, may in WRONG for by in (HOUR, -HOUR, DAY, -DAY)),
    *(Jump("coordinator", by, 40.0, ANY) for by in (HOUR, -HOUR)),
)


class Clocks:
    """The clock of each process, in a file that libfaketime reads whenever it is asked the time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.put_right()

    def file(self, process: str) -> Path:
        return self.root / process.replace(" ", "-")

    def environment(self, process: str) -> dict[str, str]:
        """Return what makes a process, and all that it starts, go by its file."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self.file(process)),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def jump(self, whose: str, by_s: int) -> None:
        """Set the clock of a machine."""
        for process in MACHINES[whose]:
            aside = self.root / "aside"
            aside.write_text(f"{by_s:+d}\n")
            aside.replace(self.file(process))

    def put_right(self) -> None:
        """Set all clocks."""
        for whose in MACHINES:
            self.jump(whose, 0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clocks")


@pytest.fixture(scope="module")
def clocks(root: Path) -> Clocks:
    if LIBRARY is None:
        pytest.skip("libfaketime is not installed (Debian: apt-get install libfaketime)")
    return Clocks(root / "clocks")


@pytest.fixture(scope="module")
def deployed(root: Path, clocks: Clocks) -> Iterator[Deployed]:
    extra = {process: clocks.environment(process) for machine in MACHINES.values() for process in machine}
    with Deployed(root / "deployed", extra=extra).running() as deployed:
        yield deployed


@pytest.mark.parametrize("jump", JUMPS, ids=[jump.label for jump in JUMPS])
def test_jumps(jump: Jump, deployed: Deployed, clocks: Clocks, root: Path, request: pytest.FixtureRequest) -> None:
    since: list[float] = []

    def disturb(course: Course) -> bool:
        if not since and asked(FIRST)(course):
            clocks.jump(jump.whose, jump.by_s)
            since.append(time.monotonic())
            course.disturbed = True
        if not since or time.monotonic() < since[0] + jump.lasts_s < FOR_EVER:
            return False
        if jump.lasts_s < FOR_EVER:
            clocks.put_right()
        return True

    course = Course(deployed, root / jump.label)
    try:
        course.to_the_end(disturb)
    finally:
        clocks.put_right()
    hold(course, jump.may_lose, 2, request)
