"""Loss along the straight line between two models, and the barrier on it."""

from __future__ import annotations

from collections.abc import Sequence


def barrier(alphas: Sequence[float], losses: Sequence[float]) -> float:
    """Return max over α of L((1-α) a + α b) - ((1-α) L(a) + α L(b)): how far the path rises above
    its chord.

    ``alphas`` go from 0 to 1 and ``losses`` are those along the path. The barrier of arXiv
    2110.06296 (definition 2.1); arXiv 1912.05671 takes the mean of both ends in place of the chord.
    Never below 0, its value at either end.
    """
    first, last = losses[0], losses[-1]
    return max(value - ((1 - a) * first + a * last) for a, value in zip(alphas, losses, strict=True))


def evenly(points: int) -> list[float]:
    """Return ``points`` numbers from 0 to 1, both included."""
    return [index / (points - 1) for index in range(points)]
