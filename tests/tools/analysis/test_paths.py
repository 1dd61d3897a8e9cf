"""A barrier is what rises above the chord."""

from __future__ import annotations

import pytest

from fedsense_core.tools.analysis.loss_paths import barrier, evenly


def test_the_barrier_of_a_quadratic_hill_is_that_of_its_curvature() -> None:
    # L = -c x² from a to b rises above its chord by c α(1-α)(b-a)², at most c (b-a)²/4.
    alphas = evenly(9)
    losses = [-3.0 * (1 + a * 4) ** 2 for a in alphas]
    assert barrier(alphas, losses) == pytest.approx(3 * 16 / 4)


def test_a_bowl_has_no_barrier() -> None:
    alphas = evenly(9)
    assert barrier(alphas, [(a - 0.3) ** 2 for a in alphas]) == 0


def test_a_slope_between_unequal_ends_is_no_barrier() -> None:
    alphas = evenly(5)
    assert barrier(alphas, [2 + 8 * a for a in alphas]) == pytest.approx(0)
    assert alphas == [0, 0.25, 0.5, 0.75, 1]
