"""The course of one run with real processes: what can be seen of it from outside, one disturbance
at a labelled point of it, and what it is held to."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from faults.processes import SETTINGS, SITES, Deployed, is_gone, kill
from faulty_grid import FaultyGrid
from federation import write_site
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity
from safetensors.torch import load_file

from client_app.app import app
from fedsense_core.config import resolve
from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.runner.in_process_grid import RUN_ID, SERVER_NODE
from server_app.checkpoints import TENSORS
from server_app.session import run_session

POLL_S = 0.003
"""A point may be a folder that exists for a few milliseconds."""
PATIENCE_S = 900.0
"""Within which a disturbed run must have ended."""
NO_APP_S, STARTS_S = 5.0, 90.0
"""How long no ServerApp may be at work, and how long one may take to start, before a person gives
the command again."""

Lost = frozenset[tuple[int, str]]
"""Round and site of each reply that did not count."""


@dataclass
class Course:
    """One run of a deployment, from outside."""

    deployed: Deployed
    folder: Path
    rounds: int = 2
    commands: int = 0
    """How often a person has started it."""
    began: float = field(default_factory=time.monotonic)
    disturbed: bool = False
    """Whether what disturbs the run has begun."""
    seen: dict[str, int] = field(default_factory=dict)
    """How many apps each party had started before this run."""
    _idle_since: float = 0.0
    _wall: float = 0.0

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder)

    def command(self) -> None:
        """Give the one command."""
        if not self.commands:
            self.seen = {who: len(pids) for who, pids in self.deployed.apps.items()}
        self.deployed.train(self.folder, run__rounds=self.rounds)
        self.commands, self._idle_since = self.commands + 1, time.monotonic() + STARTS_S

    def asked(self, site: str) -> int:
        """Return how many ClientApps an institution has started in this run: the first answers the
        handshake, each later one a round."""
        return len(self.deployed.apps[site]) - self.seen.get(site, 0)

    def has(self, path: str) -> bool:
        """Return whether something matches a pattern below the run folder."""
        return any(True for _ in self.folder.glob(path))

    def keeps(self, site: str, path: str) -> bool:
        """Return whether something matches a pattern in what a site remembers of any run that this
        one did not find there."""
        return any(_changed(found) > self._wall for found in self.deployed.state(site).glob(path))

    def lines(self) -> int:
        """Return how many lines the record has."""
        try:
            return self.run.metrics_file.read_bytes().count(b"\n")
        except OSError:
            return 0

    def to_the_end(self, disturb: Callable[[Course], bool]) -> None:
        """Run, call ``disturb`` all the while, and give the command again where no ServerApp is
        left and ``disturb`` says that a person may."""
        self._wall, last = time.time(), 0.0
        self.command()
        while not self.run.is_finished:
            assert time.monotonic() < self.began + PATIENCE_S, f"{self.commands} commands, {self.lines()} lines: no end"
            if time.monotonic() > last + 0.05:
                self.deployed.tend()
                last = time.monotonic()
            if disturb(self) and self._is_left_alone():
                self.command()
            time.sleep(POLL_S)
        assert self.disturbed, "the run ended before its point came"
        self.deployed.wait(lambda: not self.deployed.app("coordinator"), "the end of the ServerApp")

    def _is_left_alone(self) -> bool:
        """Return whether the ServerApp has ended a while ago, or does not come."""
        now = time.monotonic()
        if self.deployed.app("coordinator"):
            self._idle_since = now
        return now > self._idle_since + NO_APP_S

    def lost(self) -> Lost:
        """Return which replies did not count, as the record names them; whatever it does not name
        must have counted."""
        found = set()
        for line in self.run.read_metrics()[1:]:
            named = {one["node"] for one in line["rejected"]}
            for site in set(SITES) - set(line["accepted"]):
                assert site in named, f"round {line['round']} does not say what became of {site}: {line}"
                found.add((line["round"], site))
        return frozenset(found)


def digests(run: RunFolder) -> dict[str, str]:
    """Return the SHA-256 of the model and of each file of the exported encoder, and what the record
    says of rounds."""
    model = load_file(max(run.checkpoints.glob("round-*")) / TENSORS)["weights"]
    files = {
        str(path.relative_to(run.encoder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.encoder.rglob("*"))
        if path.is_file()
    }
    rounds = [(line["round"], line["accepted"], measured(line)) for line in run.read_metrics()[1:]]
    return files | {"model": hashlib.sha256(model.numpy().tobytes()).hexdigest(), "record": repr(rounds)}


def measured(line: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return what clients measured of their training, without seconds and memory."""
    return {
        site: {name: value for name, value in metrics.items() if not name.endswith(("-seconds", "-bytes"))}
        for site, metrics in sorted(line["clients"].items())
    }


@cache
def undisturbed(root: Path, lost: Lost, rounds: int) -> dict[str, str]:
    """Return the digests of the same run in this process, whose lost replies are those that are
    named."""
    here = root / "-".join(["whole", str(rounds), *(f"{number}{site}" for number, site in sorted(lost))])
    for seed, name in enumerate(SITES):
        write_site(here / "sites", name, seed)
    public = write_site(here, "public", 99)
    settings = SETTINGS | {"federation.public": str(public), "run.folder": str(here / "run"), "run.rounds": rounds}
    nodes = [{"site": str(here / "sites" / f"{name}.toml"), "state-dir": str(here / "state" / name)} for name in SITES]
    grid = FaultyGrid(app, settings, nodes, first_node=100, faults={})
    grid.faults = {(number, 100 + SITES.index(site)): _lose for number, site in lost}
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, SERVER_NODE
    return digests(RunFolder(run_session(resolve(settings), grid)))


def _lose(task: Message, reply: Message | None) -> Message:
    return Message(Error(ErrorCode.CLIENT_APP_CRASHED, "ClientApp stopped responding."), reply_to=task)


def kills(*those: tuple[Callable[[Course], bool], Callable[[Course], int]]) -> Callable[[Course], bool]:
    """Return a disturbance: at each point, one after the other, kill a process."""
    left = list(those)

    def disturb(course: Course) -> bool:
        if left and left[0][0](course) and (pid := left[0][1](course)) and not is_gone(pid):
            kill(pid)
            left.pop(0)
            course.disturbed = not left
        return len(left) < len(those)

    return disturb


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it is gone meanwhile
        return 0.0


def hold(course: Course, may_lose: Lost, commands: int, request: pytest.FixtureRequest) -> None:
    """Compare a run that has ended with the one that it must equal; write down what it took."""
    lost = course.lost()
    about = {"commands": course.commands, "lost": sorted(lost), "run_s": round(time.monotonic() - course.began, 1)}
    request.node.user_properties += list(about.items())
    assert lost <= may_lose
    assert digests(course.run) == undisturbed(course.folder.parent, lost, course.rounds)
    assert course.commands <= commands, "goes on by itself, or by one command"
