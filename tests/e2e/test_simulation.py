"""`fedsense run` as a user starts it: real SuperLink, real Ray, real exit status."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fedsense_core.run_folder import RunFolder

pytestmark = pytest.mark.e2e


@pytest.fixture
def fedsense(
    site_files: Path, settings: Mapping[str, object], environment: dict[str, str], tmp_path: Path
) -> Callable[..., subprocess.Popen[str]]:
    """Return a starter of ``fedsense run`` on two sites."""

    def start(*options: str, **changes: object) -> subprocess.Popen[str]:
        command = ["fedsense", "run", "--sites", str(site_files), *options]
        for key, value in {**settings, **changes}.items():
            command += ["--set", f"{key.replace('__', '.')}={value}"]
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return start


def is_gone(pid: int) -> bool:
    """Return whether a process has ended; a zombie that nobody collects has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def children(pid: int) -> list[int]:
    """Return process ids of the direct children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_killed_run_leaves_no_process_and_the_same_command_completes_its_folder(
    fedsense: Callable[..., subprocess.Popen[str]], tmp_path: Path, wait: Callable[..., None]
) -> None:
    run = RunFolder(tmp_path / "runs" / "fedsense-seed0")
    killed = fedsense()
    wait(lambda: (run.checkpoints / "round-000001").is_dir() or killed.poll() is not None, "the first round")
    started = children(killed.pid)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert started
    wait(lambda: all(map(is_gone, started)), "the end of what the killed run had started", seconds=30)
    assert not run.is_finished

    continued = fedsense()
    output, _ = continued.communicate()
    assert continued.returncode == 0, output
    assert "after round 1" in output
    assert "round 2/2" in output
    assert str(run.report_file) in output
    assert [line["round"] for line in run.read_metrics()] == [0, 1, 2]
    assert [line["accepted"] for line in run.read_metrics()[1:]] == [["alpha", "beta"]] * 2
    assert run.is_finished
    assert "<html" in run.report_file.read_text(encoding="utf-8")
    assert load_file(run.encoder / "model.safetensors")
    assert (run.checkpoints / "round-000002").is_dir()
    assert "Starting Flower Simulation" in (run.path / "flower.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_run_that_fails_in_the_server_ends_with_1_and_says_why(
    fedsense: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    failed = fedsense(federation__public=tmp_path / "nowhere.toml")
    output, _ = failed.communicate()
    assert failed.returncode == 1, output
    assert "error: " in output
    assert "nowhere.toml: cannot be read" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_standalone_trains_every_site_alone_in_its_own_folder(
    fedsense: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    alone = fedsense("--preset", "standalone", "--out", "alone", run__rounds=1, run__report="false")
    output, _ = alone.communicate()
    assert alone.returncode == 0, output
    for site in ("alpha", "beta"):
        run = RunFolder(tmp_path / "alone" / site)
        assert run.is_finished
        assert [line["accepted"] for line in run.read_metrics()[1:]] == [[site]]


@pytest.mark.slow
def test_centralised_trains_all_imagery_on_one_node(
    fedsense: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    pooled = fedsense("--preset", "centralised", "--out", "pooled", run__rounds=1, run__report="false")
    output, _ = pooled.communicate()
    assert pooled.returncode == 0, output
    assert [line["accepted"] for line in RunFolder(tmp_path / "pooled").read_metrics()[1:]] == [["pooled"]]
