"""``nesterov``: momentum on the pseudo-gradient -Δ̄ (DiLoCo, arXiv 2311.08105, algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedsense_core.config import OuterSection
from fedsense_core.state import State
from server_app.outer_optimiser.outer_optimiser import OuterOptimiser


class Nesterov(OuterOptimiser):
    """v ← μ v + Δ̄;  w + η (Δ̄ + μ v), as torch's SGD with Nesterov momentum does it."""

    name = "nesterov"

    def __init__(self, settings: OuterSection) -> None:
        super().__init__(settings)
        self.momentum: Tensor | None = None
        """v (N,)."""

    def step(self, weights: Tensor, mean_update: Tensor) -> Tensor:
        """Return the new global weights (N,)."""
        mu = self.settings.momentum
        self.momentum = mean_update if self.momentum is None else self.momentum * mu + mean_update
        return weights + (mean_update + self.momentum * mu) * self.settings.learning_rate

    def state_dict(self) -> State:
        """Return v."""
        return {} if self.momentum is None else {"momentum": self.momentum}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with v."""
        self.momentum = state.get("momentum")
