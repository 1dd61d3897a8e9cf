"""Paired differences: what two encoders share does not blur what tells them apart."""

from __future__ import annotations

import numpy as np
import pytest

from fedsense_core.evaluation.scores import paired_lift, score


def test_difference_is_that_of_the_two_scores_and_zero_with_itself() -> None:
    rng = np.random.default_rng(0)
    truth, groups = rng.integers(0, 3, 300), np.repeat(np.arange(30), 10)
    a = np.where(rng.random(300) < 0.8, truth, 0)
    b = np.where(rng.random(300) < 0.5, truth, 0)
    lift, error = paired_lift(truth, a, b, groups)
    assert lift == pytest.approx(score(truth, a).macro_f1 - score(truth, b).macro_f1)
    assert 0 < error < 0.2
    assert paired_lift(truth, a, a, groups) == (0.0, 0.0)


def test_shared_difficulty_of_groups_does_not_widen_the_error() -> None:
    rng = np.random.default_rng(1)
    truth, groups = rng.integers(0, 2, 2000), np.repeat(np.arange(40), 50)
    hard = rng.random(40)[groups] < 0.5
    a = np.where(hard & (rng.random(2000) < 0.5), 1 - truth, truth)
    b = np.where(rng.random(2000) < 0.05, 1 - a, a)
    assert paired_lift(truth, a, b, groups)[1] < 0.5 * score(truth, a, groups).macro_f1_se
