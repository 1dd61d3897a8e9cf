"""The watcher of an institution's work, with real processes and a coordinator that is made up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import httpx
import pytest
from flwr.supercore.error import ApiErrorCode, FlowerError

from client_app.allowance import Allowance
from client_app.work_note import WorkNote
from fedsense_core.errors import PolicyError
from fedsense_core.policy.work_folder import WORK, Work, here, started_at, works
from fedsense_core.tools.deployment.run_watch import GRACE_S, OVERTIME_S, RunWatch, has_ended


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that does not listen."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as popen:
        yield popen
        popen.kill()


def work_of(pid: int, **changes: object) -> Work:
    work = Work(here(), pid, started_at(pid), 5, 7, "alpha", "round 1", 0.0, 600.0)
    return replace(work, **changes)  # type: ignore[arg-type]


def note(state: Path, work: Work) -> Path:
    path = state / WORK / f"{work.pid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(work)), encoding="utf-8")
    return path


def test_work_of_a_run_that_has_ended_is_called_off_and_then_killed(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    now, ended = [0.0], set[int]()
    watch = RunWatch(tmp_path, lambda work: work.run_id in ended, clock=lambda: now[0])
    path = note(tmp_path, work_of(process.pid))
    watch.look()
    assert path.exists(), "its run goes on"
    ended.add(5)
    watch.look()
    assert not path.exists(), "a ClientApp that looks stops by itself"
    with pytest.raises(PolicyError, match="the run has ended"):
        Allowance(note=WorkNote(path)).check()
    now[0] = GRACE_S
    watch.look()
    assert process.poll() is None
    now[0] = GRACE_S + 1
    watch.look()
    assert process.wait(10) == -9
    watch.look()
    assert watch.called_off == {}


def test_work_past_its_minutes_is_called_off_even_where_nobody_can_be_asked(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    path, now = note(tmp_path, work_of(process.pid)), [600.0 + OVERTIME_S]
    watch = RunWatch(tmp_path, lambda work: False, clock=lambda: now[0])
    watch.look()
    assert path.exists()
    now[0] += 1
    watch.look()
    assert not path.exists()


def test_other_processes_are_left_alone(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    now = [0.0]
    watch = RunWatch(tmp_path, lambda work: True, clock=lambda: now[0])
    again = note(tmp_path, work_of(process.pid, started=started_at(process.pid) + 1))
    watch.look()
    assert not again.exists(), "the process of the note is dead, and its number was given again"
    elsewhere = note(tmp_path, work_of(process.pid, where="another container"))
    watch.look()
    assert not elsewhere.exists(), "a note can be taken away from afar"
    (tmp_path / WORK / "damaged.json").write_text("{", encoding="utf-8")
    for now[0] in (GRACE_S + 1, 10 * GRACE_S):
        watch.look()
    assert process.poll() is None
    assert works(tmp_path) == {}


def test_a_dead_process_leaves_no_note_behind(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as popen:
        path = note(tmp_path, work_of(popen.pid))
        popen.kill()
        watch = RunWatch(tmp_path, lambda work: False)
        while path.exists():  # nobody has asked after it: a zombie, as SuperExec leaves them
            watch.look()
        assert popen.returncode is None


class Coordinator:
    """A Fleet API that always says the same."""

    def __init__(self, answer: httpx.Response | Exception) -> None:
        self.answer = answer

    def GetRun(self, request: object) -> None:
        if isinstance(self.answer, Exception):
            raise self.answer
        self.answer.raise_for_status()


def said(status: int, text: str = "") -> httpx.Response:
    return httpx.Response(status, text=text, request=httpx.Request("POST", "https://coordinator/v1/fleet/get-run"))


@pytest.mark.parametrize(
    ("answer", "ended"),
    [
        (said(200), False),
        (said(403, json.dumps({"code": ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, "detail": "finished"})), True),
        (said(403, json.dumps({"code": ApiErrorCode.FLEET_GET_RUN_FAILED, "detail": "unknown"})), True),
        (said(403, "<html>the proxy does not pass this</html>"), False),
        (said(401, json.dumps({"detail": "Invalid SuperNode authentication"})), False),
        (said(502), False),
        (httpx.ConnectError("no route"), False),
    ],
    ids=["runs", "has ended", "unknown", "proxy", "key", "gateway", "network"],
)
def test_only_the_superlinks_own_word_ends_work(answer: httpx.Response | Exception, ended: bool) -> None:
    # Numbers and form of the answers are those of flwr 1.42, which promises neither.
    assert (ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, ApiErrorCode.FLEET_GET_RUN_FAILED) == (2007, 2008)
    assert FlowerError.from_json('{"code": 2007, "detail": "x"}') is not None
    assert has_ended(Coordinator(answer), work_of(1)) is ended  # type: ignore[arg-type]
