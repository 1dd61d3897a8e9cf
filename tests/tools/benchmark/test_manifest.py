"""What is done stays done, and what has changed is done again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsense_core.errors import CheckpointError
from fedsense_core.tools.benchmark.manifest import Manifest
from fedsense_core.tools.benchmark.matrix import Matrix, load_matrix
from fedsense_core.tools.benchmark.trials import trials_of


def reasons(folder: Path, matrix: Matrix) -> dict[str, str]:
    manifest, tasks = Manifest.open(folder), {name: task.definition for name, task in matrix.tasks.items()}
    found = {trial.name: manifest.why_not_done(trial, tasks) for trial in trials_of(matrix, "*/seed0")}
    return {name: why for name, why in found.items() if why}


def test_a_new_trial_a_started_one_and_a_failed_one_are_left(tmp_path: Path, matrix: Matrix) -> None:
    manifest, tasks = Manifest.open(tmp_path), {name: task.definition for name, task in matrix.tasks.items()}
    one, two, three, *rest = trials_of(matrix, "*/seed0")
    for trial in (one, two, three):
        manifest.begin(trial, tasks, "0123")
    manifest.end(two, False, "no memory", 3.0)
    manifest.end(three, True, "", 4.0)
    manifest.trial_folder(three).mkdir(parents=True)
    left = reasons(tmp_path, matrix)
    assert left == {one.name: "not finished", two.name: "failed: no memory", **{trial.name: "new" for trial in rest}}


def test_changed_settings_are_run_anew_from_nothing(
    tmp_path: Path, fill: Callable[..., Manifest], write_matrix: Callable[..., Path], matrix: Matrix
) -> None:
    manifest = fill(tmp_path / "out", matrix, "*/seed0")
    changed = load_matrix(write_matrix(('settings.distillation.kind = "none"', 'settings.distillation.kind = "self"')))
    left = reasons(tmp_path / "out", changed)
    assert left == {"no-distillation@32/seed0": "changed: distillation.kind was 'none', is 'self'"}
    (trial,) = trials_of(changed, "no-distillation@32/seed0")
    manifest.begin(trial, {}, "0123")
    assert not manifest.trial_folder(trial).exists()


def test_a_changed_task_is_evaluated_anew_and_keeps_the_runs(
    tmp_path: Path, fill: Callable[..., Manifest], write_matrix: Callable[..., Path], matrix: Matrix
) -> None:
    manifest = fill(tmp_path / "out", matrix, "*/seed0")
    changed = load_matrix(write_matrix(("weight = 3.0", "weight = 3.0\nmost_steps = 7")))
    left = reasons(tmp_path / "out", changed)
    assert set(left.values()) == {"to be evaluated: masks"}
    trial = trials_of(changed)[0]
    manifest.begin(trial, {name: task.definition for name, task in changed.tasks.items()}, "0123")
    assert (manifest.trial_folder(trial) / "encoder").is_dir()


def test_weights_labels_and_tasks_taken_out_change_no_trial(
    tmp_path: Path, fill: Callable[..., Manifest], write_matrix: Callable[..., Path], matrix: Matrix
) -> None:
    fill(tmp_path / "out", matrix, "*/seed0")
    without = ('\n[tasks.masks]\ntask = "segmentation"\nhead = "linear"\nweight = 3.0\n', "\n")
    assert reasons(tmp_path / "out", load_matrix(write_matrix(without))) == {}
    assert reasons(tmp_path / "out", load_matrix(write_matrix(("weight = 3.0", "weight = 2.0")))) == {}


def test_a_trial_whose_folder_was_deleted_is_run_again(
    tmp_path: Path, fill: Callable[..., Manifest], matrix: Matrix
) -> None:
    manifest = fill(tmp_path / "out", matrix, "*/seed0")
    (trial,) = trials_of(matrix, "fedavg@1/seed0")
    shutil.rmtree(manifest.trial_folder(trial))
    assert reasons(tmp_path / "out", matrix) == {"fedavg@1/seed0": "its folder is gone"}


def test_the_quorum_changes_a_trial_and_what_only_waits_does_not(
    tmp_path: Path, fill: Callable[..., Manifest], write_matrix: Callable[..., Path], matrix: Matrix
) -> None:
    fill(tmp_path / "out", matrix, "*/seed0")
    waits = load_matrix(write_matrix(("run.rounds = 3", "run.rounds = 3\nfederation.deadline_s = 9.0")))
    assert reasons(tmp_path / "out", waits) == {}
    more = load_matrix(write_matrix(("run.rounds = 3", "run.rounds = 3\nfederation.quorum = 2")))
    assert set(reasons(tmp_path / "out", more).values()) == {"changed: federation.quorum was 1, is 2"}


def test_a_trial_that_another_version_goes_on_with_remembers_both(tmp_path: Path, matrix: Matrix) -> None:
    manifest = Manifest.open(tmp_path)
    (trial,) = trials_of(matrix, "fedavg@1/seed0")
    manifest.begin(trial, {}, "old")
    manifest.begin(trial, {}, "new")
    assert manifest.records[trial.name].source == "new", "nothing of the old one is there"
    manifest.trial_folder(trial).mkdir(parents=True)
    for source in ("newer", "new"):
        manifest.begin(trial, {}, source)
    assert Manifest.open(tmp_path).records[trial.name].source == "new+newer"


def test_a_folder_of_an_earlier_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 1, "cells": {}}')
    with pytest.raises(CheckpointError, match=r"has format 1, .* 2.*--out"):
        Manifest.open(tmp_path)


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        Manifest.open(tmp_path)
