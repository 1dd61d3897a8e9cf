"""Scores are right on cases worked by hand, and their standard error is that of drawing whole
groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from fedsense_core.errors import SiteError
from fedsense_core.evaluation.scores import RESAMPLES, score

TRUTH = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 2, 2])


def test_scores_of_a_hand_worked_case():
    result = score(TRUTH, PREDICTED)
    assert result.accuracy == 4 / 6
    # class 0: 2·2/(3+2); class 1: 2·1/(2+2); class 2: 2·1/(1+2)
    assert result.macro_f1 == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3, abs=1e-15)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_scores_equal_those_of_scikit_learn(pairs):
    truth, predicted = np.array(pairs).T
    result = score(truth, predicted)
    assert result.accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert result.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro", zero_division=0))


def test_right_everywhere_has_no_standard_error():
    result = score(TRUTH, TRUTH)
    assert (result.accuracy, result.macro_f1, result.macro_f1_se) == (1.0, 1.0, 0.0)


def test_same_seed_gives_the_same_standard_error_and_another_seed_a_near_one():
    rng = np.random.default_rng(0)
    truth, noise = rng.integers(0, 5, 600), rng.integers(0, 5, 600)
    predicted = np.where(rng.random(600) < 0.6, truth, noise)
    first, again, other = (score(truth, predicted, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first.macro_f1_se != other.macro_f1_se
    assert first.macro_f1_se == pytest.approx(other.macro_f1_se, rel=0.3)


def test_standard_error_of_a_coin_is_the_binomial_one():
    # Balanced and symmetric, macro F1 moves like accuracy, whose deviation is sqrt(p (1 - p) / M).
    rng = np.random.default_rng(1)
    truth = np.tile([0, 1], 1000)
    predicted = np.where(rng.random(2000) < 0.7, truth, 1 - truth)
    assert score(truth, predicted).macro_f1_se == pytest.approx(math.sqrt(0.7 * 0.3 / 2000), rel=0.25)


def test_identical_samples_in_a_group_count_as_one():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, 100)
    predicted = np.where(rng.random(100) < 0.7, truth, 1 - truth)
    once = score(truth, predicted)
    copied = score(np.repeat(truth, 9), np.repeat(predicted, 9), np.repeat(np.arange(100) * 7, 9))
    assert copied.macro_f1 == pytest.approx(once.macro_f1)
    assert copied.macro_f1_se == pytest.approx(once.macro_f1_se)
    blind = score(np.repeat(truth, 9), np.repeat(predicted, 9))
    assert blind.macro_f1_se == pytest.approx(once.macro_f1_se / 3, rel=0.3)


def test_bootstrap_equals_scoring_every_resample():
    rng = np.random.default_rng(3)
    truth, predicted, groups = rng.integers(0, 4, (3, 30))
    draws = np.random.default_rng(0).multinomial(4, np.full(4, 1 / 4), size=RESAMPLES)
    slow = []
    for draw in draws:
        rows = np.concatenate([np.flatnonzero(groups == g) for g in range(4) for _ in range(draw[g])])
        slow.append(f1_score(truth[rows], predicted[rows], average="macro", zero_division=0))
    assert score(truth, predicted, groups).macro_f1_se == pytest.approx(np.std(slow, ddof=1))


def test_one_group_has_no_standard_error():
    assert math.isnan(score(TRUTH, PREDICTED, np.zeros(6, int)).macro_f1_se)


def test_empty_set_is_refused():
    with pytest.raises(SiteError, match="empty test set"):
        score(np.zeros(0, int), np.zeros(0, int))
