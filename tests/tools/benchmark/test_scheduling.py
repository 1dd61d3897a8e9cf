"""Trials side by side, on a clock of our own: nothing is waited for."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from fedsense_core.tools.benchmark.scheduling import Clock, Limits, Progress, run_trials


@dataclass
class Machine:
    """Workers that take given seconds and end with given statuses."""

    takes: dict[str, float]
    status: dict[str, int] = field(default_factory=dict)
    now: float = 0.0
    working: set[str] = field(default_factory=set)
    most: int = 0
    ended_early: list[str] = field(default_factory=list)
    told: list[tuple[str, bool, str]] = field(default_factory=list)

    @dataclass
    class Worker:
        machine: Machine
        name: str
        until: float

        def poll(self) -> int | None:
            if self.machine.now < self.until:
                return None
            self.machine.working.discard(self.name)
            return self.machine.status.get(self.name, 0)

        def end(self) -> None:
            self.machine.working.discard(self.name)
            self.machine.ended_early.append(self.name)

    def start(self, name: str) -> Worker:
        self.working.add(name)
        self.most = max(self.most, len(self.working))
        return self.Worker(self, name, self.now + self.takes[name])

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def note(self, name: str, done: bool, reason: str, seconds: float, progress: Progress[str]) -> None:
        self.told.append((name, done, reason))

    def run(self, jobs: int = 2, seconds: float = 1000.0, trial_timeout_s: float = 500.0) -> Progress[str]:
        clock = Clock(lambda: self.now, self.sleep)
        return run_trials(list(self.takes), self.start, self.note, Limits(jobs, seconds, trial_timeout_s), clock)


def test_all_are_run_and_never_more_than_jobs_at_a_time() -> None:
    machine = Machine(dict.fromkeys("abcde", 10.0))
    progress = machine.run()
    assert progress.done == list("abcde")
    assert machine.most == 2
    assert 30 <= machine.now < 35


def test_a_failure_leaves_the_others_alone() -> None:
    machine = Machine(dict.fromkeys("abc", 5.0), status={"b": 1})
    progress = machine.run()
    assert (progress.done, progress.failed, progress.left) == (["a", "c"], ["b"], [])
    assert ("b", False, "") in machine.told


def test_time_that_is_up_ends_what_works_and_says_what_is_left() -> None:
    machine = Machine({"a": 10.0, "b": 100.0, "c": 10.0, "d": 100.0, "e": 10.0})
    progress = machine.run(seconds=50)
    assert progress.done == ["a", "c"]
    assert progress.left == ["b", "d", "e"]
    assert machine.ended_early == ["b", "d"]
    assert 50 <= machine.now < 51


def test_no_time_at_all_starts_nothing() -> None:
    machine = Machine({"a": 1.0})
    assert machine.run(seconds=0).left == ["a"]
    assert machine.most == 0


def test_a_trial_that_takes_too_long_has_failed() -> None:
    machine = Machine({"a": 100.0, "b": 10.0})
    progress = machine.run(jobs=1, trial_timeout_s=20)
    assert (progress.failed, progress.done) == (["a"], ["b"])
    assert machine.ended_early == ["a"]
    assert machine.told[0] == ("a", False, "it took longer than trial_timeout_s = 20")


def test_an_interrupt_ends_the_workers() -> None:
    machine = Machine(dict.fromkeys("abc", 10.0))

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trials(["a", "b", "c"], machine.start, machine.note, Limits(2, 100, 100), Clock(lambda: 0.0, interrupt))
    assert machine.ended_early == ["a", "b"]


def test_the_rest_is_estimated_from_what_is_done() -> None:
    progress = Progress[str](10, done=["a", "b"], failed=["c"], seconds=[10.0, 20.0, 30.0], jobs=2)
    assert progress.remaining_s == pytest.approx(20 * 7 / 2)
    assert Progress[str](3).remaining_s is None
