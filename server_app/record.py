"""What one round did, as the line of metrics.jsonl that it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server_app.aggregation.rule import weights_of
from server_app.round import Accepted, Round

EXAMPLES = "num-examples"


def line_of(round: Round, alignment_weight: float) -> dict[str, Any]:
    """Return a round as one JSON object.

    ``clients`` holds all that each accepted client measured, under the client's own names. Server
    phases are in ``seconds``; a name of `Round.measured` that stands here is replaced.
    """
    means = mean_metrics(round.accepted)

    def loss(metrics: Mapping[str, float]) -> float | None:
        if "ssl-loss" not in metrics:
            return None
        return metrics["ssl-loss"] + alignment_weight * metrics.get("alignment-loss", 0.0)

    return {
        "round": round.number,
        "loss": loss(means),
        "ssl_loss": means.get("ssl-loss"),
        "alignment_loss": means.get("alignment-loss"),
        "loss_by_site": {one.site: loss(one.metrics) for one in round.accepted},
        "examples": means.get(EXAMPLES, 0.0),
        "elements": round.expected.stream.table.numel,
        "asked": len(round.asked),
        "bytes_up": 0,
        "bytes_down": 0,
        "bytes_up_parts": {},
        "bytes_down_parts": {},
        "accepted": [one.site for one in round.accepted],
        "weights": dict(zip((one.site for one in round.accepted), weights_of(round.accepted), strict=True)),
        "rejected": [{"node": one.node, "reason": one.reason} for one in round.rejected],
        "notes": round.notes,
        "radius": 0.0,
        "ramp": 0.0,
        "update_norm": 0.0,
        "momentum_norm": 0.0,
        "prediction_norm": 0.0,
        "drift": {},
        "cosine": {},
        "distillation_loss": None,
        "probe": None,
        **round.measured,
        "clients": {one.site: dict(one.metrics) for one in round.accepted},
        "seconds": round.seconds,
    }


def mean_metrics(accepted: Sequence[Accepted]) -> dict[str, float]:
    """Return the weighted mean of what clients measured, and their examples in all; empty without
    clients."""
    if not accepted:
        return {}
    weights = weights_of(accepted)
    keys = set.intersection(*(set(one.metrics) for one in accepted)) - {EXAMPLES}
    means = {key: sum(w * one.metrics[key] for one, w in zip(accepted, weights, strict=True)) for key in sorted(keys)}
    return means | {EXAMPLES: sum(one.examples for one in accepted)}
