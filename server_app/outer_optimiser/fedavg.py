"""``fedavg``: add the mean update (McMahan et al. 2017)."""

from __future__ import annotations

from torch import Tensor

from server_app.outer_optimiser.outer_optimiser import OuterOptimiser


class FedAvg(OuterOptimiser):
    """w + Δ̄."""

    name = "fedavg"

    def step(self, weights: Tensor, mean_update: Tensor) -> Tensor:
        """Return the new global weights (N,)."""
        return weights + mean_update
