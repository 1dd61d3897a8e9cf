"""The script behind the figures of the prediction: what it writes, prints and refuses. A real
federation takes minutes."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "experiments" / "prediction_error.py"))


def lines_of(seed: int) -> list[dict[str, Any]]:
    """Return a run in which the corrected arm loses 10 % less than the plain one, with either
    seed."""
    plain = [0.3 + 0.01 * seed + 0.1 * number for number in range(8)]
    return [
        {"round": n, "cosine": 0.3, "errors": {"plain": e, "clipped": 0.95 * e, "corrected": 0.9 * e}, "seconds": 1.0}
        for n, e in enumerate(plain, start=1)
    ]


def test_finished_seeds_are_kept_and_drawn_and_those_of_other_settings_refused(
    script: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "prediction_error-eden-1.json"
    for seed in (0, 1):
        script["Results"](path, {"rounds": 8}).add(seed, lines_of(seed))
    found = script["Results"](path, {"rounds": 8}).seeds()
    assert found == {0: lines_of(0), 1: lines_of(1)}
    assert len(path.with_suffix(".csv").read_text().splitlines()) == 17
    script["draw"](found, "a title", path.with_suffix(".png"))
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match="other settings"):
        script["Results"](path, {"rounds": 9}).seeds()


def test_table_compares_each_arm_with_error_feedback_alone(script: dict[str, Any]) -> None:
    table = list(script["table_of"]({seed: lines_of(seed) for seed in (0, 1)}))
    assert [len(line.split("|")) for line in table] == [8] * 6
    assert table[4].endswith("| 0.900 (0.900 to 0.900) | 0.900 |")


def test_relative_error_is_that_of_the_mean_update(script: dict[str, Any]) -> None:
    true, decoded = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0])
    assert script["relative_error"](decoded, true) == pytest.approx(1 / 25)
