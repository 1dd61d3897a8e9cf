"""What runs a job: an engine takes it from start to true exit status and leaves its log in the run
folder."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO

from fedsense_core.errors import FedSenseError
from fedsense_core.full_disk import naming_full_disk
from fedsense_core.run_folder.folder import RunFolder
from fedsense_core.tools.runner.planning import Job, Resources

LOG = "flower.log"
"""Everything that Flower said about a run, in its folder."""
WAITING = "flower-"
"""Begins the names of logs that no run folder holds yet."""

TEMPORARY = "the environment variable TMPDIR"
"""What moves folders that are gone after a run."""

Show = Callable[[str], None]


class RunFailed(FedSenseError):
    """A run was started and failed."""


class Engine(Protocol):
    """Runs jobs; made once for several."""

    def run(self, job: Job, resources: Resources, show: Show) -> None:
        """Run one job and pass its log on, line by line. Raises RunFailed with the reason and where
        the log is."""

    def describe(self, job: Job, resources: Resources) -> str:
        """Return in words what the clients of a job are given."""


@contextmanager
def run_log(home: Path, job: Job) -> Iterator[TextIO]:
    """Yield the log of a run to write to; in the end it is in the run folder, or in ``home`` where
    there is none."""
    waiting, final = home / f"{WAITING}{uuid.uuid4().hex[:8]}.log", job.folder / LOG
    try:
        with naming_full_disk(home, TEMPORARY), waiting.open("w", buffering=1, encoding="utf-8") as log:
            yield log
    except RunFailed as error:
        where = final if RunFolder.exists(job.folder) else waiting
        raise RunFailed(f"{error}\nAll that Flower said: {where}") from None
    finally:
        if RunFolder.exists(job.folder):
            with naming_full_disk(job.folder, "--out"), final.open("ab") as file:
                file.write(waiting.read_bytes())
            waiting.unlink()


def holds_logs(home: Path) -> bool:
    """Return whether a log is still in ``home``."""
    return any(home.glob(f"{WAITING}*.log"))


def last_words(text: str) -> str:
    """Return the last lines of a log that says nothing better, or an empty text."""
    return " ".join([line.strip() for line in text.splitlines() if line.strip()][-6:])


def count(number: int, thing: str) -> str:
    """Return a number with its thing, in the plural where it is one."""
    return f"{number} {thing}" + ("" if number == 1 else "s")
