"""What was analysed is shown whole, whatever is missing and however many clients there are, and
nothing unescaped."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest

from fedsense_core.run_folder import RunFolder
from fedsense_core.run_folder.folder import write_json
from fedsense_core.tools.reporting import flatness_section as flatness
from fedsense_core.tools.reporting.flatness_curves import draw_all
from fedsense_core.tools.reporting.report import write_report
from fedsense_core.tools.reporting.tiles import ReportPictures, Row, Tile


def made_up(names: list[str]) -> dict[str, Any]:
    """Return an analysis as `analyse_run` gives it."""
    path = {"distance": 2.0, "barrier": 0.125, "barrier_own": 0.0}
    losses = {"loss": [1.0, 1.4, 1.2], "loss_own": [0.9, 1.0, 0.8]}
    size = len(names) + 1
    end = {"value": 7.5, "residual": 0.2, "converged": True}
    return {
        "loss": {"value": 1.0, "by_client": {}, "at_start": 1.5, "gradient_norm": 0.3, "weight_norm": 50.0},
        "hessian": {
            "largest": end,
            "smallest": {**end, "value": -1.5, "converged": False},
            "dominant": 7.5,
            "products": 5,
        },
        "sam": {"radius": [0.05, 0.5], "relative_radius": [0.001, 0.01], "sharpness": [0.01, 0.25]},
        "noise": {"sigma": [0.05, 0.2], "sharpness": [0.02, 0.3], "standard_error": [0.001, 0.02]},
        "paths": {
            "alpha": [0.0, 0.5, 1.0],
            "clients": dict.fromkeys(names, path | losses),
            "mean_barrier": 0.125 if names else None,
            "largest_barrier": 0.125 if names else None,
        },
        "cka": {
            "estimator": "unbiased HSIC",
            "images": 64,
            "names": ["global", *names],
            "matrix": (0.5 + 0.5 * np.eye(size)).tolist(),
            "mean_between_clients": 0.5,
            "mean_to_global": 0.5,
        }
        if names
        else None,
        "run": {"parameters": 1_234_567},
        "settings": {
            "imagery": "clients",
            "institutions": names,
            "batches_each": 1,
            "train": {"recipe": "simclr", "batch_size": 64},
        },
        "notes": [],
        "rounds": [],
        "format": 1,
    }


def test_every_measure_has_its_row_and_its_figure() -> None:
    analysis = made_up(["alpha", "beta"])
    text = " ".join(f"{row.what} {row.value} {row.meaning}" for row in flatness.rows(analysis))
    for promised in (
        "loss 1.0000",
        "largest Hessian eigenvalue 7.5 an eigenvalue lies within 0.2",
        "smallest Hessian eigenvalue -1.5 not converged",
        "SAM sharpness 0.25",
        "average-case sharpness 0.3 ± 0.02",
        "loss barrier 0.125",
        "linear CKA 0.500",
    ):
        assert promised in text, promised
    drawn = draw_all(analysis)
    assert [one.title for one in drawn] == [
        "Sharpness against distance",
        "From the global model to each client's",
        "Likeness of the clients' models",
    ]
    assert all(ET.fromstring(one.svg).tag.endswith("svg") for one in drawn)
    assert "1 batch of 64 chips of each of 2 clients" in flatness.summary(analysis)
    assert draw_all(analysis)[2].svg == drawn[2].svg


def test_a_run_whose_last_round_had_no_client_shows_the_rest() -> None:
    analysis = made_up([])
    assert [one.title for one in draw_all(analysis)] == ["Sharpness against distance"]
    assert "loss barrier" not in [row.what for row in flatness.rows(analysis)]


def test_figures_that_are_not_finite_are_gaps() -> None:
    analysis = json.loads(json.dumps(made_up(["alpha"])).replace("0.25", "null").replace("1.4", "null"))
    assert "SAM sharpness –" in " ".join(f"{row.what} {row.value}" for row in flatness.rows(analysis))
    assert len(draw_all(analysis)) == 3


def test_a_hundred_clients_are_drawn_as_a_crowd() -> None:
    few, many = (draw_all(made_up([f"site {i}" for i in range(count)])) for count in (5, 100))
    assert all(len(a.svg) > len(b.svg) / 20 for a, b in zip(few, many, strict=True))


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {"preset": "fedavg"})


def test_names_from_clients_are_escaped_on_the_page(run: RunFolder) -> None:
    analysis = made_up(["<script>alert(1)</script>", "$x$"])
    analysis["notes"] = ["<script>"]
    write_json(run.analysis_file, analysis)
    page = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "Flatness and drift of the global model" in page
    assert "Flatness and drift" not in write_report(RunFolder.create(run.path.parent / "other", {})).read_text()


def test_a_report_that_is_written_again_keeps_its_pictures_until_it_gets_others(run: RunFolder) -> None:
    def pictures(name: str) -> ReportPictures:
        return ReportPictures(chips=(Row(name, (Tile(np.zeros((4, 4, 3), np.uint8)),)),))

    first = write_report(run, pictures("alpha")).read_text(encoding="utf-8")
    assert write_report(run).read_text(encoding="utf-8") == first
    assert "Sample chips: alpha" in first
    second = write_report(run, pictures("beta")).read_text(encoding="utf-8")
    assert "Sample chips: beta" in second
    assert "alpha" not in second
