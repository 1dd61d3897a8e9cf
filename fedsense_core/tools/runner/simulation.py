"""One Flower simulation from start to true exit status.

Flower starts a daemon on the first ``flwr run`` and leaves it there, with the environment and
working directory of that first call, serving every checkout on its port, and ``flwr run --stream``
ends with 0 even when the run failed. Here each call has a daemon of its own, in an empty folder, on
its own port, that ends with it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from fedsense_core.tools.runner.app_folder import assemble
from fedsense_core.tools.runner.engine import RunFailed, Show, count, holds_logs, last_words, run_log
from fedsense_core.tools.runner.planning import Job, Resources
from fedsense_core.tools.runner.processes import free_port, program, search_path

START_DEADLINE_S = 120.0
STATUS_DEADLINE_S = 120.0
"""A simulation that was killed from outside is noticed by Flower after about 50 s."""
RAY_SOCKET_ROOM = 38
"""Longest folder name whose Ray sockets still fit into the 107 characters that Unix allows."""


@dataclass
class Simulation:
    """A local SuperLink and what it needs. Make one with ``open_simulation``."""

    home: Path
    """FLWR_HOME and working directory: nothing here can shadow the app."""
    app: Path
    environment: dict[str, str]
    daemon: subprocess.Popen[bytes]
    """The supervisor of the SuperLink; closing its standard input ends both."""

    def describe(self, job: Job, resources: Resources) -> str:
        """Return in words what the clients of a job are given."""
        gpu = f" and {resources.gpus:g} GPU" if resources.gpus else ""
        return f"{count(job.supernodes, 'client')} with {resources.cpus} CPU{gpu} each"

    def run(self, job: Job, resources: Resources, show: Show) -> None:
        """Run one job and pass its log on, line by line. Raises RunFailed with Flower's reason."""
        command = ["run", str(self.app), "simulation", "--stream"]
        command += ["--federation-config", resources.federation_config(job.supernodes)]
        command += ["--run-config", str(self._write_settings(job))]
        with run_log(self.home, job) as log:
            self._check(*self._stream(command, log, show))

    def _stream(self, command: list[str], log: TextIO, show: Show) -> tuple[str, str]:
        """Run Flower's command; return the id of the run, if it began, and the last that was
        said."""
        run_id, end = "", deque[str](maxlen=20)
        with self._flwr(command, stderr=subprocess.STDOUT) as flwr:
            assert flwr.stdout is not None
            try:
                for line in flwr.stdout:
                    log.write(line)
                    end.append(line)
                    run_id = run_id or _run_id(line)
                    show(line)
            except BaseException:
                flwr.terminate()
                raise
        return run_id, last_words("".join(end))

    def _check(self, run_id: str, said: str) -> None:
        """Wait for the final status of a run. Raises RunFailed unless it completed."""
        if not run_id:
            raise RunFailed(said or "Flower ended without a word")
        deadline = time.monotonic() + STATUS_DEADLINE_S
        while time.monotonic() < deadline and self.daemon.poll() is None:
            run = self._status(run_id)
            if run.get("status") == "finished:completed":
                return
            if str(run.get("status", "")).startswith("finished"):
                raise RunFailed(
                    str(run.get("status-details") or run["status"]).removeprefix("Simulation failed with exception: ")
                )
            time.sleep(1.0)
        raise RunFailed("Flower's SuperLink ended or gives no status: was it killed, or is memory short?")

    def _status(self, run_id: str) -> dict[str, Any]:
        with self._flwr(["list", "--run-id", run_id, "--format", "json"], stderr=subprocess.DEVNULL) as flwr:
            answer, _ = flwr.communicate()
        try:
            return dict(json.loads(answer)["runs"][0])
        except (ValueError, LookupError):
            return {}

    def _flwr(self, arguments: list[str], stderr: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [program("flwr"), *arguments],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            encoding="utf-8",
            errors="replace",
        )

    def _write_settings(self, job: Job) -> Path:
        path = self.home / "run.toml"
        # JSON scalars are TOML scalars, and Flower takes quoting in -c "key=value" apart by its own
        # rules.
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in job.settings.items()]
        path.write_text("".join(lines), encoding="utf-8")
        return path


@contextmanager
def open_simulation(flower_toml: Path | None = None) -> Iterator[Simulation]:
    """Start a SuperLink of our own and end it, whatever happens. Its folder stays where a log is
    still in it."""
    home = _short_folder()
    app = assemble(home / "fedsense-app", flower_toml)
    (home / "config.toml").symlink_to(app / "flower.toml")
    environment = _environment(home)
    with (home / "superlink.log").open("wb") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "fedsense_core.tools.runner.supervisor", *_superlink(environment)],
            cwd=home,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is answered here, by closing the pipe
        )
    simulation = Simulation(home, app, environment, daemon)
    try:
        _await_health(simulation, home / "superlink.log")
        yield simulation
    finally:
        assert daemon.stdin is not None
        daemon.stdin.close()
        daemon.wait()
        if not holds_logs(home):
            shutil.rmtree(home, ignore_errors=True)


def _short_folder() -> Path:
    folder = tempfile.gettempdir()
    is_long = len(folder) + len("/fedsense-12345678") > RAY_SOCKET_ROOM
    return Path(tempfile.mkdtemp(prefix="fedsense-", dir="/tmp" if is_long and os.name == "posix" else folder))


def _environment(home: Path) -> dict[str, str]:
    return dict(os.environ) | {
        "PATH": search_path(),
        "PYTHONUNBUFFERED": "1",
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # else Flower downloads torch into a new environment for every run
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_TMPDIR": str(home),
        # off: Ray listens on 127.0.0.1 instead of every interface, without a password
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def _superlink(environment: dict[str, str]) -> list[str]:
    command = [program("flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess"]
    command += ["--host", "127.0.0.1", "--port", environment["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"]]
    return [*command, "--disable-runtime-dependency-installation"]


def _await_health(simulation: Simulation, log: Path) -> None:
    url = f"http://127.0.0.1:{simulation.environment['FLWR_LOCAL_SUPERLINK_HTTP_API_PORT']}/health"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline and simulation.daemon.poll() is None:
        try:
            with opener.open(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    said = last_words(log.read_text(encoding="utf-8", errors="replace"))
    raise RunFailed(f"Flower's SuperLink does not start: {said or f'it said nothing; see {log}'}")


def _run_id(line: str) -> str:
    found = re.search(r"Successfully started run (\d+)", line)
    return found[1] if found else ""
