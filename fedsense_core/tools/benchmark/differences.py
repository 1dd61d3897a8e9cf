"""What may be said of differences between methods: paired by seed, pooled over tasks, with
intervals.

Two things are random in a difference of two methods: the seeds that they were trained with, and the
places that the test sets happen to show. The first is seen in the spread of the paired differences
over seeds. The second is seen in a cluster bootstrap: whole groups of each test set are drawn with
replacement (Cameron, Gelbach and Miller 2008), the same draws for both methods and for all seeds.
Both variances are added; the interval is Student's, with the degrees of freedom of Welch and
Satterthwaite. Tasks of one kind on the same data share their draws.

Shapes: S seeds, T tasks, B draws, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from fedsense_core.seeds import seed_of
from fedsense_core.tools.downstream.evidence import Evidence

Array = NDArray[np.float64]
DRAWS = 400
"""Of groups: the error of a standard error is then 1/sqrt(2 * 400) = 3.5 % of it."""
LEVEL = 0.95


@dataclass(frozen=True)
class Sampled:
    """Scores of one method: as measured, and under every draw of groups."""

    seeds: tuple[int, ...]
    points_ST: Array
    draws_STB: Array

    def of(self, seeds: Sequence[int]) -> Sampled:
        """Return the scores of some seeds, in this order."""
        rows = [self.seeds.index(seed) for seed in seeds]
        return Sampled(tuple(seeds), self.points_ST[rows], self.draws_STB[rows])


@dataclass(frozen=True)
class Pool:
    """How tasks are pooled: a weight for each, and which test set it has."""

    weights_T: Array
    """Their sum is 1."""
    sets_T: tuple[str, ...]
    """Tasks of one name have the same groups, and so the same draws."""
    groups_T: tuple[int, ...]
    """Number of groups."""

    def only(self, task: int) -> Pool:
        """Return the pool of one task alone."""
        return Pool(np.ones(1), self.sets_T[task : task + 1], self.groups_T[task : task + 1])


@dataclass(frozen=True)
class Difference:
    """One method less another."""

    mean: float
    error: float
    """Standard error; NaN where neither seeds nor groups tell, or a score is not defined."""
    low: float
    high: float
    """Ends of the 95 % interval."""
    p: float
    """Two-sided, of no difference."""
    seeds: int
    """That both have; the spread over a single one is unknown and left out of ``error``."""
    seed_error: float
    """Part of the error that seeds make."""
    group_error: float
    """Part of the error that groups make."""
    p_holm: float = float("nan")
    """Corrected for all comparisons of the family."""

    @property
    def above(self) -> bool:
        """Whether it is above zero by more than one standard error."""
        return self.mean > self.error


def group_draws(test_set: str, groups: Sequence[str], draws: int = DRAWS) -> Array:
    """Return how often each group of a test set is in each bootstrap draw (B, G); always the
    same."""
    generator = np.random.default_rng(seed_of("cluster bootstrap", test_set, *groups))
    count = len(groups)
    return generator.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)


def drawn(evidence: Sequence[Evidence], weights_BG: Array) -> tuple[float, Array]:
    """Return the mean score of some evidence on the same groups, as measured (float) and under each
    draw (B,)."""
    whole = np.ones(weights_BG.shape[1])
    points = np.array([one.value(whole) for one in evidence])
    draws_EB = np.array([[one.value(weights_G) for weights_G in weights_BG] for one in evidence])
    return float(points.mean()), np.asarray(draws_EB.mean(0), np.float64)


def difference(one: Sampled, other: Sampled, pool: Pool) -> Difference | None:
    """Return ``one`` less ``other``, paired by the seeds that both have; None where they have none
    in common.

    A method that knows no seeds apart is given the same seeds as the others. Draws in which a score
    is not defined are left out.
    """
    seeds = [seed for seed in one.seeds if seed in other.seeds]
    if not seeds:
        return None
    one, other = one.of(seeds), other.of(seeds)
    weights_T = pool.weights_T
    by_seed_S = (one.points_ST - other.points_ST) @ weights_T
    mean, parts = float(by_seed_S.mean()), []
    if len(seeds) > 1:
        parts.append((float(by_seed_S.var(ddof=1)) / len(seeds), len(seeds) - 1))
    seed_variance = parts[0][0] if parts else 0.0
    moved_TB = (one.draws_STB - other.draws_STB).mean(0) * weights_T[:, None]
    group_variance = 0.0
    for name in dict.fromkeys(pool.sets_T):
        rows = [t for t, its in enumerate(pool.sets_T) if its == name]
        groups = pool.groups_T[rows[0]]
        if groups > 1:
            moved_B = moved_TB[rows].sum(0)
            moved_B = moved_B[~np.isnan(moved_B)]
            spread = float(moved_B.var(ddof=1)) if len(moved_B) > 1 else float("nan")
            variance = spread * groups / (groups - 1)
            parts.append((variance, groups - 1))
            group_variance += variance
    return _interval(mean, parts, len(seeds), seed_variance, group_variance)


def _interval(
    mean: float, parts: list[tuple[float, int]], seeds: int, seed_variance: float, group_variance: float
) -> Difference:
    total = sum(variance for variance, _ in parts)
    error = float(np.sqrt(total)) if parts else float("nan")
    if not total > 0:  # equal under every draw and seed, or nothing that tells
        p = float("nan") if np.isnan(error) else 1.0 if mean == 0 else 0.0
        return Difference(mean, error, mean - error, mean + error, p, seeds, 0.0, 0.0)
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in parts)
    reach = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(mean) / error))
    return Difference(
        mean, error, mean - reach, mean + reach, p, seeds, float(np.sqrt(seed_variance)), float(np.sqrt(group_variance))
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for making all these comparisons (Holm 1979). NaN stays, and does
    not count."""
    corrected, known = [float("nan")] * len(p_values), [i for i, p in enumerate(p_values) if not np.isnan(p)]
    least = 0.0
    for rank, i in enumerate(sorted(known, key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(known) - rank) * p_values[i]))
        corrected[i] = least
    return corrected


def share(value: float, lowest: float, highest: float) -> float:
    """Return how much of the way from ``lowest`` to ``highest`` is gone; NaN where there is no
    way."""
    return (value - lowest) / (highest - lowest) if highest > lowest else float("nan")
