"""A recipe for tests of what is around it: the loss that it is given, of chips as they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fedsense_core.config import Config
from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.ssl.recipe import Recipe
from fedsense_core.ssl.step import StepLoss


class GivenLoss(Recipe):
    """No views, no alignment."""

    name = "given"

    def __init__(self, config: Config, compute: Callable[[PretrainingModel, Tensor, torch.Generator], Tensor]) -> None:
        super().__init__(config)
        self.compute = compute

    def loss(
        self,
        model: PretrainingModel,
        anchor: PretrainingModel | None,
        x_BCHW: Tensor,
        generator: torch.Generator,
        teacher: PretrainingModel | None,
    ) -> StepLoss:
        return StepLoss(self.compute(model, x_BCHW, generator), x_BCHW.new_zeros(()))
