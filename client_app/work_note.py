"""A file that says what a ClientApp does, for as long as it does it.

The institution's own command reads it, beside its SuperNode: a ClientApp does not know whether its
run still goes on, and a SuperNode does not tell it. Who takes the file away calls the work off.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context

from fedsense_core.atomic_io import write_whole
from fedsense_core.policy.work_folder import WORK, Work, here, started_at


@dataclass(frozen=True)
class WorkNote:
    """One such file."""

    path: Path

    @property
    def called_off(self) -> bool:
        """Whether somebody took the file away."""
        return not self.path.exists()

    @classmethod
    @contextmanager
    def written(cls, context: Context, state: Path, site: str, doing: str, minutes: float) -> Iterator[WorkNote | None]:
        """Write the note of this process below ``state``, and remove it at the end; none in a
        simulation, whose clients belong to one process."""
        if "site" not in context.node_config:
            yield None
            return
        now, pid = time.time(), os.getpid()
        work = Work(here(), pid, started_at(pid), context.run_id, context.node_id, site, doing, now, now + 60 * minutes)
        note = cls(state / WORK / f"{pid}.json")
        note.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(note.path, json.dumps(work.__dict__).encode())
        try:
            yield note
        finally:
            note.path.unlink(missing_ok=True)
