"""Processes that end with their parent, and that are ended by id, never by name."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

GRACE_S = 15.0
"""Flower's programs report to each other when they end; after this long they are ended for them."""
PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_with_parent() -> None:
    """Ask Linux to end this process when its parent is gone, however it went; elsewhere do nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own session, and the sessions its children lead."""
    groups = [process.pid, *_children(process.pid)]
    process.terminate()
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and (process.poll() is None or any(map(_is_alive, groups))):
        time.sleep(0.1)
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    process.wait()


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that whatever was started is ended in both cases."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # not Linux, or gone: Flower's programs watch their parents themselves
        return []


def _is_alive(group: int) -> bool:
    """Return whether a process group has a member that is no zombie."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError):
            state, _, member_of = stat.read_text().rpartition(")")[2].split()[:3]
            if int(member_of) == group and state != "Z":
                return True
    return False
