"""How sure a score is: whole groups drawn anew, with replacement (a cluster bootstrap).

Drawing single chips or pixels would take neighbours, which are alike, for independent evidence, and
give intervals that are several times too short. Shapes: R draws, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedsense_core.errors import FedSenseError
from fedsense_core.tools.downstream.result import TaskResult
from fedsense_core.tools.downstream.samples import Array

DRAWS = 1000
TAILS = (2.5, 97.5)
"""Percentiles at which a 95 % interval ends."""


@dataclass(frozen=True)
class Interval:
    """A metric with its 95 % interval, whose ends are NaN where there are fewer than two groups."""

    value: float
    low: float
    high: float


def interval(result: TaskResult, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Return the mean over seeds of a result's main metric and its interval over groups."""
    return _between(result.value, _drawn(result, draws, seed))


def gain(result: TaskResult, control: TaskResult, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Return how much higher ``result`` scores than ``control``, both under the same draws of the
    same groups.

    Raises FedSenseError where the two were not scored on the same groups.
    """
    if result.key != control.key or result.evidence[0].groups != control.evidence[0].groups:
        raise FedSenseError(
            f"{result.key} and {control.key} were not scored on the same groups: evaluate both on the same data."
        )
    return _between(result.value - control.value, _drawn(result, draws, seed) - _drawn(control, draws, seed))


def spread(result: TaskResult) -> float:
    """Return the deviation of the main metric over seeds; NaN for one seed."""
    values = [scores[result.metric] for scores in result.scores]
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _drawn(result: TaskResult, draws: int, seed: int) -> Array:
    """Return the mean over seeds of the main metric (R,) for each draw of groups; none where there
    is one group."""
    groups = len(result.evidence[0].groups)
    if groups < 2:
        return np.zeros(0)
    weights_RG = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=draws)
    return np.array([np.mean([one.value(weights_G) for one in result.evidence]) for weights_G in weights_RG])


def _between(value: float, drawn_R: Sequence[float] | Array) -> Interval:
    known = np.asarray(drawn_R)[np.isfinite(drawn_R)]
    low, high = np.percentile(known, TAILS) if len(known) else (float("nan"), float("nan"))
    return Interval(value, float(low), float(high))
