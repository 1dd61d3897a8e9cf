"""How far clients are from their mean (docs/method.md, section 8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from server_app.aggregation.rule import AggregationRule, weights_of
from server_app.alarms import alarms_of
from server_app.round import Accepted


def measured(accepted: Sequence[Accepted], mean_update: Tensor, rule: AggregationRule) -> dict[str, Any]:
    """Return what a round's line in metrics.jsonl says of updates and their mean (N,), which
    ``rule`` took."""
    drift, cosine = drift_of(accepted, mean_update)
    size = float(mean_update.norm())
    shares = weights_of(accepted) if rule.centre_is_mean else [0.0] * len(accepted)
    alarms = alarms_of(accepted, list(cosine.values()), size, shares)
    return {"drift": drift, "cosine": cosine, "update_norm": size, "alarms": alarms}


def drift_of(accepted: Sequence[Accepted], mean_update: Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """Return, by site, the drift ‖Δ̂_i - Δ̄‖/‖Δ̄‖ and the cosine of Δ̂_i to Δ̄."""
    drift, cosine = {}, {}
    size = float(mean_update.norm()) or 1.0
    for one in accepted:
        update = one.update()
        drift[one.site] = float((update - mean_update).norm()) / size
        cosine[one.site] = float(torch.nn.functional.cosine_similarity(update, mean_update, dim=0))
    return drift, cosine
