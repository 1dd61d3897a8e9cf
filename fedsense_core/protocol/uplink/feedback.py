"""Error feedback: what the codec loses in one round goes along in the next (arXiv 1901.09847)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedsense_core.protocol.uplink.stage import Stage


@dataclass
class Feedback(Stage):
    """Adds e to Δ; afterwards e' = Δ + e - Δ̂. The server sums what it decodes and undoes
    nothing."""

    name = "feedback"
    residual: Tensor | None = None
    """e (N,), of Δ's precision; None for zero."""
    _corrected: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return Δ + e."""
        self._corrected = x if self.residual is None else x + self.residual
        return self._corrected

    def settle(self, restored: Tensor) -> None:
        """Keep what Δ̂ lacks. Δ̂ is the server's own, so that its rounding is carried over, too."""
        if self._corrected is None:
            raise RuntimeError("forward() comes before settle()")
        self.residual = self._corrected - restored

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return e."""
        return {} if self.residual is None else {"residual": self.residual}
