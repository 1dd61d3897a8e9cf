"""Rounds of made-up updates, judged by the alarms alone: no frames, no training.

Shared by the tests and by ``docs/experiments/alarm_rates.py``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from server_app.alarms import alarms_of


@dataclass(frozen=True)
class Norm:
    """What alarms look at in an accepted reply."""

    site: str
    norm: float
    scale: float
    metrics: dict[str, float]


def alarmed(updates: list[Tensor], clip: str, metrics: Sequence[dict[str, float]] = ()) -> set[str]:
    """Return the sites of a round's alarms; the first is ``site-000``."""
    norms = [float(one.norm()) for one in updates]
    most = statistics.median(norms) if clip == "median" else math.inf
    said = metrics or [{}] * len(updates)
    replies: list[Any] = [
        Norm(f"site-{i:03d}", norm, min(1.0, most / max(norm, 1e-9)), said[i]) for i, norm in enumerate(norms)
    ]
    counted = torch.stack([update * one.scale for update, one in zip(updates, replies, strict=True)])
    mean = counted.mean(0)
    cosines = torch.nn.functional.cosine_similarity(counted, mean[None]).tolist()
    shares = [1 / len(updates)] * len(updates)
    return {alarm["site"] for alarm in alarms_of(replies, cosines, float(mean.norm()), shares)}
