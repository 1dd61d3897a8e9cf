"""The losses of one optimiser step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedsense_core.ssl.sigreg import SigregStatistics


@dataclass(frozen=True)
class StepLoss:
    """The two terms that local training minimises: ssl + μ alignment (`docs/method.md`, section
    3)."""

    ssl: Tensor
    """Self-supervised loss, scalar."""
    alignment: Tensor
    """Distance to the universal encoder's representation, scalar; zero without an anchor."""
    sums: SigregStatistics | None = None
    """Sums over the batch's embeddings, for the other clients' next round (lejepa,
    ``train.federated_sigreg``)."""

    def total(self, weight: float) -> Tensor:
        """Return ssl + weight * alignment."""
        return self.ssl + weight * self.alignment if weight else self.ssl


def precise(x: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 if it is: losses of bf16 numbers would be off by
    hundredths."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
