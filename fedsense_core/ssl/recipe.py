"""One step's loss, the same interface for every recipe: ``recipe(model, anchor, batch, generator) -> StepLoss``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fedsense_core.data.augment import Augmentation
from fedsense_core.data.batches import Batch, drop_band_subset
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
    band_subset: float = 0.0
    """Probability that model and anchor see only a random subset of a batch's bands."""

    def __call__(
        self,
        model: PretrainingModel,
        anchor: PretrainingModel | None,
        batch: Batch | Tensor,
        generator: torch.Generator,
    ) -> StepLoss:
        """Return the losses of one batch of standardised chips; ``anchor`` None skips alignment.

        A bare tensor (B, C, H, W) does for models of fixed bands, and for one that was told its bands by `read_bands`.
        """
        if isinstance(batch, Tensor):
            return self.loss(model, anchor, batch, self.policy, generator)
        shown = drop_band_subset(batch, self.band_subset, generator) if self.band_subset else batch
        for part in (model, anchor):
            if part is not None:
                part.read_bands(shown.bands)
        return self.loss(model, anchor, shown.pixels, self.policy, generator)


def build_recipe(config: Config) -> Recipe:
    """Return the recipe that the configuration names."""
    subset = config.train.band_subset if config.conditioned else 0.0
    if config.train.recipe == "mae":
        return Recipe(geometric_policy(config), mae_loss, subset)
    loss = partial(simclr_loss, temperature=config.train.temperature)
    return Recipe(contrastive_policy(config), loss, subset)


def contrastive_policy(config: Config) -> Augmentation:
    """Return crops with all other changes; those of brightness and colour ``data.jitter`` times as strong as usual."""
    usual, strength = Augmentation(config.data.view_size, config.data.min_scale), config.data.jitter
    return replace(
        usual,
        image_gain=min(1.0, usual.image_gain * strength),  # below 0 the image would be its own negative
        band_gain=min(1.0, usual.band_gain * strength),
        image_offset=usual.image_offset * strength,
        band_offset=usual.band_offset * strength,
        grey=min(1.0, usual.grey * strength),
        blur=config.data.blur,
        noise=config.data.noise,
        drop_bands=config.data.drop_bands,
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
