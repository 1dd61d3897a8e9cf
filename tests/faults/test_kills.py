"""SIGKILL at labelled points of a run with real processes: it goes on by itself or by one command,
and ends with the bits of the run that nobody disturbed. A reply that was lost is named in the
record, and the bits are those of the run without it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.course import Course, hold, kills
from faults.points import IN_CI, POINTS, Point, chips
from faults.processes import Deployed

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def deployed(root: Path) -> Iterator[Deployed]:
    """Return one coordinator and two institutions, for all points."""
    with Deployed(root / "deployed").running() as deployed:
        yield deployed


def test_three_kills_in_one_run(deployed: Deployed, root: Path, request: pytest.FixtureRequest) -> None:
    course = Course(deployed, root / "three", rounds=1)
    course.to_the_end(kills(*((point.seen, point.pid) for point in IN_CI)))
    hold(course, frozenset(), 3, request)


def test_nothing_happens(deployed: Deployed, root: Path, request: pytest.FixtureRequest) -> None:
    """Real processes and the reference in this process agree in every bit."""
    course = Course(deployed, root / "nothing")
    course.disturbed = True
    course.to_the_end(lambda course: True)
    hold(course, frozenset(), 1, request)


@pytest.mark.parametrize("point", POINTS, ids=[point.label for point in POINTS])
def test_killed(point: Point, deployed: Deployed, root: Path, request: pytest.FixtureRequest) -> None:
    if point.seen is chips:
        shutil.rmtree(deployed.state("beta") / "chips", ignore_errors=True)
    course = Course(deployed, root / point.label)
    course.to_the_end(kills((point.seen, point.pid)))
    hold(course, point.may_lose, point.commands, request)
