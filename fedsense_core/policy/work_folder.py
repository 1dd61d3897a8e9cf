"""What ClientApps of an institution do just now, as their notes say: one file for each process."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path

WORK = "work"
"""Folder of the notes, below the state of an institution."""


@dataclass(frozen=True)
class Work:
    """What one process does."""

    where: str
    """Machine, and container, in which the number of the process means anything."""
    pid: int
    started: int
    """When the process started, in ticks of the kernel since it booted; 0 where the system does not
    say. A number of a process is given again, with another start."""
    run_id: int
    """Flower's, of the run."""
    node_id: int
    """Flower's, of the SuperNode."""
    site: str
    doing: str
    """Such as ``round 3``."""
    since: float
    """Seconds since 1970."""
    until: float
    """When the policy's minutes are over, in the same seconds."""


def works(state: Path) -> dict[Path, Work]:
    """Return what the notes below ``state`` say, by file; damaged ones, which nobody can act on,
    are left out."""
    found = {}
    for path in sorted((state / WORK).glob("*.json")):
        try:
            found[path] = Work(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
    return found


def here() -> str:
    """Return the machine and the container of this process."""
    try:
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def started_at(pid: int) -> int:
    """Return when a process started, in the kernel's ticks (proc(5), field 22 of stat); 0 for none,
    for one that has ended and that its parent did not ask after yet, and where the system does not
    say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0
