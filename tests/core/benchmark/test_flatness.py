"""Flatness of the cells that were analysed, beside their scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsense_core.benchmark.cells import cells_of
from fedsense_core.benchmark.flatness import ratio
from fedsense_core.benchmark.gathering import gather
from fedsense_core.benchmark.manifest import Manifest
from fedsense_core.benchmark.matrix import Matrix
from fedsense_core.benchmark.page import write_results
from fedsense_core.benchmark.summary import Summary, summarise
from fedsense_core.reporting import RunFolder
from fedsense_core.reporting.run_folder import write_json


def analysis(curvature: float) -> dict[str, Any]:
    """Return what an analysis would have found; the loss rises with the curvature."""
    return {
        "loss": {"value": 2.0},
        "hessian": {"largest": {"value": curvature}},
        "sam": {"relative_radius": [0.001, 0.01], "sharpness": [curvature / 100, curvature / 10]},
        "noise": {"sigma": [0.1], "sharpness": [-0.01]},
        "paths": {"mean_barrier": None},
        "cka": None,
        "rounds": [{"drift": None, "cosine": 0.5}, {"drift": 2.0, "cosine": 0.7}, {"drift": 4.0, "cosine": 0.9}],
    }


@pytest.fixture
def analysed(tmp_path: Path, matrix: Matrix, fill: Callable[..., Manifest]) -> Summary:
    """Two methods, the curvature of one is that of the other times 1/2, 1/2 and 1/4, and a third without analysis."""
    manifest = fill(tmp_path, matrix, "*@32/*")
    for name, curvatures in (("fedavg", (8.0, 4.0, 8.0)), ("fedsense", (4.0, 2.0, 2.0))):
        for cell in cells_of(matrix, f"{name}@32"):
            write_json(RunFolder(manifest.cell_folder(cell)).analysis_file, analysis(curvatures[cell.seed]))
    return summarise(matrix, gather(matrix, cells_of(matrix), manifest))


def test_ratios_are_paired_by_seed(analysed: Summary) -> None:
    rows = {row["key"]: row["flatness"] for row in analysed["rows"]}
    assert rows["plus@32"] is None
    assert rows["fedsense@32"]["values"]["λ max"] == [4.0, 2.0, 2.0]
    assert rows["fedavg@32"]["values"]["drift"] == [3.0] * 3, "round 1 has none"
    one, other = rows["fedsense@32"], rows["fedavg@32"]
    assert ratio(one, other, "λ max") == pytest.approx((2 ** (-4 / 3), 0.25, 0.5))
    assert ratio(one, other, "SAM, 1 %") == pytest.approx((2 ** (-4 / 3), 0.25, 0.5))
    assert ratio(one, other, "barrier") is None, "not measured"
    assert ratio(one, other, "noise, 10 %") is None, "below zero: a ratio would say nothing"
    assert ratio({**one, "seeds": [7, 8, 9]}, other, "λ max") is None, "no seed in common"


def test_tables_and_page_show_what_was_analysed_and_nothing_where_nothing_was(
    analysed: Summary, tmp_path: Path, matrix: Matrix, fill: Callable[..., Manifest]
) -> None:
    table, _, page, _ = write_results(tmp_path, analysed)
    text = table.read_text(encoding="utf-8")
    assert "## Flatness and drift: up to 3 seeds" in text
    assert "| fedsense | 32 | 2 ± 0 | 2.67 ± 1.2 |" in text
    assert "as a ratio to fedavg @ 32" in text
    assert "| fedsense | 32 | 1.00 (1.00 to 1.00) | 0.40 (0.25 to 0.50) |" in text
    assert "0.40 (0.25 to 0.50)" in page.read_text(encoding="utf-8")
    plain = fill(tmp_path / "plain", matrix, "fedavg@32/*")
    without = summarise(matrix, gather(matrix, cells_of(matrix), plain))
    assert "Flatness" not in write_results(tmp_path / "plain", without)[0].read_text(encoding="utf-8")
