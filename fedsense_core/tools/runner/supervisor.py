"""Supervises Flower's daemon: it lives exactly as long as the program that asked for it.

Run as ``python -m fedsense_core.tools.runner.supervisor COMMAND...`` with a pipe as standard input:
when the pipe closes, because the other end has finished or was killed, the daemon and every session
its children lead are ended. Flower's own programs watch their parents by process id, which fails in
containers whose first process does not reap, and a SuperLink with a connected log stream outlives
SIGTERM: a simulation left behind would go on writing into its run folder. Linux and macOS.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

POLL_S = 1.0
GRACE_S = 5.0
"""Nothing that is ended here writes a file that a sudden end could spoil."""


def supervise(command: list[str]) -> int:
    """Run ``command`` in a session of its own until standard input closes or it ends by itself."""
    daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    groups = {daemon.pid}
    with suppress(KeyboardInterrupt):
        while daemon.poll() is None and not select.select([sys.stdin], [], [], POLL_S)[0]:
            groups |= _children(daemon.pid)
    end(daemon, groups)
    return daemon.returncode


def end(daemon: subprocess.Popen[bytes], groups: Iterable[int]) -> None:
    """Ask the process groups to end, and after a while make them."""
    _signal(groups, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and (daemon.poll() is None or any(map(_is_alive, groups))):
        time.sleep(0.1)
    _signal(groups, signal.SIGKILL)
    daemon.wait()


def _signal(groups: Iterable[int], number: int) -> None:
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def _children(pid: int) -> set[int]:
    """Return the child processes on Linux; elsewhere none, and Flower's programs watch their
    parents."""
    with suppress(OSError):
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return set()


def _is_alive(group: int) -> bool:
    """Return whether a process group has a member that is no zombie (Linux; elsewhere False)."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            state, _, member_of = stat.read_text().rpartition(")")[2].split()[:3]
            if int(member_of) == group and state != "Z":
                return True
    return False


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1:]))
