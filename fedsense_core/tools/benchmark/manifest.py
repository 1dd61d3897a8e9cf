"""What is done of a benchmark: one file, ``manifest.json``, with a record for each cell."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fedsense_core.errors import CheckpointError
from fedsense_core.run_folder.folder import read_json, write_json
from fedsense_core.tools.benchmark.matrix import Settings
from fedsense_core.tools.benchmark.trials import Cell, changes

FORMAT = 1
FILE = "manifest.json"


@dataclass
class Record:
    """One cell."""

    state: Literal["started", "done", "failed"]
    settings: Settings
    """All that its figures depend on, as it was run."""
    tasks: dict[str, Any]
    """What it is graded on."""
    source: str
    """Digest of the code; several, joined by ``+``, where a later version continued or graded the
    cell."""
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
        content = read_json(folder / FILE) or {"format": FORMAT, "cells": {}}
        if content.get("format") != FORMAT:
            raise CheckpointError(f"{folder / FILE} has format {content.get('format')!r}; this is {FORMAT}: use --out")
        return cls(folder, {name: Record(**record) for name, record in content["cells"].items()})

    def cell_folder(self, cell: Cell) -> Path:
        """Return the run folder of a cell."""
        return self.folder / "cells" / cell.name

    def log_file(self, cell: Cell) -> Path:
        """Return the log of a cell."""
        return self.folder / "logs" / f"{cell.name.replace('/', '-')}.log"

    def why_not_done(self, cell: Cell, tasks: Mapping[str, Any]) -> str:
        """Return in words why a cell is to be run or graded; empty where it is done."""
        record = self.records.get(cell.name)
        if record is None:
            return "new"
        if changed := self.settings_changed(cell):
            return "changed: " + "; ".join(changed[:3])
        if record.tasks != tasks:
            names = [name for name in {**record.tasks, **tasks} if record.tasks.get(name) != tasks.get(name)]
            if set(names) & set(tasks):
                return f"to be graded: {', '.join(names)}"
        if record.state == "failed":
            return f"failed: {record.reason}"
        if record.state == "done":
            return "" if self.cell_folder(cell).is_dir() else "its folder is gone"
        return "not finished"

    def settings_changed(self, cell: Cell) -> list[str]:
        """Return which settings have changed since the cell was run."""
        record = self.records.get(cell.name)
        return changes(record.settings, cell.resolved()) if record else []

    def begin(self, cell: Cell, tasks: dict[str, Any], source: str) -> None:
        """Note that a cell is started; what it did under other settings goes."""
        record = self.records.get(cell.name)
        if record and self.settings_changed(cell):
            shutil.rmtree(self.cell_folder(cell), ignore_errors=True)
            record = None
        seconds = record.seconds if record else 0.0
        before = record.source.split("+") if record and self.cell_folder(cell).is_dir() else []
        sources = dict.fromkeys([*before, source])
        self.records[cell.name] = Record("started", cell.resolved(), tasks, "+".join(sources), seconds)
        self.save()

    def end(self, cell: Cell, done: bool, reason: str, seconds: float) -> None:
        """Note what has become of a cell."""
        record = self.records[cell.name]
        record.state, record.reason = "done" if done else "failed", reason
        record.seconds += seconds
        self.save()

    def save(self) -> None:
        """Write the file, whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / FILE, {"format": FORMAT, "cells": {n: asdict(r) for n, r in self.records.items()}})
