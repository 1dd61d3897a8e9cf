"""A module of this package at work in a process of its own, in an app folder as Flower makes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsense_core.errors import FedSenseError
from fedsense_core.tools.runner.app_folder import assemble
from fedsense_core.tools.runner.child import end_child, start_child


def run_in_app(module: str, job: Mapping[str, Any], home: Path, flower_toml: Path | None, log: Path) -> None:
    """Run ``module`` on a job below the folder ``home`` until it ends; what it prints goes to
    ``log``.

    It is given the names of two files: the job as JSON, and where to write why it fails. Raises
    FedSenseError with that reason.
    """
    job_file, reason = home / "job.json", home / "reason.txt"
    job_file.write_text(json.dumps(job), encoding="utf-8")
    app = assemble(home / "app", flower_toml)
    with log.open("w", encoding="utf-8") as output:
        child = start_child(module, [str(job_file), str(reason)], app, None, output=output)
        try:
            child.wait()
        finally:
            end_child(child)
    if child.returncode:
        told = reason.read_text(encoding="utf-8") if reason.exists() else ""
        raise FedSenseError(told or f"its process ended with status {child.returncode}: is memory short?")
