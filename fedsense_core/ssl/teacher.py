"""The teacher of BYOL (arXiv 2006.07733): an exponential moving average (EMA) of the model
that learns from it, never trained itself."""

from __future__ import annotations

from copy import deepcopy

import torch

from fedsense_core.models.pretraining import PretrainingModel


class MovingTeacher:
    """A frozen copy of a model; `ema_update` moves it towards the model after every step.

    It lives with the client and never travels. Where guidance shifts the model, whoever makes the
    teacher shifts it too.
    """

    def __init__(self, model: PretrainingModel, decay: float) -> None:
        self.model = deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def ema_update(self, model: PretrainingModel) -> None:
        """Set ξ to decay ξ + (1 - decay) θ, parameter by parameter (section 3.1 of the paper)."""
        for own, other in zip(self.model.parameters(), model.parameters(), strict=True):
            own.mul_(self.decay).add_(other, alpha=1 - self.decay)
