"""A network that delays, resets, loses, and leaves connections half open, between an institution
and the SuperLink and between the ServerApp and the SuperLink: the run ends with the bits of the run
that nobody disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.course import Course, hold
from faults.processes import Deployed
from faults.relay import Relay, Weather
from faults.storms import STORMS, Blowing, Storm

from fedsense_core.tools.runner.processes import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("network")


@pytest.fixture(scope="module")
def relays() -> Iterator[dict[str, Relay]]:
    """Return relays to a port on which the SuperLink will listen, by who goes through them."""
    port = free_port()
    relays = {who: Relay(port).start() for who in ("beta", "coordinator")}
    yield relays
    for relay in relays.values():
        relay.stop()


@pytest.fixture(scope="module")
def deployed(root: Path, relays: dict[str, Relay]) -> Iterator[Deployed]:
    """Return processes of which beta and the ServerApp go through relays."""
    doors = {who: relay.port for who, relay in relays.items()}
    with Deployed(root / "deployed", doors, port=relays["beta"].target).running() as deployed:
        yield deployed


@pytest.mark.parametrize("storm", STORMS, ids=[storm.label for storm in STORMS])
def test_disturbed(
    storm: Storm, deployed: Deployed, relays: dict[str, Relay], root: Path, request: pytest.FixtureRequest
) -> None:
    course = Course(deployed, root / storm.label)
    try:
        course.to_the_end(Blowing(storm, relays[storm.who]))
    finally:
        relays[storm.who].weather = Weather()
    hold(course, storm.may_lose, storm.commands, request)
