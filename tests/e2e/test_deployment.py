"""`fedsense coordinator` and `fedsense institution` with real processes: TLS, keys, one site file
each, programs that die and come back."""

from __future__ import annotations

import base64
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from deployed import Deployment, command_line, run_settings
from safetensors.torch import load_file

from client_app.memory import ClientMemory
from fedsense_core.run_folder import RunFolder

pytestmark = pytest.mark.e2e


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


def test_two_institutions_train_over_tls_with_keys_and_their_own_site_file_each(
    deployment: Deployment, settings: Mapping[str, object]
) -> None:
    done = deployment.call("coordinator", "run", *run_settings(deployment, settings))
    run = RunFolder(deployment.run_folder)
    assert "the run is complete" in done.stdout
    assert run.is_finished
    assert run.report_file.is_file()
    assert load_file(run.encoder / "model.safetensors")
    lines = run.read_metrics()
    assert [line["round"] for line in lines] == [0, 1, 2]
    assert [line["accepted"] for line in lines[1:]] == [["alpha", "beta"]] * 2
    assert all(line["bytes_up"] > 0 for line in lines[1:])
    assert run.read_config()["aggregation"]["clip"] == "median", "bounded unless somebody says otherwise"
    assert not (run.path / "clients").exists(), "clients keep their state at home"
    for name in deployment.institutions:
        own = deployment.state(name) / name
        assert sorted(path.name for path in own.glob("*")) == ["chips", next(own.glob("run-*")).name]
        assert ClientMemory(own, int(next(own.glob("run-*")).name[4:], 16)).rounds() == [1, 2]
    assert deployment.call("coordinator", "members").stdout.count("online") == 2
    assert "the run is complete" in deployment.call("coordinator", "resume").stdout
    for who in ("coordinator", *deployment.institutions):
        shown = deployment.programs(who)
        assert len(shown) >= 4, "two programs, each below a supervisor"
        assert [secret for secret in secrets_of(deployment.state(who)) if secret in " ".join(shown.values())] == []
        deployment.processes[who].terminate()
        assert deployment.processes[who].wait() == 0
        assert [pid for pid, line in shown.items() if command_line(pid) == line] == [], "everything has ended"


@pytest.mark.slow
def test_killed_supernode_comes_back_by_itself_with_what_it_remembers(
    deployment: Deployment, settings: Mapping[str, object]
) -> None:
    run, training = start_training(deployment, settings, run__rounds=4)
    deployment.kill("beta", "flower-supernode")
    output, _ = training.communicate()
    assert training.returncode == 0, output
    lines = run.read_metrics()[1:]
    assert lines[-1]["accepted"] == ["alpha", "beta"]
    assert lines[-1]["bytes_down"] < encoder_bytes(run), "nobody needs a snapshot again"
    assert "supernode ended (signal 9). It is started again in 1 s" in deployment.log("beta")


@pytest.mark.slow
def test_run_survives_a_killed_superlink(deployment: Deployment, settings: Mapping[str, object]) -> None:
    run, training = start_training(deployment, settings, run__rounds=3)
    deployment.kill("coordinator", "flower-superlink")
    output, _ = training.communicate()
    assert training.returncode == 0, output
    assert [line["accepted"] for line in run.read_metrics()[1:]] == [["alpha", "beta"]] * 3


@pytest.mark.slow
def test_stopped_and_failed_runs_are_continued_with_their_own_settings(
    deployment: Deployment, settings: Mapping[str, object]
) -> None:
    run, training = start_training(deployment, settings, run__rounds=4)
    assert str(run.path) in deployment.call("coordinator", "stop").stdout
    output, _ = training.communicate()
    assert training.returncode == 3, output

    resumed = deployment.follow("resume", str(run.path))
    deployment.wait(lambda: len(list(run.checkpoints.glob("*"))) > 1 or resumed.poll() is not None, "another round")
    deployment.kill("coordinator", "flwr-serverapp")
    output, _ = resumed.communicate()
    assert resumed.returncode == 1, output
    assert "the run failed: " in output

    assert "after round " in deployment.call("coordinator", "resume").stdout
    lines = run.read_metrics()[1:]
    assert [line["accepted"] for line in lines] == [["alpha", "beta"]] * 4
    assert lines[-1]["bytes_down"] < encoder_bytes(run), "nobody needs a snapshot again"


@pytest.mark.slow
def test_institution_that_was_not_admitted_stays_out_and_is_told(deployment: Deployment) -> None:
    deployment.call("coordinator", "remove", "beta")
    deployment.processes["beta"].terminate()
    deployment.processes["beta"].wait()
    deployment.serve("beta")
    assert deployment.processes["beta"].wait() == 1
    assert "the coordinator does not know this institution's key" in deployment.log("beta")


def start_training(
    deployment: Deployment, settings: Mapping[str, object], **changes: object
) -> tuple[RunFolder, subprocess.Popen[str]]:
    """Start a run, wait for its first round, and return its folder and its command."""
    run = RunFolder(deployment.run_folder)
    training = deployment.follow("run", *run_settings(deployment, settings, **changes))
    deployment.wait(lambda: (run.checkpoints / "round-000001").is_dir() or training.poll() is not None, "round 1")
    return run, training


def encoder_bytes(run: RunFolder) -> int:
    """Return the bytes of the encoder in float32: two frames of 4 bits are fewer, a snapshot is
    more."""
    return (run.encoder / "model.safetensors").stat().st_size


def secrets_of(state: Path) -> list[str]:
    """Return keys and secrets of a folder as they could stand in a command line; none is readable
    by others."""
    files = [state / "superexec.secret", *state.rglob("*.key"), *state.glob("key")]
    assert [path for path in files if stat.S_IMODE(path.stat().st_mode) != 0o600] == []
    contents = [path.read_bytes() for path in files]
    lines = [line.decode() for content in contents[1:] for line in content.splitlines() if b"---" not in line]
    return [contents[0].hex(), base64.b64encode(contents[0]).decode(), *lines]
