"""Server-to-clients guidance, as the server steers it: how far clients look (docs/method.md,
section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedsense_core.config import Config
from fedsense_core.state import State
from fedsense_core.tensors import TensorTable


def ramp(config: Config, server_round: int) -> float:
    """Return the share of the full radius in a round: zero in round 1, then linear over the first
    rounds of the run.

    An absolute radius that does not rise is full from round 1 on: it needs no last update. A run
    that goes on from a finished one does not rise again.
    """
    if config.guidance.scale == "absolute" and config.guidance.ramp == 0:
        return 1.0
    rising = max(1.0, config.guidance.ramp * (config.run.rounds_before or config.run.rounds))
    return min(1.0, (server_round - 1) / rising)


def radii(config: Config, server_round: int, last_norms: Tensor | None, tensors: int) -> Tensor:
    """Return ρ_l as float32 (L,); zero where unguided.

    ``update``: r · ramp · ‖Δ̄_{t-1,l}‖, zero before the first aggregated update. ``absolute``: r ·
    ramp for each tensor, whose direction is then a part of one unit vector over all tensors.
    """
    guidance = config.guidance
    if guidance.kind == "none" or guidance.sign == 0:
        return torch.zeros(tensors)
    if guidance.scale == "absolute":
        return torch.full((tensors,), guidance.radius * ramp(config, server_round))
    if last_norms is None:
        return torch.zeros(tensors)
    return (guidance.radius * ramp(config, server_round) * last_norms).float()


class Radius:
    """ρ_l over a run; follows the last aggregated update."""

    def __init__(self, config: Config, table: TensorTable) -> None:
        self.config, self.table = config, table
        self.last_norms: Tensor | None = None
        """‖Δ̄_l‖ of the last aggregated round, float64 (L,)."""

    def radii(self, server_round: int) -> Tensor:
        """Return ρ_l of a round as float32 (L,)."""
        return radii(self.config, server_round, self.last_norms, len(self.table))

    def observe(self, mean_update: Tensor) -> None:
        """Measure Δ̄ (N,) of an aggregated round."""
        self.last_norms = self.table.norms(mean_update)

    def state_dict(self) -> State:
        """Return ‖Δ̄_l‖."""
        return {} if self.last_norms is None else {"last_norms": self.last_norms}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with ‖Δ̄_l‖."""
        self.last_norms = state.get("last_norms")
