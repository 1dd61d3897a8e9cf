"""What a guidance is."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedsense_core.config import GuidanceSection
from fedsense_core.registry import implementation
from fedsense_core.tensors import TensorTable

Loss = Callable[[], Tensor]
"""Computes the same function each time it is called within one step."""


class Guidance(ABC):
    """Where local training starts, and where it takes the gradient of each step."""

    name: ClassVar[str]

    def __init__(
        self,
        settings: GuidanceSection,
        table: TensorTable,
        radii_L: Tensor,
        direction: Tensor,
        device: torch.device | None = None,
    ) -> None:
        """Take ρ_l and the (N,) that `global_direction` returns; ``device`` is where the model
        is."""
        self.settings, self.table, self.direction = settings, table, direction
        self.device = device or torch.device("cpu")
        self.radii = radii_L

    @classmethod
    def of(
        cls,
        settings: GuidanceSection,
        table: TensorTable,
        radii_L: Tensor,
        direction: Tensor,
        device: torch.device | None = None,
    ) -> Guidance:
        """Return the one that ``guidance.kind`` names."""
        kind = implementation("client_app.guidance", settings.kind, Guidance)
        return kind(settings, table, radii_L, direction, device)

    def offset(self) -> Tensor:
        """Return how far from ŵ the round starts (N,)."""
        return torch.zeros_like(self.direction)

    def backward(self, loss: Loss, parameters: Mapping[str, nn.Parameter], step: int) -> Tensor:
        """Leave the gradient in ``.grad`` and return the loss at the unperturbed weights."""
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()
