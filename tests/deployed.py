"""A coordinator and institutions on 127.0.0.1, by the commands that docs/deployment.md gives: each
in a folder of its own, and ended by process id."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from fedsense_core.tools.app_bundle.building import build, write_bundle
from fedsense_core.tools.app_bundle.signatures import add_signature, file_beside, sign
from fedsense_core.tools.app_bundle.signer_keys import make_key, read_private_key
from fedsense_core.tools.runner.processes import free_port


class Deployment:
    """One coordinator and one institution for each site file. Ends what it started."""

    def __init__(self, root: Path, sites: Path, environment: Mapping[str, str], wait: Callable[..., None]) -> None:
        self.root, self.environment, self.wait = root, environment, wait
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.port = free_port()
        self.institutions = sorted(path.stem for path in sites.glob("*.toml"))
        for name in self.institutions:
            self._move_in(sites / f"{name}.toml")

    @property
    def run_folder(self) -> Path:
        """Where runs of `run_settings` go."""
        return self.root / "run"

    def state(self, who: str) -> Path:
        """Return the folder of the coordinator or of an institution."""
        return self.root / who / "state"

    def command(self, who: str, *arguments: str) -> list[str]:
        """Return a command line of the coordinator's or an institution's."""
        role = "coordinator" if who == "coordinator" else "institution"
        return ["fedsense", role, *arguments, "--state", str(self.state(who))]

    def call(self, who: str, *arguments: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run one command to its end, which is ``status``."""
        done = subprocess.run(
            self.command(who, *arguments), env=self.environment, capture_output=True, text=True, cwd=self.root
        )
        assert status is None or done.returncode == status, done.stdout + done.stderr
        return done

    def follow(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of the coordinator's whose output is read later."""
        return subprocess.Popen(
            self.command("coordinator", *arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def serve(self, who: str) -> None:
        """Start a role's programs, and go on."""
        with self.log_file(who).open("ab") as log:
            self.processes[who] = subprocess.Popen(
                self.command(who, "serve"), env=self.environment, cwd=self.root, stdout=log, stderr=log
            )

    def start(self) -> None:
        """Do what docs/deployment.md says, in its order."""
        signer = f"releases={self.root / 'releases.pub'}"
        make_key(self.root / "releases")
        self.call("coordinator", "init", "--address", f"127.0.0.1:{self.port}", "--signer", signer)
        self.put_app()
        invitation = str(self.root / "federation.toml")
        self.call("coordinator", "invitation", "--out", invitation)
        self.serve("coordinator")
        self.wait(lambda: "superexec |" in self.log("coordinator"), "the SuperLink")
        for name in self.institutions:
            site = str(self.root / name / "site.toml")
            self.call(name, "join", invitation, "--site", site, "--port", str(free_port()))
            self.call("coordinator", "admit", name, str(self.state(name) / "key.pub"))
            self.serve(name)

    def put_app(self) -> None:
        """Give the coordinator the signed bundle of the FedSense that runs."""
        bundle = build().bundle
        path = write_bundle(bundle, self.state("coordinator") / "app")
        add_signature(bundle, file_beside(path), "releases", sign(bundle, read_private_key(self.root / "releases")))

    def log_file(self, who: str) -> Path:
        """Return where a role's programs write."""
        return self.root / f"{who}.log"

    def log(self, who: str) -> str:
        """Return what a role's programs have said so far."""
        return self.log_file(who).read_text(encoding="utf-8", errors="replace")

    def programs(self, who: str) -> dict[int, str]:
        """Return all processes below a role's command: process id, command line. Zombies, of which
        a SuperExec collects some, have none and are left out."""
        lines = {pid: command_line(pid) for pid in descendants(self.processes[who].pid)}
        return {pid: line for pid, line in lines.items() if line}

    def kill(self, who: str, program: str) -> None:
        """Kill one of Flower's programs of a role as the kernel does: no warning."""
        found = [pid for pid, line in self.programs(who).items() if f"/{program} " in line and "supervisor" not in line]
        assert len(found) == 1, self.programs(who)
        os.kill(found[0], signal.SIGKILL)

    def end(self) -> None:
        """End everything as a service manager does."""
        for popen in reversed(self.processes.values()):
            popen.terminate()
            popen.wait()
        self.processes.clear()

    def _move_in(self, site: Path) -> None:
        """Give an institution a folder that holds its own site file and imagery and nobody
        else's."""
        home = self.root / site.stem
        home.mkdir()
        shutil.copy(site, home / "site.toml")
        shutil.copytree(site.parent / site.stem, home / site.stem)


def run_settings(deployment: Deployment, settings: Mapping[str, object], **changes: object) -> list[str]:
    """Return settings as arguments of ``coordinator run``; ``__`` in a keyword is a dot."""
    fixed = {"federation.min_clients": len(deployment.institutions), "run.folder": deployment.run_folder}
    merged = {**settings, **fixed} | {k.replace("__", "."): v for k, v in changes.items()}
    return [f"{key}={value}" for key, value in merged.items()]


def descendants(pid: int) -> list[int]:
    """Return process ids below a process, at any depth."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [one for child in children for one in (child, *descendants(child))]


def command_line(pid: int) -> str:
    """Return what ``ps`` shows of a process; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""
