"""Runs trials, several at a time, until all are done or the time is up. What a trial is, and what
runs it, is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

LOOK_S = 0.2
TIMED_OUT = "it took longer than trial_timeout_s = {:g}"


class Worker(Protocol):
    """A trial at work."""

    def poll(self) -> int | None:
        """Return the exit status, None while it works."""

    def end(self) -> None:
        """End it now. What it has done so far stays, and the next start goes on from there."""


@dataclass(frozen=True)
class Limits:
    """How much at a time, and for how long."""

    jobs: int
    seconds: float
    """Of the whole invocation; trials at work are then ended."""
    trial_timeout_s: float


@dataclass
class Clock:
    """Time, as the machine has it."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


Item = TypeVar("Item")


@dataclass
class Progress(Generic[Item]):
    """What has become of the trials so far."""

    total: int
    done: list[Item] = field(default_factory=list)
    failed: list[Item] = field(default_factory=list)
    left: list[Item] = field(default_factory=list)
    """Not begun, or ended because the time was up."""
    seconds: list[float] = field(default_factory=list)
    """That each finished trial took."""
    jobs: int = 1

    @property
    def remaining_s(self) -> float | None:
        """Estimate of the time that the rest takes; None before a trial has ended."""
        rest = self.total - len(self.done) - len(self.failed)
        return sum(self.seconds) / len(self.seconds) * rest / self.jobs if self.seconds else None


Ended = Callable[[Item, bool, str, float, Progress[Item]], None]
"""Is told a trial, whether it is done, why not (empty: its log says), the seconds it took, and the
progress."""


def run_trials(
    items: Sequence[Item],
    start: Callable[[Item], Worker],
    ended: Ended[Item],
    limits: Limits,
    clock: Clock | None = None,
) -> Progress[Item]:
    """Run all items in their order. A failure leaves the others alone; whatever is raised here ends
    the workers."""
    clock = clock or Clock()
    began = clock.now()
    waiting, progress = list(items), Progress[Item](len(items), jobs=limits.jobs)
    working: dict[int, tuple[Item, Worker, float]] = {}
    try:
        while (waiting or working) and clock.now() - began < limits.seconds:
            while waiting and len(working) < limits.jobs:
                item = waiting.pop(0)
                working[id(item)] = (item, start(item), clock.now())
            for key, (item, worker, since) in list(working.items()):
                status, took = worker.poll(), clock.now() - since
                late = status is None and took > limits.trial_timeout_s
                if late:
                    worker.end()
                if status is not None or late:
                    del working[key]
                    (progress.done if status == 0 else progress.failed).append(item)
                    progress.seconds.append(took)
                    ended(item, status == 0, TIMED_OUT.format(limits.trial_timeout_s) if late else "", took, progress)
            if working:
                clock.sleep(LOOK_S)
    finally:
        for _, worker, _ in working.values():
            worker.end()
    progress.left = [item for item, _, _ in working.values()] + waiting
    return progress
