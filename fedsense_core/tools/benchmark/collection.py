"""From the trials of a folder to the rows of a table: scores by seed and task, under every draw,
bytes and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedsense_core.errors import FedSenseError
from fedsense_core.run_folder.folder import Metrics, RunFolder, read_json
from fedsense_core.tools.benchmark.differences import Array, Pool, Sampled, drawn, group_draws
from fedsense_core.tools.benchmark.manifest import Manifest
from fedsense_core.tools.benchmark.matrix import NO_TRAFFIC, Matrix, Method, Task
from fedsense_core.tools.benchmark.trial_evaluation import current_results, run_folders
from fedsense_core.tools.benchmark.trials import Trial
from fedsense_core.tools.downstream.result import TaskResult
from fedsense_core.tools.reporting.flatness_section import Analysis

Results = Mapping[str, TaskResult]


@dataclass(frozen=True)
class Row:
    """One method at one compression; of ``standalone`` there are two."""

    method: Method
    compression: str
    label: str
    sampled: Sampled
    bytes_up: float | None
    """Mean over seeds, whole run, all clients; None where nothing travels."""
    bytes_down: float | None
    seconds: float | None
    """Of the run, mean over seeds; None where nothing is trained."""
    analyses: dict[int, Analysis] = field(default_factory=dict)
    """By seed, of trials that were analysed; none of ``standalone``, which has a model for each
    site."""

    @property
    def key(self) -> str:
        """``METHOD@COMPRESSION``, with ``:best`` for the best site alone."""
        return f"{self.method.name}@{self.compression}" + (":best" if self.label.endswith(BEST) else "")


BEST, MEAN = ", best site", ", mean of sites"


@dataclass(frozen=True)
class Collected:
    """All that the tables and plots show."""

    rows: list[Row]
    pool: Pool
    metrics: dict[str, str]
    """By task."""
    notes: dict[str, str]
    missing: list[str]
    """Trials that are not done."""
    sources: int
    """Versions of the code that made the trials."""


@dataclass(frozen=True)
class _Done:
    trial: Trial
    results: tuple[Results, ...]
    """Of each encoder."""
    bytes_up: int
    bytes_down: int
    seconds: float
    analysis: Analysis | None
    """None of ``standalone``."""


def collect(matrix: Matrix, trials: Sequence[Trial], manifest: Manifest) -> Collected:
    """Read every trial that is done. Raises FedSenseError where none is, or where test sets differ
    between trials."""
    entries = {name: task.definition for name, task in matrix.tasks.items()}
    done, missing = [], []
    for trial in trials:
        found = _read(trial, manifest, matrix.tasks) if not manifest.why_not_done(trial, entries) else None
        if found is None:
            missing.append(trial.name)
        else:
            done.append(found)
    if not done:
        raise FedSenseError(f"{manifest.folder} holds no finished trial of this matrix yet: run `fedsense benchmark`")
    first = done[0].results[0]
    groups = {name: first[name].evidence[0].groups for name in matrix.tasks}
    draws = {name: group_draws(_test_set(task), groups[name]) for name, task in matrix.tasks.items()}
    weights = np.array([task.weight for task in matrix.tasks.values()])
    pool = Pool(
        weights / weights.sum(),
        tuple(_test_set(task) for task in matrix.tasks.values()),
        tuple(len(groups[name]) for name in matrix.tasks),
    )
    rows = []
    for column in dict.fromkeys(one.trial.column for one in done):
        mine = [one for one in done if one.trial.column == column]
        sites = [[_scores(results, groups, draws) for results in one.results] for one in mine]
        if mine[0].trial.method.based_on == "standalone":
            rows.append(_row(mine, [_mean(scores) for scores in sites], MEAN))
            rows.append(_row(mine, [max(scores, key=lambda s: float(s[0] @ pool.weights_T)) for scores in sites], BEST))
        else:
            rows.append(_row(mine, [_mean(scores) for scores in sites], ""))
    return Collected(
        rows,
        pool,
        {name: first[name].metric for name in matrix.tasks},
        {name: first[name].note for name in matrix.tasks if first[name].note},
        missing,
        len({source for one in done for source in manifest.records[one.trial.name].source.split("+")}),
    )


def _test_set(task: Task) -> str:
    return f"{task.task}/{task.data}"


def _read(trial: Trial, manifest: Manifest, tasks: Mapping[str, Task]) -> _Done | None:
    """Return what a trial has; None where a folder of it was taken away."""
    folders = run_folders(manifest.trial_folder(trial))
    results = tuple(current_results(folder, tasks) for folder in folders)
    if not folders or any(len(found) < len(tasks) for found in results):
        return None
    lines = [line for folder in folders for line in _metrics(folder)]
    return _Done(
        trial,
        results,
        sum(line.get("bytes_up", 0) for line in lines),
        sum(line.get("bytes_down", 0) for line in lines),
        sum((line.get("seconds") or {}).get("total", 0.0) for line in lines),
        read_json(RunFolder(folders[0]).analysis_file) if trial.method.based_on != "standalone" else None,
    )


def _metrics(folder: Path) -> list[Metrics]:
    run = RunFolder(folder)
    return run.read_metrics() if run.metrics_file.exists() else []


def _scores(results: Results, groups: Mapping[str, tuple[str, ...]], draws: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return the scores of one encoder: (T,) as measured and (T, B) under each draw."""
    pairs = []
    for name, weights_BG in draws.items():
        if any(one.groups != groups[name] for one in results[name].evidence):
            raise FedSenseError(
                f"tasks.{name}: the groups of the test set differ between trials: evaluate all of them anew"
            )
        pairs.append(drawn(results[name].evidence, weights_BG))
    return np.array([point for point, _ in pairs]), np.array([values for _, values in pairs])


def _mean(scores: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    return np.mean([points for points, _ in scores], axis=0), np.mean([draws for _, draws in scores], axis=0)


def _row(mine: Sequence[_Done], scores: Sequence[tuple[Array, Array]], suffix: str) -> Row:
    method, compression = mine[0].trial.method, mine[0].trial.compression
    travels = any(one.bytes_up for one in mine) and compression != NO_TRAFFIC
    sampled = Sampled(
        tuple(one.trial.seed for one in mine),
        np.array([points for points, _ in scores]),
        np.array([draws for _, draws in scores]),
    )
    return Row(
        method,
        compression,
        method.title + suffix,
        sampled,
        float(np.mean([one.bytes_up for one in mine])) if travels else None,
        float(np.mean([one.bytes_down for one in mine])) if travels else None,
        None if method.untrained else float(np.mean([one.seconds for one in mine])),
        {one.trial.seed: one.analysis for one in mine if one.analysis is not None},
    )
