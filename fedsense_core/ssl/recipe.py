"""One step's loss, the same interface for every recipe: ``recipe(model, anchor, batch, generator) -> StepLoss``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fedsense_core.data.augment import Augmentation
from fedsense_core.models import PretrainingModel
from fedsense_core.settings import Config
from fedsense_core.ssl.mae import mae_loss
from fedsense_core.ssl.simclr import simclr_loss
from fedsense_core.ssl.step import StepLoss


@dataclass(frozen=True)
class Recipe:
    """A self-supervised loss with its augmentation."""

    policy: Augmentation
    """How views are made."""
    loss: Callable[[PretrainingModel, PretrainingModel | None, Tensor, Augmentation, torch.Generator], StepLoss]
    """The loss itself."""

    def __call__(
        self, model: PretrainingModel, anchor: PretrainingModel | None, x_BCHW: Tensor, generator: torch.Generator
    ) -> StepLoss:
        """Return the losses of one batch (B, C, H, W) of standardised chips; ``anchor`` None skips alignment."""
        return self.loss(model, anchor, x_BCHW, self.policy, generator)


def build_recipe(config: Config) -> Recipe:
    """Return the recipe that the configuration names."""
    if config.train.recipe == "mae":
        return Recipe(geometric_policy(config), mae_loss)
    return Recipe(contrastive_policy(config), partial(simclr_loss, temperature=config.train.temperature))


def contrastive_policy(config: Config) -> Augmentation:
    """Return crops with changes of brightness and colour, ``data.jitter`` times the usual strength."""
    usual, strength = Augmentation(config.data.view_size, config.data.min_scale), config.data.jitter
    return replace(
        usual,
        image_gain=usual.image_gain * strength,
        band_gain=usual.band_gain * strength,
        image_offset=usual.image_offset * strength,
        band_offset=usual.band_offset * strength,
        grey=min(1.0, usual.grey * strength),
    )


def geometric_policy(config: Config) -> Augmentation:
    """Return crops, flips and turns alone: what is predicted must be the imagery as it is."""
    return Augmentation(
        config.data.view_size,
        config.data.min_scale,
        image_gain=0.0,
        band_gain=0.0,
        image_offset=0.0,
        band_offset=0.0,
        grey=0.0,
    )


__all__ = ["Recipe", "StepLoss", "build_recipe"]
