"""The command files of docs/deployment as coordinator and institutions run them: TLS, keys, one
site file each."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file

from client_app.memory import ClientMemory
from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.runner.processes import free_port

pytestmark = pytest.mark.e2e

COMMAND_FILES = Path(__file__).parents[2] / "docs" / "deployment"


class Deployment:
    """One coordinator and two institutions, each in a folder of its own. Ends what it started, by
    process id."""

    def __init__(self, root: Path, sites: Path, environment: Mapping[str, str], wait: Callable[..., None]) -> None:
        self.root, self.wait = root, wait
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.port = free_port()
        coordinator = {"STATE": root / "coordinator", "PORT": self.port, "RUN_FOLDER": root / "run"}
        self.environments = {"coordinator": dict(environment) | {k: str(v) for k, v in coordinator.items()}}
        for site in sites.glob("*.toml"):
            self.environments[site.stem] = dict(environment) | self._move_in(site)

    @property
    def certificate(self) -> Path:
        return self.root / "coordinator" / "certificates" / "ca.crt"

    def state(self, name: str) -> Path:
        """Return the state folder of an institution."""
        return self.root / name / "state"

    def call(self, who: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command of a command file to its end."""
        command = [str(self._file(who)), *arguments]
        environment = self.environments[who]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=self.root, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def keep_running(self, who: str, command: str) -> None:
        """Start a command that goes on until it is ended."""
        with (self.root / f"{who}-{command}.log").open("ab") as log:
            self.processes[f"{who} {command}"] = subprocess.Popen(
                [str(self._file(who)), command],
                env=self.environments[who],
                cwd=self.root,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> None:
        """Do what docs/deployment.md says, in its order."""
        self.call("coordinator", "certificates")
        self.keep_running("coordinator", "superlink")
        self.wait(lambda: "Uvicorn running" in self.log("coordinator-superlink"), "the SuperLink")
        self.keep_running("coordinator", "superexec")
        for name in self.institutions:
            self.call(name, "key")
            self.call("coordinator", "admit", name, str(self.state(name) / "key.pub"))
            self.keep_running(name, "supernode")

    @property
    def institutions(self) -> list[str]:
        return sorted(set(self.environments) - {"coordinator"})

    def log(self, name: str) -> str:
        """Return what a process has said so far."""
        return (self.root / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def kill(self, process: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End one process and what it started."""
        popen = self.processes.pop(process)
        os.killpg(popen.pid, number)
        popen.wait()

    def end(self) -> None:
        """End everything."""
        for process in reversed(list(self.processes)):
            self.kill(process)

    def _move_in(self, site: Path) -> dict[str, str]:
        """Give an institution a folder that holds its own site file and imagery and nobody
        else's."""
        home = self.root / site.stem
        home.mkdir()
        shutil.copy(site, home / "site.toml")
        shutil.copytree(site.parent / site.stem, home / site.stem)
        own = {"SITE": home / "site.toml", "STATE": home / "state", "CA": self.certificate, "PORT": free_port()}
        return {key: str(value) for key, value in own.items()} | {"SUPERLINK": f"127.0.0.1:{self.port}"}

    def _file(self, who: str) -> Path:
        return COMMAND_FILES / ("coordinator.sh" if who == "coordinator" else "institution.sh")


@pytest.fixture
def deployment(
    tmp_path: Path, site_files: Path, environment: dict[str, str], wait: Callable[..., None]
) -> Iterator[Deployment]:
    root = tmp_path / "deployment"
    root.mkdir()
    deployment = Deployment(root, site_files, environment, wait)
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.end()


def run_settings(settings: Mapping[str, object], **changes: object) -> list[str]:
    """Return settings as arguments of ``coordinator.sh run``."""
    merged = {**settings, "federation.min_clients": 2} | {k.replace("__", "."): v for k, v in changes.items()}
    return [f"{key}={value}" for key, value in merged.items()]


def start_training(deployment: Deployment, settings: Mapping[str, object], **changes: object) -> subprocess.Popen[str]:
    """Start ``coordinator.sh run`` and go on."""
    return subprocess.Popen(
        [str(COMMAND_FILES / "coordinator.sh"), "run", *run_settings(settings, **changes)],
        env=deployment.environments["coordinator"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_institutions_train_over_tls_with_keys_and_their_own_site_file_each(
    deployment: Deployment, settings: Mapping[str, object]
) -> None:
    done = deployment.call("coordinator", "run", *run_settings(settings))
    run = RunFolder(deployment.root / "run")
    assert "the run is complete" in done.stdout
    assert run.is_finished
    assert run.report_file.is_file()
    assert load_file(run.encoder / "model.safetensors")
    lines = run.read_metrics()
    assert [line["round"] for line in lines] == [0, 1, 2]
    assert [line["accepted"] for line in lines[1:]] == [["alpha", "beta"]] * 2
    assert all(line["bytes_up"] > 0 for line in lines[1:])
    assert not (run.path / "clients").exists(), "clients keep their state at home"
    for name in deployment.institutions:
        own = deployment.state(name) / name
        assert sorted(path.name for path in own.glob("*")) == ["chips", next(own.glob("run-*")).name]
        assert ClientMemory(own, int(next(own.glob("run-*")).name[4:], 16)).rounds() == [1, 2]
    members = deployment.call("coordinator", "members").stdout
    assert members.count("online") == 2


@pytest.mark.slow
def test_killed_supernode_comes_back_with_what_it_remembers(
    deployment: Deployment, settings: Mapping[str, object]
) -> None:
    run = RunFolder(deployment.root / "run")
    training = start_training(deployment, settings, run__rounds=4)
    deployment.wait(lambda: (run.checkpoints / "round-000001").is_dir() or training.poll() is not None, "round 1")
    deployment.kill("beta supernode")
    deployment.wait(lambda: _comes_back(deployment, "beta"), "the return of beta")
    output, _ = training.communicate()
    assert training.returncode == 0, output
    lines = run.read_metrics()[1:]
    assert lines[-1]["accepted"] == ["alpha", "beta"]
    assert lines[-1]["bytes_down"] < _encoder_bytes(run), "nobody needs a snapshot again"


@pytest.mark.slow
def test_run_survives_a_killed_superlink(deployment: Deployment, settings: Mapping[str, object]) -> None:
    run = RunFolder(deployment.root / "run")
    training = start_training(deployment, settings, run__rounds=3)
    deployment.wait(lambda: (run.checkpoints / "round-000001").is_dir() or training.poll() is not None, "round 1")
    deployment.kill("coordinator superlink")
    deployment.keep_running("coordinator", "superlink")
    output, _ = training.communicate()
    assert training.returncode == 0, output
    assert [line["accepted"] for line in run.read_metrics()[1:]] == [["alpha", "beta"]] * 3


@pytest.mark.slow
def test_killed_server_app_is_continued_by_the_next_run(deployment: Deployment, settings: Mapping[str, object]) -> None:
    run = RunFolder(deployment.root / "run")
    training = start_training(deployment, settings, run__rounds=3)
    deployment.wait(lambda: (run.checkpoints / "round-000001").is_dir() or training.poll() is not None, "round 1")
    deployment.kill("coordinator superexec")
    output, _ = training.communicate()
    assert training.returncode == 1, output
    assert "the run failed: " in output
    deployment.keep_running("coordinator", "superexec")
    done = deployment.call("coordinator", "run", *run_settings(settings, run__rounds=3))
    assert "after round " in done.stdout
    lines = run.read_metrics()[1:]
    assert [line["accepted"] for line in lines] == [["alpha", "beta"]] * 3
    assert lines[-1]["bytes_down"] < _encoder_bytes(run), "nobody needs a snapshot again"


@pytest.mark.slow
def test_institution_that_was_not_admitted_stays_out(deployment: Deployment) -> None:
    deployment.kill("beta supernode")
    (deployment.state("beta") / "key").rename(deployment.state("beta") / "admitted")
    deployment.call("beta", "key")
    deployment.keep_running("beta", "supernode")
    stranger = deployment.processes["beta supernode"]
    deployment.wait(lambda: stranger.poll() is not None, "the refusal")
    assert stranger.returncode != 0


def _encoder_bytes(run: RunFolder) -> int:
    """Return the bytes of the encoder in float32: two frames of 4 bits are fewer, a snapshot is
    more."""
    return (run.encoder / "model.safetensors").stat().st_size


def _comes_back(deployment: Deployment, name: str) -> bool:
    """Restart a SuperNode as a supervisor does: Flower refuses it until the old one's heartbeat has
    run out."""
    process = deployment.processes.get(f"{name} supernode")
    if process is None or process.poll() is not None:
        deployment.keep_running(name, "supernode")
    return deployment.log(f"{name}-supernode").count("SuperNode ID:") == 2
