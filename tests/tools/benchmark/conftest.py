"""A benchmark whose trials were never run: results are made up, with known differences."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedsense_core.run_folder import RunFolder
from fedsense_core.run_folder.folder import write_json
from fedsense_core.tools.benchmark.manifest import Manifest
from fedsense_core.tools.benchmark.matrix import Matrix, Task, load_matrix
from fedsense_core.tools.benchmark.trial_evaluation import EVALUATED, RESULTS
from fedsense_core.tools.benchmark.trials import Trial, trials_of
from fedsense_core.tools.downstream.evidence import ConfusionEvidence
from fedsense_core.tools.downstream.result import TaskResult, save_results

GROUPS = 20
TEXT = """
    title = "Made up"
    seeds = [0, 1, 2]
    methods = [
        "fedsense", "fedavg", "standalone", "centralised",
        { name = "plus", preset = "fedsense-plus", label = "FedSense+", by_compression."1".uplink.codec = "trellis" },
    ]
    compare = ["fedavg", "plus@1"]

    [settings]
    run.rounds = 3
    train = { local_steps = 4 }

    [compressions."32"]
    uplink.codec = "none"
    downlink.codec = "none"

    [compressions."1"]
    uplink = { codec = "eden", bits = 1 }

    [tasks.scenes]
    task = "classification"
    head = "linear"

    [tasks.masks]
    task = "segmentation"
    head = "linear"
    weight = 3.0

    [controls.random]
    untrained = true
    label = "random weights"

    [controls.no-distillation]
    base = "fedsense"
    settings.distillation.kind = "none"
    compressions = ["32"]
"""
ACCURACY = {
    "fedsense": 0.7,
    "fedavg": 0.6,
    "plus": 0.75,
    "standalone": 0.5,
    "centralised": 0.8,
    "random": 0.3,
    "no-distillation": 0.65,
}


@pytest.fixture(scope="session")
def write_matrix(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a writer of the matrix, with texts replaced."""

    def write(*changes: tuple[str, str]) -> Path:
        text = textwrap.dedent(TEXT)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path_factory.mktemp("matrix") / "matrix.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="session")
def matrix(write_matrix: Callable[..., Path]) -> Matrix:
    return load_matrix(write_matrix())


def made_up(trial: Trial, task: str, entry: Task, more: float = 0.0) -> TaskResult:
    """Return a result whose accuracy is the method's, moved by the seed and by each group alike for
    all methods."""
    rng = np.random.default_rng([ord(letter) for letter in task])
    by_group = 0.1 * rng.normal(size=GROUPS)
    accuracy = np.clip(ACCURACY[trial.method.name] + more + 0.01 * trial.seed + by_group, 0, 1)
    counts = np.zeros((GROUPS, 2, 2))
    counts[:, 0, 0], counts[:, 0, 1] = 100 * accuracy, 100 * (1 - accuracy)
    groups = tuple(f"scene {i}" for i in range(GROUPS))
    evidence = ConfusionEvidence(groups, counts, "accuracy")
    score = {"accuracy": evidence.value(np.ones(GROUPS))}
    return TaskResult(
        entry.task, "made up", "frozen", entry.head, "accuracy", (score,), (evidence,), note="PROXY labels"
    )


@pytest.fixture(scope="session", name="fill")
def _fill() -> Callable[..., Manifest]:
    """Return ``fill``."""
    return fill


def fill(folder: Path, matrix: Matrix, only: str = "*") -> Manifest:
    """Write trials as if they had been run and evaluated."""
    manifest = Manifest.open(folder)
    tasks = {name: task.definition for name, task in matrix.tasks.items()}
    for trial in trials_of(matrix, only):
        manifest.begin(trial, tasks, "0123")
        alone = trial.method.name == "standalone"
        for number, name in enumerate(("alpha", "beta") if alone else (".",)):
            path = manifest.trial_folder(trial) / name
            (path / "encoder").mkdir(parents=True)
            save_results(
                path / RESULTS, [made_up(trial, task, entry, 0.05 * number) for task, entry in matrix.tasks.items()]
            )
            write_json(path / EVALUATED, tasks)
            if not trial.method.untrained:
                bytes_up = 1000 if trial.compression == "1" else 32000
                line = {"round": 1, "bytes_up": bytes_up, "bytes_down": 2 * bytes_up, "seconds": {"total": 5.0}}
                RunFolder(path).append_metrics(line)
        manifest.end(trial, True, "", 6.0)
    return manifest
