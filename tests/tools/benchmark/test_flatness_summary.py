"""Flatness of the trials that were analysed, beside their scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsense_core.run_folder import RunFolder
from fedsense_core.run_folder.folder import write_json
from fedsense_core.tools.benchmark.benchmark_page import write_results
from fedsense_core.tools.benchmark.collection import collect
from fedsense_core.tools.benchmark.flatness_summary import flatness_row, flatness_tables, ratio
from fedsense_core.tools.benchmark.manifest import Manifest
from fedsense_core.tools.benchmark.matrix import Matrix
from fedsense_core.tools.benchmark.summary import Summary, summarise
from fedsense_core.tools.benchmark.trials import trials_of


def analysis(curvature: float, **changes: Any) -> dict[str, Any]:
    """Return what an analysis would have found; the loss rises with the curvature."""
    found: dict[str, Any] = {
        "format": 1,
        "settings": {"radii": [0.001, 0.01], "device": "cpu"},
        "loss": {"value": 2.0},
        "hessian": {"largest": {"value": curvature, "converged": True}},
        "sam": {"relative_radius": [0.001, 0.01], "sharpness": [curvature / 100, curvature / 10]},
        "noise": {"sigma": [0.1], "sharpness": [-0.01]},
        "paths": {"mean_barrier": None},
        "cka": None,
        "rounds": [{"drift": None, "cosine": 0.5}, {"drift": 2.0, "cosine": 0.7}, {"drift": 4.0, "cosine": 0.9}],
    }
    return found | changes


@pytest.fixture
def analysed(tmp_path: Path, matrix: Matrix, fill: Callable[..., Manifest]) -> Summary:
    """One method is half, half and a quarter as curved as another; one at another compression;
    others without analysis."""
    manifest = fill(tmp_path, matrix, "*")
    curved = {"fedavg@32": (8.0, 4.0, 8.0), "fedsense@32": (4.0, 2.0, 2.0), "fedsense@1": (1.0, 1.0, 1.0)}
    for trial in trials_of(matrix):
        folder = manifest.trial_folder(trial)
        if trial.column in curved:
            write_json(RunFolder(folder).analysis_file, analysis(curved[trial.column][trial.seed]))
        if trial.method.name == "standalone":
            for site in ("alpha", "beta"):
                write_json(RunFolder(folder / site).analysis_file, analysis(3.0))
    return summarise(matrix, collect(matrix, trials_of(matrix), manifest))


def test_ratios_are_paired_by_seed(analysed: Summary) -> None:
    rows = {row["key"]: row["flatness"] for row in analysed["rows"]}
    assert rows["plus@32"] is None
    assert rows["standalone@any"] is None, "a model for each site is no model of the method"
    assert rows["fedsense@32"]["values"]["λ max"] == [4.0, 2.0, 2.0]
    assert rows["fedavg@32"]["values"]["drift"] == [3.0] * 3, "round 1 has none"
    one, other = rows["fedsense@32"], rows["fedavg@32"]
    assert ratio(one, other, "λ max") == ratio(one, other, "SAM, 1 %") == [0.5, 0.5, 0.25]
    assert ratio(one, other, "barrier") == [], "not measured"
    assert ratio(one, other, "noise, 10 %") == [], "below zero: a ratio would say nothing"
    assert ratio(one, other, "of another recipe") == []
    assert ratio({**one, "seeds": [7, 8, 2]}, other, "λ max") == [0.25], "one seed in common"


def test_analyses_of_other_losses_or_options_give_no_ratio() -> None:
    plain, other = (
        flatness_row({0: analysis(2.0), 1: analysis(4.0, settings=settings)})
        for settings in ({"radii": [0.001, 0.01], "device": "cuda"}, {"radii": [0.001, 0.02]})
    )
    assert ratio(plain, plain, "λ max") == [1.0, 1.0]
    assert ratio(other, plain, "λ max") == [1.0], "seed 1 was measured otherwise"
    elsewhere = flatness_row({0: analysis(2.0, sam={"relative_radius": [0.02], "sharpness": [1.0]}), 1: analysis(2.0)})
    assert elsewhere["values"]["SAM, 2 %"] == [1.0, None], "no seed hides what another one has"
    assert elsewhere["values"]["SAM, 1 %"] == [None, 0.2]


def test_an_eigenvalue_that_has_not_converged_is_shown_as_a_bound() -> None:
    early = analysis(2.0, hessian={"largest": {"value": 2.0, "converged": False}})
    row = {"key": "a@32", "label": "a", "compression": "32", "flatness": flatness_row({0: early})}
    ((_, lines),) = flatness_tables([row], [])
    assert lines[1][:5] == ["a", "32", "1", "2", "≥ 2"]


def test_tables_and_page_show_what_was_analysed_and_nothing_where_nothing_was(
    analysed: Summary, tmp_path: Path, matrix: Matrix, fill: Callable[..., Manifest]
) -> None:
    table, _, page, _ = write_results(tmp_path, analysed)
    text = table.read_text(encoding="utf-8")
    assert "| fedsense | 32 | 3 | 2 ± 0 | 2.67 ± 1.2 |" in text
    (ratios,) = text.split("over those of fedavg at compression 32, paired by seed\n")[1:]
    assert "| fedsense | 32 | 3 | 1.00 (1.00 to 1.00) | 0.40 (0.25 to 0.50) |" in ratios
    assert "| fedsense | 1 |" not in ratios, "at the same compression"
    assert "0.40 (0.25 to 0.50)" in page.read_text(encoding="utf-8")
    plain = fill(tmp_path / "plain", matrix, "fedavg@32/*")
    without = summarise(matrix, collect(matrix, trials_of(matrix), plain))
    assert "Flatness" not in write_results(tmp_path / "plain", without)[0].read_text(encoding="utf-8")
