"""Server-to-clients guidance, as the server steers it: how far clients look (DESIGN, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from fedsense_core.settings import Config


def ramp(config: Config, server_round: int) -> float:
    """Return the share of the full radius in a round: zero in round 1, then linear over the first rounds of the run."""
    rising = max(1.0, config.guidance.ramp * config.run.rounds)
    return min(1.0, (server_round - 1) / rising)


def radii(config: Config, server_round: int, last_norms: Tensor | None, tensors: int) -> Tensor:
    """Return ρ_l = r · ramp · ‖Δ̄_{t-1,l}‖ as float32 (L,); zero before the first aggregated update, or unguided."""
    if last_norms is None or config.guidance.kind == "none" or config.guidance.sign == 0:
        return torch.zeros(tensors)
    return (config.guidance.radius * ramp(config, server_round) * last_norms).float()
