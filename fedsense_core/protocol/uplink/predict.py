"""Prediction: γ m̂, which both ends know, needs no code (`fedsense_core.protocol.prediction`)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedsense_core.protocol.uplink.stage import Stage


@dataclass
class Predict(Stage):
    """Takes γ m̂ away before coding; the way back adds it."""

    name = "predict"
    predicted: Tensor
    """γ m̂ (N,), float32, the same bits at both ends."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x - γ m̂."""
        return x - self.predicted

    def inverse(self, x: Tensor) -> Tensor:
        """Return x + γ m̂, written into ``x``."""
        return x.add_(self.predicted)
