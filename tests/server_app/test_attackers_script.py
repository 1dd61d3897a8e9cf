from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "docs/experiments"
SMALL = ("run.rounds=2", "run.evaluate_every=2", "train.local_steps=1", "train.batch_size=8")


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def attackers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("attackers")


def test_study_goes_on_where_it_stopped_and_writes_its_table(tmp_path: Path, attackers: ModuleType) -> None:
    trials = list(attackers.trials([0]))
    assert len(trials) == len(set(trials)) == 4 * 6 + 5
    for trial in trials[1:]:  # as if they were done
        (tmp_path / f"{trial.name}.json").write_text(
            json.dumps({"loss": 2.2, "linear_accuracy": 0.25, "knn_accuracy": 0.2})
        )
    result = run("attackers.py", "--out", str(tmp_path), "--seeds", "0", "--set", *SMALL)
    assert result.returncode == 0, result.stderr
    honest = json.loads((tmp_path / f"{trials[0].name}.json").read_text())
    assert honest["loss"] > 0
    above = 100 * (2.2 / honest["loss"] - 1)
    table = (tmp_path / "attackers.md").read_text()
    assert f"| 20 % | clip | {above:+.1f} % |" in table
    assert table.count("\n") == 2 + 4 * 5 + 4
    assert not list(tmp_path.glob("*.run"))


def test_attackers_turn_their_updates_around_inside_the_limit(tmp_path: Path, attackers: ModuleType) -> None:
    attackers.SETTINGS.update({key: json.loads(value) for key, value in (one.split("=") for one in SMALL)})
    attackers.SETTINGS["federation.labelled"] = ""
    trial = attackers.Trial(0, 2, "clip")
    attackers.outcome(trial, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    last = lines[-1]
    assert len(last["accepted"]) == attackers.CLIENTS
    assert {"client-000", "client-001"} <= last["clipped"].keys()
    assert {"client-000", "client-001"} & {alarm["site"] for alarm in last["alarms"]}


def test_alarms_are_as_often_as_promised() -> None:
    result = run("alarm_rates.py", "--seeds", "0", "--rounds", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(" of ") >= 12


def test_clip_is_timed_for_each_kind_of_frame() -> None:
    result = run("clip_time.py", "--parameters", "100000", "--repetitions", "2")
    assert [line.split(" | ")[0] for line in result.stdout.splitlines()[4:]] == [
        "| eden, 1 bit",
        "| trellis, 1 bit",
        "| float32 updates",
        "| float32 models",
    ], result.stderr
