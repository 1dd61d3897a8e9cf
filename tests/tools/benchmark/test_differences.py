"""Differences between methods, on synthetic scores of which the truth is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from fedsense_core.tools.benchmark.differences import Pool, Sampled, difference, drawn, group_draws, holm, share
from fedsense_core.tools.downstream.evidence import ConfusionEvidence

ONE_TASK = Pool(np.ones(1), ("a",), (30,))


@dataclass(frozen=True)
class Mean:
    """Evidence whose score is the weighted mean of a value for each group."""

    groups: tuple[str, ...]
    values_G: np.ndarray

    def value(self, weights_G: np.ndarray) -> float:
        return float(weights_G @ self.values_G / weights_G.sum())


def sampled(values_SG: np.ndarray, weights_BG: np.ndarray) -> Sampled:
    """Return the scores of one task from a value for each seed and group."""
    names = tuple(map(str, range(values_SG.shape[1])))
    pairs = [drawn([Mean(names, values_G)], weights_BG) for values_G in values_SG]
    points_ST = np.array([[point] for point, _ in pairs])
    return Sampled(tuple(range(len(values_SG))), points_ST, np.array([[draws] for _, draws in pairs]))


def names(count: int) -> list[str]:
    return [f"group {i}" for i in range(count)]


def test_a_constant_gain_is_found_without_error() -> None:
    values = np.random.default_rng(0).normal(size=(4, 30))
    weights = group_draws("a", names(30))
    found = difference(sampled(values + 0.5, weights), sampled(values, weights), ONE_TASK)
    assert found is not None
    assert found.mean == pytest.approx(0.5)
    assert found.error == pytest.approx(0.0, abs=1e-9), "both methods are scored under the same draws"


def test_no_difference_at_all_has_p_one() -> None:
    values, weights = np.zeros((3, 30)), group_draws("a", names(30))
    found = difference(sampled(values, weights), sampled(values, weights), ONE_TASK)
    assert found is not None
    assert (found.mean, found.error, found.p, found.above) == (0.0, 0.0, 1.0, False)


def test_errors_of_seeds_and_of_groups_are_those_of_the_textbook() -> None:
    rng = np.random.default_rng(1)
    weights = group_draws("a", names(30), 4000)
    by_seed = rng.normal(size=(5, 1)) + np.zeros((5, 30))
    found = difference(sampled(by_seed, weights), sampled(np.zeros((5, 30)), weights), ONE_TASK)
    assert found is not None
    assert found.error == pytest.approx(by_seed[:, 0].std(ddof=1) / math.sqrt(5))
    by_group = rng.normal(size=(1, 30)) + np.zeros((5, 1))
    found = difference(sampled(by_group, weights), sampled(np.zeros((5, 30)), weights), ONE_TASK)
    assert found is not None
    assert found.error == pytest.approx(by_group[0].std(ddof=1) / math.sqrt(30), rel=0.05)
    assert (found.low + found.high) / 2 == pytest.approx(found.mean)


def test_seeds_are_paired_and_only_those_that_both_have_count() -> None:
    weights = group_draws("a", names(30))
    values = np.random.default_rng(2).normal(size=(3, 30)) + np.array([[0.0], [10.0], [20.0]])
    one, other = sampled(values + 1, weights), sampled(values, weights).of([2, 0])
    found = difference(one, other, ONE_TASK)
    assert found is not None
    assert found.seeds == 2
    assert found.mean == pytest.approx(1.0)
    assert found.seed_error == pytest.approx(0.0, abs=1e-9)
    assert difference(one.of([1]), other, ONE_TASK) is None


def test_one_seed_leaves_the_error_of_groups() -> None:
    weights = group_draws("a", names(30))
    values = np.random.default_rng(3).normal(size=(1, 30))
    found = difference(sampled(values, weights), sampled(0 * values, weights), ONE_TASK)
    assert found is not None
    assert (found.seeds, found.seed_error) == (1, 0.0)
    assert found.error == found.group_error > 0


def test_pooled_is_the_weighted_mean_of_tasks_and_tasks_on_one_test_set_share_its_error() -> None:
    weights, values = group_draws("a", names(30)), np.random.default_rng(4).normal(size=(2, 30))
    one = sampled(np.stack([values[0]] * 2), weights)
    two_tasks = Sampled((0, 1), np.tile(one.points_ST, 2), np.tile(one.draws_STB, (1, 2, 1)))
    zero = Sampled((0, 1), 0 * two_tasks.points_ST, 0 * two_tasks.draws_STB)
    same = difference(two_tasks, zero, Pool(np.array([0.5, 0.5]), ("a", "a"), (30, 30)))
    apart = difference(two_tasks, zero, Pool(np.array([0.5, 0.5]), ("a", "b"), (30, 30)))
    alone = difference(one, Sampled((0, 1), 0 * one.points_ST, 0 * one.draws_STB), ONE_TASK)
    assert same is not None
    assert apart is not None
    assert alone is not None
    assert same.mean == pytest.approx(alone.mean)
    assert same.error == pytest.approx(alone.error)
    assert apart.error == pytest.approx(alone.error / math.sqrt(2))


def test_a_score_that_is_not_defined_gives_a_difference_without_p() -> None:
    weights = group_draws("a", names(30))
    known = sampled(np.random.default_rng(6).normal(size=(2, 30)), weights)
    nowhere = np.full_like(known.draws_STB, np.nan)
    for other in (
        Sampled(known.seeds, np.full_like(known.points_ST, np.nan), nowhere),
        Sampled(known.seeds, 0 * known.points_ST, nowhere),
    ):
        found = difference(known, other, ONE_TASK)
        assert found is not None
        assert math.isnan(found.p)
        assert math.isnan(found.error)
        assert not found.above


def test_draws_in_which_a_score_is_not_defined_are_left_out() -> None:
    weights = group_draws("a", names(30))
    known = sampled(np.random.default_rng(7).normal(size=(1, 30)), weights)
    holes = Sampled(known.seeds, 0 * known.points_ST, 0 * known.draws_STB)
    holes.draws_STB[..., ::2] = np.nan
    found = difference(known, holes, ONE_TASK)
    assert found is not None
    assert found.error == pytest.approx(known.draws_STB[0, 0, 1::2].std(ddof=1) * math.sqrt(30 / 29))


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    weights, truth, hits, trials = group_draws("a", names(25), 120), 0.3, 0, 300
    for _ in range(trials):
        seeds, groups = rng.normal(size=(5, 1)), 2 * rng.normal(size=(1, 25))
        noise = rng.normal(size=(5, 25))
        found = difference(
            sampled(truth + seeds + groups + noise, weights), sampled(np.zeros((5, 25)), weights), ONE_TASK
        )
        assert found is not None
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / trials <= 0.99


def test_draws_are_of_whole_groups_and_equal_for_equal_groups() -> None:
    weights = group_draws("a", names(7))
    assert (weights.sum(1) == 7).all()
    assert np.array_equal(weights, group_draws("a", names(7)))
    assert not np.array_equal(weights, group_draws("b", names(7)))


def test_a_confusion_matrix_is_scored_by_the_groups_that_were_drawn() -> None:
    counts = np.array([[[4.0, 0], [0, 0]], [[0, 4.0], [0, 0]]])
    evidence = ConfusionEvidence(("easy", "hard"), counts, "accuracy")
    point, draws = drawn([evidence], np.array([[2.0, 0.0], [0.0, 2.0]]))
    assert point == 0.5
    assert draws.tolist() == [1.0, 0.0]


def test_holm_is_the_example_worked_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, float("nan"), 0.9])[0::2] == pytest.approx([1.0, 1.0])
    assert math.isnan(holm([0.6, float("nan")])[1])


def test_share_of_the_way_from_random_weights_to_centralised() -> None:
    assert share(0.5, 0.2, 0.6) == pytest.approx(0.75)
    assert math.isnan(share(0.5, 0.6, 0.6))
