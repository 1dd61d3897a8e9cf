"""``shift``: local training starts at the sharp side of the global model and never looks back.

A perturbation that stays constant over a round equals a shifted start (FedLESAM, arXiv 2405.18890),
so it costs no step anything.
"""

from __future__ import annotations

from torch import Tensor

from client_app.guidance.guidance import Guidance
from fedsense_core.tensors import TensorTable


class Shift(Guidance):
    """The round starts at ŵ + ρ_l times the direction; Δ is measured from there."""

    name = "shift"

    def offset(self) -> Tensor:
        """Return the shift s (N,)."""
        return shift(self.direction, self.radii, self.table)


def shift(direction: Tensor, radii: Tensor, table: TensorTable) -> Tensor:
    """Return ρ_l times the unit direction of each tensor, flat (N,)."""
    return direction * table.spread(radii).to(direction.dtype)
