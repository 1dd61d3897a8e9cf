"""The stream that every party replays: ŵ_t and m̂_t from one sequence of exact operations
(docs/method.md, section 3).

Elementwise float32 additions and multiplications, one after the other: IEEE 754 fixes each result,
so server and clients hold equal bits whatever their processor. Nothing fused (``add(alpha=)``,
``lerp``) belongs here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedsense_core.tensors import vector_digest


@dataclass(frozen=True)
class Replica:
    """What a party holds of the global model after version ``version``."""

    version: int
    """Number of broadcasts that this replica includes; rounds below the quorum add none."""
    weights: Tensor
    """ŵ, float32 (N,)."""
    momentum: Tensor
    """m̂, float32 (N,)."""

    @classmethod
    def first(cls, weights: Tensor) -> Replica:
        """Return the replica of round 1: ŵ_1 = w_1 and m̂_1 = 0."""
        return cls(1, weights, torch.zeros_like(weights))

    def advance(self, delta: Tensor, beta: float | None) -> Replica:
        """Return ŵ + δ and β m̂ + (1-β) δ, for the decoded difference δ (N,); ``beta`` None keeps
        m̂ at zero."""
        return Replica(self.version + 1, self.weights + delta, self._mixed(delta, beta))

    def replace(self, weights: Tensor, beta: float | None) -> Replica:
        """Return the replica after a broadcast of full weights: δ = w - ŵ, and ŵ is w itself,
        without rounding."""
        return Replica(self.version + 1, weights, self._mixed(weights - self.weights, beta))

    def digest(self) -> bytes:
        """Return 16 bytes that are equal only if every bit of ŵ and m̂ is."""
        return vector_digest(self.weights, self.momentum)

    def _mixed(self, delta: Tensor, beta: float | None) -> Tensor:
        if beta is None:
            return self.momentum
        kept = torch.tensor(beta, dtype=self.momentum.dtype)
        added = torch.tensor(1.0, dtype=self.momentum.dtype) - kept
        return self.momentum * kept + delta * added
