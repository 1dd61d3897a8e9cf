"""Real Flower processes on 127.0.0.1 as a supervisor keeps them: one coordinator, two institutions,
and whatever ends is started again.

The command lines are Flower's own, as docs/deployment.md explains them, so that the suite tests the
apps and not the commands around them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from federation import write_site

from fedsense_core.tools.runner.processes import free_port, terminate_as_interrupt

ROOT = Path(__file__).parents[2]
SITES = ("alpha", "beta")
SETTINGS: dict[str, str | int | bool] = {
    "run.rounds": 2,
    "run.evaluate_every": 0,
    "run.report": False,
    "federation.labelled": "",
    "federation.min_clients": 2,
    "federation.wait_s": 90,
    "federation.deadline_s": 150,
    "data.chip_size": 16,
    "data.view_size": 16,
    "train.local_steps": 2,
    "train.batch_size": 4,
    "distillation.steps": 1,
    "distillation.batch_size": 4,
}
HEARTBEAT_S = os.environ.get("FEDSENSE_FAULTS_HEARTBEAT_S", "20")
"""Seconds between heartbeats; Flower's own are 30."""
PREPARED = Path(__file__).parent / "flower_processes" / "prepared_superexec.py"
READY = b"prepared"
"""What such a process says once it has."""
IS_PREPARED = os.environ.get("FEDSENSE_FAULTS_PREPARED", "1") != "0"
"""Whether apps are forked from a process that has imported torch."""
PAUSE_S = 3.0
"""How long the supervisor waits before it starts a process again."""


def children(pid: int) -> list[int]:
    """Return the living children of a process: those of all its threads."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue  # the thread has ended meanwhile
    return [child for child in found if not is_gone(child)]


def is_gone(pid: int) -> bool:
    """Return whether a process has ended; one that nobody has waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def kill(pid: int) -> None:
    """End one process at once."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@dataclass
class Kept:
    """One process that is started again whenever it has ended."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    home: Path
    """Its working directory and Flower's home: nothing there can be imported in place of the
    app."""
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    ended: float | None = None

    @property
    def log(self) -> Path:
        return self.home.parent / f"{self.name.replace(' ', '-')}.log"

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    def tend(self, pause_s: float = PAUSE_S) -> None:
        """Start the process if it has not been, or ended a while ago."""
        if self.process is not None and self.process.poll() is None:
            return
        self.ended = self.ended or time.monotonic()
        if self.process is None or time.monotonic() > self.ended + pause_s:
            self._start()

    def _start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, cwd=self.home, stdout=log, stderr=log, start_new_session=True
            )
        self.starts, self.ended = self.starts + 1, None

    def end(self) -> None:
        """End the process and what it started."""
        if self.process is not None:
            apps = children(self.process.pid) if self.process.poll() is None else []
            for pid in (self.process.pid, *apps):
                kill(pid)
            self.process.wait()


@dataclass
class Deployed:
    """The processes of one federation below ``root``; ``doors`` are ports to go through instead of
    the SuperLink's own, by who goes: an institution, or ``coordinator`` for the ServerApp."""

    root: Path
    doors: dict[str, int] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    node_ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in SITES})
    """Ports of the SuperNodes' own service, by institution."""
    extra: dict[str, dict[str, str]] = field(default_factory=dict)
    """More environment, by the name of a process."""
    kept: dict[str, Kept] = field(default_factory=dict)
    apps: dict[str, list[int]] = field(default_factory=dict)
    """Process ids of the apps that were seen, oldest first, by whose they are."""

    @contextmanager
    def running(self) -> Iterator[Deployed]:
        """Start everything, and end it whatever happens, a SIGTERM included."""
        with terminate_as_interrupt():
            try:
                self.start()
                yield self
            finally:
                self.end()

    def start(self) -> None:
        """Make keys and imagery, start everything, and admit the institutions."""
        self.root.mkdir(parents=True, exist_ok=True)
        for seed, name in enumerate(SITES):
            write_site(self.root / "sites", name, seed)
        write_site(self.root, "public", 99)
        self._make_keys()
        self._keep("superlink", *self._superlink())
        self.kept["superlink"].tend()
        self.wait(lambda: b"Uvicorn running" in self.kept["superlink"].log.read_bytes(), "the SuperLink")
        for name in SITES:
            self.flwr("supernode", "register", str(self.root / f"{name}.key.pub"), "here", "--name", name)
            self._keep(f"{name} supernode", *self._supernode(name))
            self._keep(f"{name} superexec", *self._superexec(self.node_ports[name], "--insecure"))
        door = self.doors.get("coordinator", self.port)
        self._keep("coordinator superexec", *self._superexec(door, *self._trust))
        self.tend()
        self.wait(self._is_ready, "SuperExecs and SuperNodes", 300.0)

    def tend(self) -> None:
        """Start what has ended, and note which apps are at work."""
        for one in self.kept.values():
            one.tend()
        for who in (*SITES, "coordinator"):
            seen = self.apps.setdefault(who, [])
            now = children(self.kept[f"{who} superexec"].pid)
            seen += [pid for pid in now if pid not in seen and _is_app(pid)]  # imports start programs too

    def app(self, who: str) -> int:
        """Return the process of an institution's ClientApp, or of the ServerApp; 0 for none."""
        return next((pid for pid in reversed(self.apps.get(who, [])) if not is_gone(pid)), 0)

    def state(self, name: str) -> Path:
        """Return where an institution keeps its chips and its memory."""
        return self.root / "state" / name / name

    def flwr(self, *arguments: str) -> str:
        """Run one of Flower's commands for people to its end, and return what it says."""
        done = subprocess.run(
            ["flwr", *arguments], env=self._environment("cli"), cwd=self.root / "cli", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def train(self, folder: Path, **changes: str | int | bool) -> None:
        """Start a run, or continue the one in ``folder``: the one command."""
        settings = SETTINGS | {"federation.public": str(self.root / "public.toml"), "run.folder": str(folder)}
        settings |= {key.replace("__", "."): value for key, value in changes.items()}
        lines = [f"{key} = {_toml(value)}\n" for key, value in settings.items()]
        path = self.root / "cli" / "run.toml"
        path.write_text("".join(lines))
        said = self.flwr("run", str(ROOT), "here", "--run-config", str(path))
        assert "Successfully started run" in said, said

    def wait(self, is_so: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        """Wait for something that another process does."""
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
            time.sleep(0.1)

    def end(self) -> None:
        """End everything that was started, by process id."""
        for one in reversed(self.kept.values()):
            one.end()
        for pids in self.apps.values():
            for pid in pids:
                if not is_gone(pid) and _is_app(pid):
                    kill(pid)

    def _is_ready(self) -> bool:
        nodes = all(b"SuperNode ID:" in self.kept[f"{name} supernode"].log.read_bytes() for name in SITES)
        prepared = all(READY in one.log.read_bytes() for name, one in self.kept.items() if "superexec" in name)
        return nodes and (prepared or not IS_PREPARED)

    @property
    def _trust(self) -> list[str]:
        return ["--root-certificates", str(self.root / "server.pem")]

    def _superlink(self) -> list[str]:
        return [
            *("flower-superlink", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--ssl-certfile", str(self.root / "server.pem"), "--ssl-keyfile", str(self.root / "server.key")),
            *("--ssl-ca-certfile", str(self.root / "server.pem"), "--enable-supernode-auth"),
            *("--isolation", "process", "--superexec-auth-secret-file", str(self.root / "secret")),
            *("--database", str(self.root / "superlink.db"), "--disable-runtime-dependency-installation"),
        ]

    def _supernode(self, name: str) -> list[str]:
        node = f'site="{self.root / "sites" / name}.toml" state-dir="{self.root / "state" / name}"'
        return [
            *("flower-supernode", "--superlink", f"127.0.0.1:{self.doors.get(name, self.port)}", *self._trust),
            *("--auth-supernode-private-key", str(self.root / f"{name}.key"), "--node-config", node),
            *("--host", "127.0.0.1", "--port", str(self.node_ports[name])),
            *("--isolation", "process", "--superexec-auth-secret-file", str(self.root / "secret")),
        ]

    def _superexec(self, port: int, *how: str) -> list[str]:
        secret = ("--superexec-auth-secret-file", str(self.root / "secret"))
        program = [sys.executable, str(PREPARED)] if IS_PREPARED else ["flower-superexec"]
        return [*program, "--runtime-api-address", f"127.0.0.1:{port}", *how, *secret]

    def _keep(self, name: str, *command: str) -> None:
        home = self.root / "homes" / name.replace(" ", "-")
        environment = self._environment(name) | {"FLWR_HOME": str(home)} | self.extra.get(name, {})
        self.kept[name] = Kept(name, list(command), environment, home)

    def _environment(self, name: str) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return dict(os.environ) | {
            "PATH": path,
            "PYTHONPATH": str(Path(__file__).parent / "flower_processes"),
            "FAULTS_HEARTBEAT_S": HEARTBEAT_S,
            "FLWR_HOME": str(self.root / name),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def _make_keys(self) -> None:
        names = ["-subj", "/CN=test", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        files = ["-keyout", str(self.root / "server.key"), "-out", str(self.root / "server.pem")]
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        subprocess.run(["openssl", "req", "-x509", *curve, *files, *names], check=True, capture_output=True)
        for name in SITES:
            key = ["-f", str(self.root / f"{name}.key"), "-N", "", "-C", name]
            subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", *key], check=True)
        (self.root / "secret").write_bytes(os.urandom(48))
        (self.root / "cli").mkdir()
        connection = f'address = "127.0.0.1:{self.port}"\nroot-certificates = "{self.root / "server.pem"}"\n'
        (self.root / "cli" / "config.toml").write_text(f'[superlink]\ndefault = "here"\n[superlink.here]\n{connection}')


def _toml(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


def _is_app(pid: int) -> bool:
    """Return whether a process id is still that of a Flower app, not of who got it later."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"flwr-" in command or bytes(PREPARED) in command
    except OSError:
        return False
