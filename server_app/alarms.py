"""Alarms: updates that count, and that a person should look at, because they drive the mean.

Nothing is left out for an alarm. Each reply is compared with the others of its round by two
figures: its norm, as it came, and its cosine to the mean of the others. The loss that it says it
has, which nobody can check, is compared by its ratio to the median, too. A figure is called odd by
its robust z-score, the distance to the round's median in units of the median absolute deviation
(Iglewicz and Hoaglin 1993). The least deviations below keep replies that agree closely from making
small differences odd. docs/decisions/robust-default.md has the measured rates.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from logging import WARNING

from flwr.common.logger import log

from server_app.round import Accepted

ODD = 4.0
"""Robust z-score from which on a figure is odd."""
PER_DEVIATION = 1.4826
"""Standard deviations of a normal distribution in its median absolute deviation."""
LEAST_REPLIES = 3
"""Of two replies neither is the odd one."""
LEAST_DIRECTIONS = 4
"""Of three cosines the median is one of them: any two that lie close make the third odd."""
MIN_LOG_NORM = 0.25
"""Natural logarithm: with `ODD` a norm is odd beyond 2.7 times the median, or a 2.7th of it."""
MIN_COSINE = 0.01
"""Noise of few bits and of small models."""
MIN_COSINE_SHARE = 0.3
"""Of the median: with `ODD` a cosine is odd beyond 2.2 times the median, or 0.2 of it below zero.
One of zero is not: a sensor of its own may share nothing with the others."""
ODD_LOSS = 10.0
"""Times the median of the round, or a tenth of it: losses of sensors in one method lie closer."""


def alarms_of(
    accepted: Sequence[Accepted], cosines: Sequence[float], size: float, shares: Sequence[float]
) -> list[dict[str, str]]:
    """Return ``site`` and ``reason`` of each alarm.

    ``cosines`` are those of the replies to the mean, ‖Δ̄‖ is ``size``, and ``shares`` are p_i; they
    are zero where the centre is no weighted mean, whose cosines are then taken as they are.
    """
    lengths = [one.norm * one.scale for one in accepted]
    others = [
        cosine_to_others(cosine, length, size, share)
        for cosine, length, share in zip(cosines, lengths, shares, strict=True)
    ]
    found = [*_odd_norms(accepted), *_odd_directions(accepted, others), *_odd_losses(accepted)]
    for alarm in found:
        log(WARNING, "site %s: %s", alarm["site"], alarm["reason"])
    return found


def cosine_to_others(cosine: float, length: float, size: float, share: float) -> float:
    """Return the cosine of Δ̂_i to the mean of the others, from that to the mean of all.

    With a = <Δ̂_i, Δ̄>: the mean of the others is (Δ̄ - p_i Δ̂_i) / (1 - p_i), so that its inner
    product with Δ̂_i is in proportion to a - p_i ‖Δ̂_i‖² and its squared norm to ‖Δ̄‖² - 2 p_i a +
    p_i² ‖Δ̂_i‖². 0 where one of the two vectors is zero.
    """
    inner = cosine * length * size
    squared = size**2 - 2 * share * inner + (share * length) ** 2
    return (inner - share * length**2) / (length * math.sqrt(squared)) if length and squared > 0 else 0.0


def z_scores(figures: Sequence[float], least: float) -> list[float]:
    """Return robust z-scores; ``least`` is the smallest deviation that is believed."""
    median = statistics.median(figures)
    deviation = PER_DEVIATION * statistics.median(abs(one - median) for one in figures)
    return [(one - median) / max(deviation, least) for one in figures]


def _odd_norms(accepted: Sequence[Accepted]) -> list[dict[str, str]]:
    median = statistics.median(one.norm for one in accepted)
    if len(accepted) < LEAST_REPLIES or not median:
        return []
    logarithms = [math.log(max(one.norm / median, 1e-9)) for one in accepted]
    scores = z_scores(logarithms, MIN_LOG_NORM)
    return [
        _alarm(one, f"its update has {one.norm / median:.3g} times the median norm of the round")
        for one, score in zip(accepted, scores, strict=True)
        if abs(score) > ODD
    ]


def _odd_directions(accepted: Sequence[Accepted], cosines: Sequence[float]) -> list[dict[str, str]]:
    if len(accepted) < LEAST_DIRECTIONS:
        return []
    median = statistics.median(cosines)
    scores = z_scores(cosines, max(MIN_COSINE, MIN_COSINE_SHARE * abs(median)))
    return [
        _alarm(one, f"its update has a cosine of {cosine:.3f} to the mean of the others, whose median is {median:.3f}")
        for one, cosine, score in zip(accepted, cosines, scores, strict=True)
        if abs(score) > ODD
    ]


def _odd_losses(accepted: Sequence[Accepted]) -> list[dict[str, str]]:
    said = [(one, one.metrics["ssl-loss"]) for one in accepted if "ssl-loss" in one.metrics]
    median = statistics.median(loss for _, loss in said) if len(said) >= LEAST_REPLIES else 0.0
    return [
        _alarm(one, f"it says that its loss is {loss:.4g}, where the median is {median:.4g}")
        for one, loss in said
        if median > 0 and not median / ODD_LOSS <= loss <= median * ODD_LOSS
    ]


def _alarm(one: Accepted, reason: str) -> dict[str, str]:
    return {"site": one.site, "reason": reason}
