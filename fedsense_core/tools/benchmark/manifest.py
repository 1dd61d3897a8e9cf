"""What is done of a benchmark: one file, ``manifest.json``, with a record for each trial."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fedsense_core.errors import CheckpointError
from fedsense_core.run_folder.folder import read_json, write_json
from fedsense_core.tools.benchmark.matrix import Settings
from fedsense_core.tools.benchmark.trials import Trial, changes

FORMAT = 2
"""Format 1 had ``cells`` for ``trials``."""
FILE = "manifest.json"


@dataclass
class Record:
    """One trial."""

    state: Literal["started", "done", "failed"]
    settings: Settings
    """All that its metrics depend on, as it was run."""
    tasks: dict[str, Any]
    """What it is evaluated on."""
    source: str
    """Digest of the code; several, joined by ``+``, where a later version continued or evaluated
    the trial."""
    seconds: float = 0.0
    """Wall time of all its starts."""
    reason: str = ""
    """Why it failed."""


@dataclass
class Manifest:
    """The records of a benchmark's folder, each change of which is on disk at once."""

    folder: Path
    records: dict[str, Record] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> Manifest:
        """Read the manifest, or begin one. Raises CheckpointError for a damaged one."""
        content = read_json(folder / FILE) or {"format": FORMAT, "trials": {}}
        if content.get("format") != FORMAT:
            raise CheckpointError(
                f"{folder / FILE} has format {content.get('format')!r}, and this release reads {FORMAT}: choose "
                "another folder with --out, or delete this one"
            )
        return cls(folder, {name: Record(**record) for name, record in content["trials"].items()})

    def trial_folder(self, trial: Trial) -> Path:
        """Return the run folder of a trial."""
        return self.folder / "trials" / trial.name

    def log_file(self, trial: Trial) -> Path:
        """Return the log of a trial."""
        return self.folder / "logs" / f"{trial.name.replace('/', '-')}.log"

    def why_not_done(self, trial: Trial, tasks: Mapping[str, Any]) -> str:
        """Return in words why a trial is to be run or evaluated; empty where it is done."""
        record = self.records.get(trial.name)
        if record is None:
            return "new"
        if changed := self.settings_changed(trial):
            return "changed: " + "; ".join(changed[:3])
        if record.tasks != tasks:
            names = [name for name in {**record.tasks, **tasks} if record.tasks.get(name) != tasks.get(name)]
            if set(names) & set(tasks):
                return f"to be evaluated: {', '.join(names)}"
        if record.state == "failed":
            return f"failed: {record.reason}"
        if record.state == "done":
            return "" if self.trial_folder(trial).is_dir() else "its folder is gone"
        return "not finished"

    def settings_changed(self, trial: Trial) -> list[str]:
        """Return which settings have changed since the trial was run."""
        record = self.records.get(trial.name)
        return changes(record.settings, trial.resolved()) if record else []

    def begin(self, trial: Trial, tasks: dict[str, Any], source: str) -> None:
        """Note that a trial is started; what it did under other settings goes."""
        record = self.records.get(trial.name)
        if record and self.settings_changed(trial):
            shutil.rmtree(self.trial_folder(trial), ignore_errors=True)
            record = None
        seconds = record.seconds if record else 0.0
        before = record.source.split("+") if record and self.trial_folder(trial).is_dir() else []
        sources = dict.fromkeys([*before, source])
        self.records[trial.name] = Record("started", trial.resolved(), tasks, "+".join(sources), seconds)
        self.save()

    def end(self, trial: Trial, done: bool, reason: str, seconds: float) -> None:
        """Note what has become of a trial."""
        record = self.records[trial.name]
        record.state, record.reason = "done" if done else "failed", reason
        record.seconds += seconds
        self.save()

    def save(self) -> None:
        """Write the file, whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / FILE, {"format": FORMAT, "trials": {n: asdict(r) for n, r in self.records.items()}})
