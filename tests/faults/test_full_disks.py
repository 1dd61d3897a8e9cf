"""Disks that are full for real: a small tmpfs under a run folder, or under what an institution
keeps. The run names the folder and ends in the same bits once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from federation import SITES, Federation
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from fedsense_core.full_disk import FullDisk

pytestmark = pytest.mark.slow

STEPS = 12
"""Sizes of disk that are tried, evenly up to what the run needs."""
PAGE, PLENTY = 4096, 1 << 28


class Disk:
    """A tmpfs of a size that can be changed while it is in use."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mount(self, size: int) -> None:
        """Mount it, or skip the test where that is not allowed."""
        if os.geteuid() != 0:
            pytest.skip("mounting a tmpfs takes root")
        done = self._mount("-o", f"size={size}", "fedsense-test")
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")

    def grow(self, size: int) -> None:
        """Give it more room."""
        assert self._mount("-o", f"remount,size={size}").returncode == 0

    def unmount(self) -> None:
        """Take it away where it was mounted."""
        if self.path.is_mount():
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)  # chips are mapped still

    def _mount(self, *options: str) -> subprocess.CompletedProcess[str]:
        self.path.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", *options, str(self.path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.unmount()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Return a run of two rounds with all the room that it wants."""
    fed = Federation(tmp_path_factory.mktemp("whole"), changes={"run.rounds": 2})
    fed.run()
    return fed


def size_of(folder: Path) -> int:
    """Return what a folder takes on a tmpfs: whole pages."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


def at_home(fed: Federation, state: dict[str, Path]) -> Federation:
    """Let institutions keep what they remember where they say, not in the run folder."""
    for context, site in zip(fed.grid.contexts.values(), SITES, strict=True):
        context.node_config = {"site": str(fed.root / "sites" / f"{site}.toml"), "state-dir": str(state[site])}
    return fed


@pytest.mark.parametrize("step", range(STEPS))
def test_full_disk_of_the_coordinator_is_named_and_the_run_goes_on(
    whole: Federation, disk: Disk, tmp_path: Path, step: int, request: pytest.FixtureRequest
) -> None:
    need = size_of(whole.folder.path) - size_of(whole.folder.path / "clients")
    disk.mount((need * (step + 1) // (STEPS + 1)) // PAGE * PAGE + 20 * PAGE)  # the imagery takes some
    state = {site: tmp_path / "home" / site for site in SITES}
    first = at_home(Federation(disk.path, changes=whole.changes), state)
    with pytest.raises(FullDisk, match=rf"^{disk.path}/run: its disk is full.*run\.folder") as told:
        first.run()
    request.node.user_properties += [("told", str(told.value)[-60:]), ("lines", len(first.folder.read_metrics()))]
    disk.grow(PLENTY)
    again = at_home(Federation(disk.path, changes=whole.changes, first_node=500), state)
    again.run()
    assert [line["accepted"] for line in again.lines()] == [list(SITES)] * 2
    assert torch.equal(again.state().weights, whole.state().weights)


@pytest.mark.parametrize("step", range(STEPS))
def test_full_disk_of_an_institution_costs_its_replies_alone_and_the_record_says_so(
    whole: Federation, disk: Disk, tmp_path: Path, step: int, request: pytest.FixtureRequest
) -> None:
    need = size_of(whole.folder.path / "clients" / "beta")
    disk.mount((need * (step + 1) // (STEPS + 1)) // PAGE * PAGE)
    state = {site: tmp_path / "home" / site for site in SITES} | {"beta": disk.path}
    changes = whole.changes | {"run.rounds": 3, "federation.min_clients": 2}
    fed = at_home(Federation(tmp_path / "small", changes=changes), state)

    def make_room(task: Message, reply: Message | None) -> Message | None:
        disk.grow(PLENTY)
        return reply

    fed.grid.faults = {(2, fed.node("gamma")): make_room}
    fed.run()
    lost = set()
    for line in fed.lines():
        assert line["accepted"] == [site for site in SITES if site not in {one["node"] for one in line["rejected"]}]
        if "beta" not in line["accepted"]:
            lost.add((line["round"], "beta"))
    told = [one["reason"] for line in fed.lines() for one in line["rejected"]]
    request.node.user_properties += [("lost", sorted(lost)), ("told", told)]
    assert lost, "there was room for everything"
    assert all("beta: its disk is full" in reason and "state-dir" in reason for reason in told), told
    without = Federation(tmp_path / "without", changes=changes)
    without.grid.faults = {(number, without.node(site)): lose for number, site in lost}
    without.run()
    assert torch.equal(fed.state().weights, without.state().weights)


def lose(task: Message, reply: Message | None) -> Message:
    return Message(Error(ErrorCode.CLIENT_APP_CRASHED, "ClientApp stopped responding."), reply_to=task)
