"""Server-to-clients guidance, as the server steers it: how far clients look (DESIGN, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from fedsense_core.config import Config


def ramp(config: Config, server_round: int) -> float:
    """Return the share of the full radius in a round: zero in round 1, then linear over the first
    rounds of the run.

    An absolute radius that does not rise is full from round 1 on: it needs no last update.
    """
    if config.guidance.scale == "absolute" and config.guidance.ramp == 0:
        return 1.0
    rising = max(1.0, config.guidance.ramp * config.run.rounds)
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
