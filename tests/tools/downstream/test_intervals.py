"""Intervals draw groups, pairs are drawn alike, and tables say all that must be said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedsense_core.errors import FedSenseError
from fedsense_core.tools.downstream.evidence import ConfusionEvidence
from fedsense_core.tools.downstream.intervals import gain, interval, spread
from fedsense_core.tools.downstream.result import TaskResult
from fedsense_core.tools.downstream.result_table import markdown


def result(hits_G: Any, each: int = 10, copies: int = 1, note: str = "") -> TaskResult:
    """Return accuracy on groups of ``each`` samples of which so many are right, each counted
    ``copies`` times."""
    counts = np.zeros((len(hits_G), 2, 2))
    counts[:, 0, 0], counts[:, 0, 1] = hits_G, each - np.asarray(hits_G)
    evidence = ConfusionEvidence(tuple(f"g{i}" for i in range(len(hits_G))), counts * copies, "accuracy")
    value = float(np.sum(hits_G) / (each * len(hits_G)))
    return TaskResult(
        "classification", "toy", "frozen", "knn", "accuracy", ({"accuracy": value, "other": 0.5},), (evidence,), note
    )


def test_the_interval_is_that_of_group_means() -> None:
    hits = np.random.default_rng(0).integers(0, 11, 200)
    found = interval(result(hits))
    error = 1.96 * np.std(hits / 10) / np.sqrt(200)
    assert found.value == pytest.approx(hits.mean() / 10)
    assert found.low == pytest.approx(found.value - error, abs=0.2 * error)
    assert found.high == pytest.approx(found.value + error, abs=0.2 * error)


def test_repeating_every_sample_of_a_group_gives_no_shorter_interval() -> None:
    hits = np.random.default_rng(1).integers(0, 11, 20)
    assert interval(result(hits)) == interval(result(hits, copies=50))


def test_a_pair_is_compared_under_the_same_draws() -> None:
    hits = np.random.default_rng(2).integers(0, 9, 30)
    gained = gain(result(hits + 2), result(hits))
    assert (gained.value, gained.low, gained.high) == pytest.approx((0.2, 0.2, 0.2))
    assert interval(result(hits)).high - interval(result(hits)).low > 0.05


def test_results_on_other_groups_are_not_compared() -> None:
    with pytest.raises(FedSenseError, match="not scored on the same groups"):
        gain(result([1, 2, 3]), result([1, 2]))


def test_one_group_and_one_seed_have_no_interval_and_no_spread() -> None:
    one = result([5])
    assert np.isnan(interval(one).low)
    assert np.isnan(spread(one))
    assert "unknown" in markdown([one], [])


def test_the_page_says_how_many_seeds_and_when_groups_are_too_few() -> None:
    few, many = result(np.arange(7)), result(np.arange(8))
    assert "Scores are of one seed." in markdown([few], [])
    assert "7 groups of the test part, which are so few" in markdown([few], [])
    assert "so few" not in markdown([many], [])
    two = replace(many, scores=many.scores * 2, evidence=many.evidence * 2)
    assert "± standard deviations over up to 2 seeds" in markdown([two], [])


def test_the_page_shows_the_control_the_gain_and_the_note() -> None:
    hits = np.arange(10)
    page = markdown([result(hits + 1, note="PROXY labels: made by an algorithm")], [result(hits)])
    assert "PROXY labels: made by an algorithm" in page
    assert "random weights" in page
    assert "+0.100 (+0.100 to +0.100)" in page
    assert "10 groups" in page
    assert "other 0.500" in page
