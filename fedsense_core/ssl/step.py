"""The losses of one optimiser step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StepLoss:
    """The two terms that local training minimises: ssl + μ alignment (DESIGN, section 3)."""

    ssl: Tensor
    """Self-supervised loss, scalar."""
    alignment: Tensor
    """Distance to the universal encoder's representation, scalar; zero without an anchor."""

    def total(self, weight: float) -> Tensor:
        """Return ssl + weight * alignment."""
        return self.ssl + weight * self.alignment if weight else self.ssl
