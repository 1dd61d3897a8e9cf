"""`fedsense benchmark`: a matrix of seconds, run for real, and its mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from federation import SITES, write_site
from typer.testing import CliRunner, Result

from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.benchmark.manifest import Manifest
from fedsense_core.tools.cli import app

runner = CliRunner()
MATRIX = """
title = "Tiny"
jobs = 2
seeds = [0]
methods = ["fedavg"]

[settings]
run = { rounds = 1, evaluate_every = 0, report = false }
federation = { sites = "{imagery}/sites", public = "{imagery}/public.toml", labelled = "" }
data = { chip_size = 16, view_size = 16 }
train = { local_steps = 1, batch_size = 4 }

[settings.model]
args = { layers = [1, 1, 1, 0], channels = [16, 16, 16, 16], norm_layer = "groupnorm1" }
projector = [32, 16]

[compressions."1"]
uplink = { codec = "eden", bits = 1 }
downlink = { codec = "eden", bits = 4 }

[tasks.scenes]
task = "classification"
head = "knn"

[controls.random]
untrained = true
"""


@pytest.fixture
def benchmark(tmp_path: Path) -> Callable[..., Result]:
    """Return a caller of the command on the tiny matrix, with texts replaced."""
    for seed, name in enumerate(SITES):
        write_site(tmp_path / "sites", name, seed)
    write_site(tmp_path, "public", 99)

    def call(*options: str, changes: tuple[tuple[str, str], ...] = (), imagery: Path | None = tmp_path) -> Result:
        text = MATRIX
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "tiny.toml").write_text(text)
        given = ["--data", f"imagery={imagery}"] if imagery else []
        return runner.invoke(
            app, ["benchmark", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "out"), *given, *options]
        )

    return call


def test_a_matrix_is_run_once_evaluated_pruned_and_shown(benchmark: Callable[..., Result], tmp_path: Path) -> None:
    listed = benchmark("--dry-run")
    assert listed.exit_code == 0, listed.output
    assert "fedavg@1/seed0: new" in listed.stdout
    assert not (tmp_path / "out").exists()

    done = benchmark()
    out = tmp_path / "out"
    assert done.exit_code == 0, done.output + "".join(path.read_text() for path in out.glob("logs/*"))
    run = RunFolder(out / "trials" / "fedavg@1" / "seed0")
    assert run.is_finished
    assert sorted(path.name for path in run.path.iterdir()) == sorted(
        ["config.json", "encoder", "finished.json", "evaluated.json", "metrics.jsonl", "results.npz"]
    )
    summary = json.loads((out / "summary.json").read_text())
    assert {row["key"] for row in summary["rows"]} == {"fedavg@1", "random@any"}
    assert all(0 < row["mean"]["scenes"] < 1 for row in summary["rows"])
    assert "random" in (out / "table.md").read_text()

    again = benchmark()
    assert again.exit_code == 0
    assert "2 trials, 0 to do" in again.stdout
    (out / "table.md").unlink()
    assert benchmark("--tables-only").exit_code == 0
    assert (out / "table.md").exists()


def test_a_trial_that_cannot_be_planned_fails_and_is_tried_again(
    benchmark: Callable[..., Result], tmp_path: Path
) -> None:
    changes = (("chip_size = 16", 'bands = ["swir_1"], chip_size = 16'),)
    failed = benchmark("--only", "fedavg@*", changes=changes)
    assert failed.exit_code == 1, failed.output
    (record,) = Manifest.open(tmp_path / "out").records.values()
    assert record.state == "failed"
    assert "no band 'swir_1'" in record.reason
    assert "failed: " in benchmark("--dry-run", changes=changes).stdout


@pytest.mark.slow
def test_a_trial_that_fails_is_recorded_with_its_reason(benchmark: Callable[..., Result], tmp_path: Path) -> None:
    changes = (("chip_size = 16", "chip_size = 999"),)
    failed = benchmark("--only", "fedavg@*", changes=changes)
    assert failed.exit_code == 1, failed.output
    assert "1 trials failed" in failed.stdout
    (record,) = Manifest.open(tmp_path / "out").records.values()
    assert record.state == "failed"
    assert "public" in record.reason
    assert "fedavg@1-seed0.log" in record.reason


def test_no_time_starts_nothing_and_says_what_is_left(benchmark: Callable[..., Result]) -> None:
    stopped = benchmark("--limit-minutes", "0")
    assert "2 trials are left" in stopped.stdout
    assert "no tables: " in stopped.stdout
    assert stopped.exit_code == 3


@pytest.mark.parametrize(
    ("options", "changes", "words"),
    [
        (["--only", "fedprox@*"], (), "fits no trial"),
        (["--data", "imagery"], (), "NAME=PATH"),
        (["--data", "imagery=/nowhere/at/all"], (), "/nowhere/at/all/sites is not there"),
        ([], (('head = "knn"', 'heat = "knn"'),), "tasks.scenes"),
        (["--tables-only"], (), "no finished trial"),
        (
            ["--jobs", "2"],
            (("jobs = 2", 'engine = "simulation"'), ("args", "#args"), ("projector", "#")),
            "one trial at",
        ),
    ],
)
def test_a_mistake_ends_with_2_and_one_readable_line(
    benchmark: Callable[..., Result],
    options: list[str],
    changes: tuple[tuple[str, str], ...],
    words: str,
) -> None:
    result = benchmark(*options, changes=changes)
    assert result.exit_code == 2, result.output
    assert words in result.stderr.replace("\n", "")
    assert "Traceback" not in result.output


def test_a_path_that_is_not_given_is_asked_for(benchmark: Callable[..., Result]) -> None:
    result = benchmark(imagery=None)
    assert result.exit_code == 2
    assert "where is imagery? Give --data imagery=PATH" in result.stderr
