"""A federation in one process: Flower's ServerApp and ClientApps, without Ray, SuperLink and
network.

For experiments, CI and notebooks: a run begins at once and keeps to one core, so several go side by
side. Messages are handed over as they are, and clients work one after the other; what only a
network shows (lost nodes, late replies, limits of size) does not happen here. The two apps are
found by the names that pyproject.toml gives Flower.

Run as ``python -m fedsense_core.tools.runner.in_process JOB.json REASON.txt`` in an app folder; the
second file is written where the run fails.
"""

from __future__ import annotations

import importlib
import itertools
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from logging import ERROR
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity

from fedsense_core.errors import FedSenseError
from fedsense_core.tools.runner.app_folder import assemble, project_file
from fedsense_core.tools.runner.child import do_or_tell, end_child, start_child
from fedsense_core.tools.runner.engine import RunFailed, Show, count, holds_logs, kept_log
from fedsense_core.tools.runner.planning import Job, Resources, Scalar

RUN_ID, SERVER_NODE, FIRST_NODE = 1, 1, 2


class InProcessGrid(Grid):
    """Hands messages to clients in this process; a client works when its reply is pulled, so one
    reply is held at a time."""

    def __init__(self, app: ClientApp, run_config: Mapping[str, Scalar], nodes: int) -> None:
        self._app = app
        self._contexts = {
            FIRST_NODE + i: Context(
                RUN_ID,
                FIRST_NODE + i,
                {"partition-id": i, "num-partitions": nodes},
                RecordDict(),
                dict(run_config),
            )
            for i in range(nodes)
        }
        self._sent: dict[str, Message] = {}
        self._ids = itertools.count(1)
        self._run: Any = None

    def set_run(self, run: Any) -> None:
        """Take Flower's record of the run."""
        self._run = run

    @property
    def run(self) -> Any:
        """Flower's record of the run; None where nobody set one."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all clients, in the order of their partitions."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages and return their ids."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Let the clients of some messages work, and return their replies; each message is answered
        once."""
        return [self._answer(self._sent.pop(name)) for name in message_ids if name in self._sent]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push messages and return all replies."""
        return self.pull_messages(self.push_messages(messages))

    def _push(self, message: Message) -> str:
        message_id = f"message-{next(self._ids)}"
        self._sent[message_id] = message
        return message_id

    def _answer(self, message: Message) -> Message:
        """Return the client's reply; what it raises becomes an error reply, as in a SuperNode."""
        try:
            return self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:
            log(ERROR, "ClientApp raised an exception", exc_info=error)
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"{type(error)}:<'{error}'>"), reply_to=message)


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
    server(InProcessGrid(client, settings, nodes), context)


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
            kept_log(self.home, job) as log_file,
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
