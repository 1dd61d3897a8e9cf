"""What an outer optimiser is (docs/method.md, section 3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from fedsense_core.config import OuterSection
from fedsense_core.registry import implementation
from fedsense_core.state import State


class OuterOptimiser(ABC):
    """Moves w along Δ̄, which it takes for a negative gradient. It never sees the distillation."""

    name: ClassVar[str]

    def __init__(self, settings: OuterSection) -> None:
        self.settings = settings

    @classmethod
    def of(cls, settings: OuterSection) -> OuterOptimiser:
        """Return the one that ``outer.kind`` names."""
        return implementation("server_app.outer_optimiser", settings.kind, OuterOptimiser)(settings)

    @abstractmethod
    def step(self, weights: Tensor, mean_update: Tensor) -> Tensor:
        """Return the new global weights (N,)."""

    def state_dict(self) -> State:
        """Return what the next step needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027  see state_dict
        """Go on from a checkpoint."""
