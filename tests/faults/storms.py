"""The labelled disturbances of the network: whose way to the SuperLink, when, what happens to it,
and how long.

To tighten the suite, shorten ``may_lose`` or set ``commands`` to 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from faults.course import Course
from faults.points import FIRST, LAST, kept, lost, saved
from faults.relay import Relay, Weather

BYTES = 40_000
"""That pass after a point before it counts as within a message: of a few hundred thousand."""
Seen = Callable[[Course, Relay], bool]


@dataclass(frozen=True)
class Storm:
    """One disturbance of the way of ``who``: beta, or the ServerApp (``coordinator``)."""

    who: str
    what: str
    when: str
    begins: Callable[[], Seen]
    """Makes what says whether it is time; made anew for each run, since it may remember."""
    does: Callable[[Relay], object]
    lasts_s: float = 0.0
    """Then the weather is fine again."""
    may_lose: frozenset[tuple[int, str]] = frozenset()
    commands: int = 2
    """How often a person gives the command at most: once where the run must go on by itself."""

    @property
    def label(self) -> str:
        return f"{self.who}: {self.what} {self.when}".replace(" ", "-").replace(":-", "-")


@dataclass
class Blowing:
    """One storm in one run: what a course calls."""

    storm: Storm
    relay: Relay
    _since: float | None = None
    _begins: Seen = field(init=False)

    def __post_init__(self) -> None:
        self._begins = self.storm.begins()

    def __call__(self, course: Course) -> bool:
        """Begin, end; say whether all is over."""
        if self._since is None and self._begins(course, self.relay):
            self.storm.does(self.relay)
            self._since, course.disturbed = time.monotonic(), True
        over = self._since is not None and time.monotonic() > self._since + self.storm.lasts_s
        if over and self.storm.lasts_s:
            self.relay.weather = Weather()
        return over


def at_once() -> Seen:
    return lambda course, relay: True


def after(seen: Callable[[Course], bool], back: bool) -> Callable[[], Seen]:
    """Within the next message after a point, on its way to who is disturbed (``back``), or from
    it."""

    def begins() -> Seen:
        mark: list[int] = []

        def now(course: Course, relay: Relay) -> bool:
            passed = relay.bytes_back if back else relay.bytes_there
            if not mark and seen(course):
                mark.append(passed)
            return bool(mark) and passed > mark[0] + BYTES

        return now

    return begins


def at(seen: Callable[[Course], bool]) -> Callable[[], Seen]:
    return lambda: lambda course, relay: seen(course)


def slow(relay: Relay) -> None:
    relay.weather.delay_s = 0.15


def silent(relay: Relay) -> None:
    relay.weather.swallows = True


def away(relay: Relay) -> None:
    relay.weather.refuses = True
    relay.lose()


REPLY, TASK = after(kept(FIRST), back=False), after(saved(FIRST), back=True)
PULLED, PUSHED = after(kept(FIRST), back=True), after(saved(FIRST), back=False)
ON_REPLY, ON_TASK = "while its reply of round 1 goes", "while its task of round 2 comes"
ON_PULL, ON_PUSH = "while replies of round 1 come", "while tasks of round 2 go"

STORMS = (
    Storm("beta", "slow", "all the time", at_once, slow, commands=1),
    Storm("beta", "reset", ON_REPLY, REPLY, Relay.reset, may_lose=lost(FIRST), commands=1),
    Storm("beta", "lost", ON_REPLY, REPLY, Relay.lose, may_lose=lost(FIRST), commands=1),
    Storm("beta", "half open", ON_REPLY, REPLY, silent, 20, lost(FIRST), commands=1),
    Storm("beta", "reset", ON_TASK, TASK, Relay.reset, may_lose=lost(LAST), commands=1),
    Storm("beta", "half open", ON_TASK, TASK, silent, 20, lost(LAST), commands=1),
    Storm("beta", "away for 45 s", "when round 1 is saved", at(saved(FIRST)), away, 45, lost(LAST)),
    Storm("coordinator", "slow", "all the time", at_once, slow, commands=1),
    Storm("coordinator", "reset", ON_PULL, PULLED, Relay.reset),
    Storm("coordinator", "half open", ON_PULL, PULLED, silent, 20),
    Storm("coordinator", "lost", ON_PUSH, PUSHED, Relay.lose),
    Storm("coordinator", "away for 20 s", "when round 1 is saved", at(saved(FIRST)), away, 20),
)
