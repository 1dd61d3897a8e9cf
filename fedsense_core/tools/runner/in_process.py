"""A federation in one process: Flower's ServerApp and ClientApps, without Ray, SuperLink and
network.

For experiments, CI and notebooks: a run begins at once and keeps to one core, so several go side by
side. The two apps are found by the names that pyproject.toml gives Flower.

Run as ``python -m fedsense_core.tools.runner.in_process JOB.json REASON.txt`` in an app folder; the
second file is written where the run fails.
"""

from __future__ import annotations

import importlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.task_identity import TaskIdentity

from fedsense_core.errors import FedSenseError
from fedsense_core.tools.runner.app_folder import assemble, project_file
from fedsense_core.tools.runner.child import do_or_tell, end_child, start_child
from fedsense_core.tools.runner.engine import RunFailed, Show, count, holds_logs, run_log
from fedsense_core.tools.runner.in_process_grid import RUN_ID, SERVER_NODE, InProcessGrid
from fedsense_core.tools.runner.planning import Job, Resources, Scalar


def run_federation(settings: Mapping[str, Scalar], nodes: int) -> None:
    """Run one federation to its end. Raises what the ServerApp raises."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, SERVER_NODE
    logging.getLogger("flwr").setLevel(logging.INFO)
    names = tomllib.loads(project_file("pyproject.toml").read_text(encoding="utf-8"))
    components = names["tool"]["flwr"]["app"]["components"]
    server, client = _load(components["serverapp"]), _load(components["clientapp"])
    if not isinstance(server, ServerApp) or not isinstance(client, ClientApp):
        raise FedSenseError(f"pyproject.toml names no ServerApp and ClientApp in {components}: install FedSense again")
    context = Context(RUN_ID, SERVER_NODE, {}, RecordDict(), dict(settings))
    node_configs = [{"partition-id": i, "num-partitions": nodes} for i in range(nodes)]
    server(InProcessGrid(client, settings, node_configs), context)


def _load(reference: str) -> Any:
    """Import ``package.module:name``."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class InProcess:
    """An engine that gives each job a process. Make one with ``open_in_process``."""

    home: Path
    app: Path
    threads: int | None = None

    def describe(self, job: Job, resources: Resources) -> str:
        """Return in words what the clients of a job are given."""
        threads = f", {count(self.threads, 'thread')}" if self.threads else ""
        return f"{count(job.supernodes, 'client')} in one process{threads}"

    def run(self, job: Job, resources: Resources, show: Show) -> None:
        """Run one job and pass its log on, line by line. Raises RunFailed with the reason and where
        the log is."""
        with (
            tempfile.TemporaryDirectory(dir=self.home) as folder,
            run_log(self.home, job) as log_file,
        ):
            settings, reason = Path(folder) / "job.json", Path(folder) / "reason.txt"
            settings.write_text(json.dumps({"settings": dict(job.settings), "nodes": job.supernodes}), encoding="utf-8")
            arguments = [str(settings), str(reason)]
            child = start_child(
                "fedsense_core.tools.runner.in_process", arguments, self.app, self.threads, output=subprocess.PIPE
            )
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    log_file.write(line)
                    show(line)
                child.wait()
            finally:
                end_child(child)
            if child.returncode:
                raise RunFailed(reason.read_text(encoding="utf-8") if reason.exists() else _killed(child.returncode))


def _killed(status: int) -> str:
    return f"the process of the run ended with status {status}: was it killed, or is memory short?"


@contextmanager
def open_in_process(flower_toml: Path | None = None, threads: int | None = None) -> Iterator[InProcess]:
    """Put the app together for some jobs; its folder stays where a log is still in it."""
    home = Path(tempfile.mkdtemp(prefix="fedsense-"))
    try:
        yield InProcess(home, assemble(home / "fedsense-app", flower_toml), threads)
    finally:
        if not holds_logs(home):
            shutil.rmtree(home, ignore_errors=True)


def main(job_file: str, reason_file: str) -> int:
    """Run the job of a file. Returns the exit status."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    return do_or_tell(lambda: run_federation(job["settings"], job["nodes"]), reason_file)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
