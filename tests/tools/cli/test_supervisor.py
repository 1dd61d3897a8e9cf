"""Real processes: what the supervisor promises is about them."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SUPERVISOR = [sys.executable, "-m", "fedsense_core.tools.runner.supervisor"]
DAEMON = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""
"""Refuses SIGTERM, as a SuperLink with a log stream does, and starts a child in a session of its
own."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until_gone(pids: list[int], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not all(map(is_gone, pids)):
        assert time.monotonic() < deadline, f"{pids} are still there"
        time.sleep(0.1)


def start(tmp_path: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    pids = tmp_path / "pids"
    command = [*SUPERVISOR, sys.executable, "-c", DAEMON, str(pids)]
    supervisor = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    while not (pids.exists() and len(pids.read_text().split()) == 2):
        assert supervisor.poll() is None
        time.sleep(0.1)
    time.sleep(1.5)  # the supervisor looks for children once a second
    return supervisor, [int(pid) for pid in pids.read_text().split()]


def test_closing_the_pipe_ends_a_stubborn_daemon_and_the_sessions_of_its_children(tmp_path: Path) -> None:
    supervisor, pids = start(tmp_path)
    assert supervisor.stdin is not None
    supervisor.stdin.close()
    supervisor.wait(30)
    wait_until_gone(pids)


def test_children_end_when_the_daemon_was_killed(tmp_path: Path) -> None:
    supervisor, pids = start(tmp_path)
    subprocess.run(["kill", "-9", str(pids[0])], check=True)
    assert supervisor.wait(30) == -signal.SIGKILL % 256
    wait_until_gone(pids)


def test_status_of_a_daemon_that_ends_by_itself_is_passed_on() -> None:
    supervisor = subprocess.Popen([*SUPERVISOR, sys.executable, "-c", "raise SystemExit(7)"], stdin=subprocess.PIPE)
    assert supervisor.wait(30) == 7
