"""What has been shown, one line of JSON for each point: a suite of an hour can be stopped, and goes
on where it was.

``FEDSENSE_FAULTS`` names a folder; without it nothing is written and nothing skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import flwr

from fedsense_core.fingerprint import source_digest

FOLDER = os.environ.get("FEDSENSE_FAULTS", "")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Results:
    """The file of results in a folder."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "faults.jsonl"

    @cached_property
    def code(self) -> dict[str, str]:
        """What a result holds for: the code that travels to the nodes, and Flower."""
        return {"code": source_digest(), "flower": flwr.__version__}

    def shown(self, point: str) -> bool:
        """Return whether a point has passed with this code."""
        return any(
            line["point"] == point and line["outcome"] == "passed" and self.code.items() <= line.items()
            for line in self.read()
        )

    def read(self) -> list[dict[str, Any]]:
        """Return all whole lines."""
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def add(self, point: str, outcome: str, seconds: float, about: dict[str, Any]) -> None:
        """Write what became of a point."""
        self.folder.mkdir(parents=True, exist_ok=True)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = {"point": point, "outcome": outcome, "seconds": round(seconds, 1), "at": now}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | self.code | {"commit": commit()} | about) + "\n")


def commit() -> str:
    """Return the commit that lies here, with a word where it was edited; empty outside a clone."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
