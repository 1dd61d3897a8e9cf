"""What one round did, and the line of metrics.jsonl that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedsense_core.errors import Rejected
from server_app.admission import Accepted
from server_app.aggregation.mean import weights_of


@dataclass
class RoundRecord:
    """Filled by the strategy while the round goes on."""

    round: int
    accepted: list[Accepted] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    elements: int = 0
    """Parameters that travel."""
    asked: int = 0
    """Clients that were sent a task."""
    bytes_down: int = 0
    """Frames, radii and coefficients sent, all clients together."""
    bytes_up: int = 0
    """Frames received, accepted or not."""
    radius: float = 0.0
    """‖ρ‖ over all tensors."""
    ramp: float = 0.0
    drift: dict[str, float] = field(default_factory=dict)
    cosine: dict[str, float] = field(default_factory=dict)
    update_norm: float = 0.0
    """‖Δ̄‖ of the plain weighted mean, whatever rule aggregates."""
    momentum_norm: float = 0.0
    """‖m̂‖ that clients held in the round."""
    prediction_norm: float = 0.0
    """‖γ m̂‖, the part of every update that needed no code."""
    learning_rate: float = 0.0
    """At the first local step of the round."""
    distillation_loss: float | None = None
    """Distance to the teachers, and ``public_weight`` times the self-supervised loss on the public
    set."""
    notes: list[dict[str, str]] = field(default_factory=list)
    """``site`` and ``note``: what changed in silence otherwise, such as a residual that was
    dropped."""
    seconds: dict[str, float] = field(default_factory=dict)

    def line(self, alignment_weight: float, probe: dict[str, float] | None) -> dict[str, Any]:
        """Return the round as one JSON object."""
        means = mean_metrics(self.accepted)
        ssl, alignment = means.get("ssl-loss"), means.get("alignment-loss")

        def loss(metrics: Mapping[str, float]) -> float | None:
            if "ssl-loss" not in metrics:
                return None
            return metrics["ssl-loss"] + alignment_weight * metrics.get("alignment-loss", 0.0)

        return {
            "round": self.round,
            "loss": loss(means),
            "ssl_loss": ssl,
            "alignment_loss": alignment,
            "loss_by_site": {one.site: loss(one.metrics) for one in self.accepted},
            "examples": means.get("num-examples", 0.0),
            "elements": self.elements,
            "asked": self.asked,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "accepted": [one.site for one in self.accepted],
            "rejected": [{"node": one.node, "reason": one.reason} for one in self.rejected],
            "notes": self.notes,
            "radius": self.radius,
            "ramp": self.ramp,
            "update_norm": self.update_norm,
            "momentum_norm": self.momentum_norm,
            "prediction_norm": self.prediction_norm,
            "drift": self.drift,
            "cosine": self.cosine,
            "learning_rate": self.learning_rate,
            "distillation_loss": self.distillation_loss,
            "client_seconds": {one.site: one.metrics.get("train-seconds") for one in self.accepted},
            "seconds": self.seconds,
            "probe": probe,
        }


def mean_metrics(accepted: list[Accepted]) -> dict[str, float]:
    """Return the weighted mean of what clients measured, and their examples in all; empty without
    clients."""
    if not accepted:
        return {}
    weights = weights_of(accepted)
    keys = set.intersection(*(set(one.metrics) for one in accepted)) - {"num-examples"}
    means = {key: sum(w * one.metrics[key] for one, w in zip(accepted, weights, strict=True)) for key in sorted(keys)}
    return means | {"num-examples": sum(one.examples for one in accepted)}
