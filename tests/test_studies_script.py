from __future__ import annotations

import copy
import importlib
import io
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from fedsense_core.config import Config, resolve
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.data.partition.partition import client_sizes
from fedsense_core.data.sites.locations import sample_sites
from fedsense_core.tools.benchmark.trials import Trial, trials_of

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent.parent / "docs" / "experiments"
CODED = {f"uplink.{key}" for key in ("codec", "bits", "feedback")} | {"downlink.codec"}
CHANGING = {
    "skew": {"partition.alpha"},
    "clients": {"partition.kind", "partition.clients", "train.local_steps"},
    "local-steps": {"train.local_steps", "distillation.steps", "run.rounds"},
    "bits": CODED,
}


@pytest.fixture
def studies(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("studies")


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("studies_output")


def runs(studies: ModuleType, name: str) -> dict[str, Config]:
    """Return the configuration of every trial that trains, by column."""
    matrix = studies.matrix_of(studies.STUDIES[name], 1, True)
    return {trial.column: config_of(trial) for trial in trials_of(matrix) if not trial.method.untrained}


def config_of(trial: Trial) -> Config:
    return resolve({**trial.settings, "preset": trial.method.based_on})


@pytest.mark.parametrize("name", CHANGING)
def test_along_an_axis_nothing_changes_but_what_the_study_is_about(studies: ModuleType, name: str) -> None:
    matrix = studies.matrix_of(studies.STUDIES[name], 2, True)
    trials = [trial for trial in trials_of(matrix) if not trial.method.untrained]
    assert {trial.seed for trial in trials} == {0, 1}
    changing: set[str] = set()
    for method in {trial.method.name for trial in trials}:
        found = [trial.resolved() for trial in trials if trial.method.name == method]
        changing |= {key for key in found[0] if len({str(settings[key]) for settings in found}) > 1}
    assert changing == CHANGING[name] | {"run.seed"}
    assert {method.name for method in matrix.all_methods if method.untrained} == {"random"}


def test_every_axis_has_its_values(studies: ModuleType) -> None:
    shipped = ("fedavg", "fedavg-public", "fedsense")
    skew = {(column.split("@")[0], config.partition.alpha) for column, config in runs(studies, "skew").items()}
    assert skew == {(method, alpha) for method in shipped for alpha in (0.05, 0.2, 1.0, 10.0)}
    clients = {
        (column.split("@")[0], config.partition.kind, config.partition.clients)
        for column, config in runs(studies, "clients").items()
    }
    counts = (2, 4, 8, 16, 32, 64)
    assert clients == {(m, kind, count) for m in shipped for kind in ("iid", "dirichlet") for count in counts}
    steps = {(column.split("@")[0], c.train.local_steps) for column, c in runs(studies, "local-steps").items()}
    assert steps == {(method, count) for method in shipped for count in (1, 5, 10, 20, 50)}


def test_the_total_of_steps_is_the_same_at_every_value(studies: ModuleType) -> None:
    local = runs(studies, "local-steps").values()
    assert {config.total_steps for config in local} == {studies.LOCAL_TOTAL}
    assert {config.run.rounds * config.distillation.steps for config in local} == {studies.LOCAL_TOTAL}
    clients = runs(studies, "clients").values()
    assert {config.partition.clients * config.total_steps for config in clients} == {
        studies.CLIENT_ROUNDS * studies.CLIENT_STEPS
    }


def test_the_smallest_share_of_every_study_fills_a_batch(studies: ModuleType) -> None:
    for name in ("skew", "clients"):
        configs = list(runs(studies, name).values())
        data = configs[0].data
        chips = sum(len(open_chips(load_site(path), data.bands, data.chip_size, None)) for path in sample_sites())
        for config in configs:
            assert client_sizes(chips, config.partition.clients, config.partition.tail).min() >= config.train.batch_size


def test_the_bits_are_those_that_the_axis_says(studies: ModuleType) -> None:
    found = {
        column: (c.uplink.codec, c.uplink.bits, c.prediction_in_use, c.downlink.codec, c.downlink.bits)
        for column, c in runs(studies, "bits").items()
    }
    expected: dict[str, Any] = {
        f"{method}@{bits}": (codec, bits, method == "trellis", codec, 4)
        for method, codec, known in (("fedsense", "eden", (1, 2, 3, 4, 8)), ("trellis", "trellis", (1, 2, 3, 4)))
        for bits in known
    }
    assert {column: found[column] for column in expected} == expected
    rest = {column: (row[0], row[2], row[3]) for column, row in found.items() if column not in expected}
    assert rest == {
        "fedsense@32": ("none", False, "eden"),
        "trellis@32": ("none", False, "trellis"),
        "fedsense@full": ("none", False, "none"),
        "fedavg@full": ("none", False, "none"),
    }


def test_tasks_without_uc_merced_weigh_alike(studies: ModuleType) -> None:
    with_it = studies.matrix_of(studies.STUDIES["skew"], 1, True).tasks
    assert {name: task.weight for name, task in with_it.items()} == {"ucmerced": 0.5, "scenes": 0.5, "segments": 1.0}
    without = studies.matrix_of(studies.STUDIES["skew"], 1, False).tasks
    assert {name: task.weight for name, task in without.items()} == {"scenes": 1.0, "segments": 1.0}


def row(method: str, compression: str, scores: list[float], up: float | None = 2e6) -> dict[str, Any]:
    deviation = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    mean = float(np.mean(scores))
    return {
        "key": f"{method}@{compression}",
        "label": f"the {method}",
        "method": method,
        "compression": compression,
        "seeds": list(range(len(scores))),
        "mean": {"scenes": mean},
        "deviation": {"scenes": deviation},
        "pooled": mean,
        "pooled_deviation": deviation,
        "bytes_up": up,
        "bytes_down": up,
    }


@pytest.fixture
def summary() -> dict[str, Any]:
    rows = [row("fedavg", compression, [0.5, 0.6]) for compression in ("a-2", "b-2", "full")]
    rows += [
        row("mine", compression, scores)
        for compression, scores in (("a-2", [0.7, 0.8]), ("a-4", [0.9]), ("b-2", [0.6, 0.7]))
    ]
    difference = {"mean": 20.0, "low": 15.0, "high": 25.0}
    return {
        "title": "Made up",
        "tasks": {"scenes": {"label": "land cover", "metric": "macro F1"}},
        "rows": [*rows, row("random", "any", [0.25, 0.35], None)],
        "comparisons": [
            {
                "label": "the fedavg",
                "rows": [{"key": "mine@a-2", "pooled": difference}, {"key": "random@any", "pooled": difference}],
            }
        ],
        "missing": ["mine@b-4/seed0"],
    }


def points_of(output: ModuleType) -> list[Any]:
    values = [(f"{part}-{value}", value, f"part {part}") for part in "ab" for value in (2, 4)]
    return [output.Point(compression, {}, value, part) for compression, value, part in values]


def test_the_table_has_a_line_for_each_value_and_method(output: ModuleType, summary: dict[str, Any]) -> None:
    text = output.table(summary, [*points_of(output), output.Point("full", {}, None, "part a", "in full")], "clients")
    head = "| split | clients | method | land cover, macro F1 | pooled | less the fedavg | seeds | up | down |"
    assert text.splitlines() == [
        head,
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| part a | 2 | the fedavg | 55.0 ± 7.1 | 55.0 ± 7.1 |  | 2 | 2.00 MB | 2.00 MB |",
        "| part a | 2 | the mine | 75.0 ± 7.1 | 75.0 ± 7.1 | +20.00 [+15.00, +25.00] | 2 | 2.00 MB | 2.00 MB |",
        "| part a | 4 | the mine | 90.0 | 90.0 |  | 1 | 2.00 MB | 2.00 MB |",
        "| part b | 2 | the fedavg | 55.0 ± 7.1 | 55.0 ± 7.1 |  | 2 | 2.00 MB | 2.00 MB |",
        "| part b | 2 | the mine | 65.0 ± 7.1 | 65.0 ± 7.1 |  | 2 | 2.00 MB | 2.00 MB |",
        "| part a | in full | the fedavg | 55.0 ± 7.1 | 55.0 ± 7.1 |  | 2 | 2.00 MB | 2.00 MB |",
        "|  | – | the random | 30.0 ± 7.1 | 30.0 ± 7.1 |  | 2 | – | – |",
        "",
        "**Not finished**: 1 trials are missing.",
    ]


def test_bars_are_standard_errors_over_seeds(output: ModuleType) -> None:
    assert output.score(row("mine", "2", [0.7, 0.8]), "scenes") == pytest.approx((75.0, 5.0))
    assert output.score(row("mine", "2", [0.7]), "pooled") == pytest.approx((70.0, 0.0))


def test_the_plot_is_the_same_for_the_same_metrics_and_shows_each_of_them(
    output: ModuleType, summary: dict[str, Any], tmp_path: Path
) -> None:
    points = [*points_of(output), output.Point("full", {}, None, "part b")]
    paths = output.write_study(summary, points, "clients", tmp_path / "made")
    assert [path.name for path in paths] == ["made.md", "made.png"]
    drawn = paths[1].read_bytes()
    assert output.plot(summary, points, "clients") == drawn
    height, width = matplotlib.image.imread(io.BytesIO(drawn)).shape[:2]
    assert (width, height) == (930, 975)  # two panels wide, two parts high
    for index in (0, 2, 3, 6):  # a reference, a level, a point, random weights
        other = copy.deepcopy(summary)
        other["rows"][index]["pooled"] += 0.05
        assert output.plot(other, points, "clients") != drawn, summary["rows"][index]["key"]


def test_what_is_wrong_is_said_before_anything_starts(
    studies: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*words: str) -> str:
        assert studies.main(["skew", "--out", str(tmp_path), *words]) == studies.CANNOT_START
        return capsys.readouterr().err

    assert "a study reads ucmerced alone" in error("--data", "eurosat=/somewhere")
    assert "is not of the form NAME=PATH" in error("--data", "ucmerced")
    assert "holds no finished trial" in error("--tables-only")
    assert "none is not there" in error("--data", f"ucmerced={tmp_path / 'none'}")
