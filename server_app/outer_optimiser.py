"""What the server does with the mean update Δ̄ (DESIGN, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedsense_core.config import OuterSection


@dataclass
class OuterOptimiser:
    """FedAvg (add the mean update) or Nesterov momentum on the pseudo-gradient -Δ̄ (DiLoCo, arXiv
    2311.08105)."""

    settings: OuterSection
    momentum: Tensor | None = None
    """Nesterov's buffer (N,); it sees Δ̄ only, never the distillation."""

    def step(self, weights: Tensor, mean_update: Tensor) -> Tensor:
        """Return the new global weights (N,)."""
        if self.settings.kind == "fedavg":
            return weights + mean_update
        mu = self.settings.momentum
        self.momentum = mean_update if self.momentum is None else self.momentum * mu + mean_update
        return weights + (mean_update + self.momentum * mu) * self.settings.learning_rate
