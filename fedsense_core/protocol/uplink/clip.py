"""Clip: no update is longer than the run agrees."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedsense_core.protocol.uplink.stage import Stage
from fedsense_core.tensors import vector_norm


@dataclass
class Clip(Stage):
    """Δ min(1, C/‖Δ‖). What is cut is not carried over: a residual would bring it back."""

    name = "clip"
    norm: float
    """C."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the update, no longer than C."""
        length = vector_norm(x)
        return x * (self.norm / length) if length > self.norm else x
