"""One step's loss, the same interface for every recipe.

``recipe(model, anchor, batch, generator, teacher) -> StepLoss``; only byol has a teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fedsense_core.config import Config
from fedsense_core.data.batches.augment import Augmentation
from fedsense_core.data.batches.batch import Batch, drop_band_subset
from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.ssl.alignment import cross_distillation, representation_distance
from fedsense_core.ssl.byol import byol_loss
from fedsense_core.ssl.federated import FederatedSigreg
from fedsense_core.ssl.lejepa import lejepa_loss
from fedsense_core.ssl.mae import mae_loss
from fedsense_core.ssl.simclr import simclr_loss
from fedsense_core.ssl.step import Align, StepLoss


@dataclass(frozen=True)
class Recipe:
    """A self-supervised loss with its augmentation."""

    policy: Augmentation
    """How views are made."""
    loss: Callable[..., StepLoss]
    """Called with (model, anchor, x_BCHW, policy, generator), and with ``teacher`` where
    ``taught``."""
    band_subset: float = 0.0
    """Probability that the models see only a random subset of a batch's bands."""
    taught: bool = False
    """Whether the loss learns from a teacher."""

    def __call__(
        self,
        model: PretrainingModel,
        anchor: PretrainingModel | None,
        batch: Batch | Tensor,
        generator: torch.Generator,
        teacher: PretrainingModel | None = None,
    ) -> StepLoss:
        """Return the losses of one batch of standardised chips; ``anchor`` None skips alignment.

        A bare tensor (B, C, H, W) does for models of fixed bands, and for one that was told its
        bands by `read_bands`. A teacher is ignored by recipes without one; raises ValueError where
        the recipe needs one and gets none.
        """
        if self.taught and teacher is None:
            raise ValueError(
                "train.recipe = 'byol' learns from a teacher, but was given none: keep a MovingTeacher of the model, "
                "and pass its model as recipe(..., teacher=...)"
            )
        if isinstance(batch, Tensor):
            pixels = batch
        else:
            shown = drop_band_subset(batch, self.band_subset, generator) if self.band_subset else batch
            for part in (model, anchor, teacher):
                if part is not None:
                    part.read_bands(shown.bands)
            pixels = shown.pixels
        extra = {"teacher": teacher} if self.taught else {}
        return self.loss(model, anchor, pixels, self.policy, generator, **extra)


def build_recipe(config: Config, federated: FederatedSigreg | None = None) -> Recipe:
    """Return the recipe that the configuration names; ``federated`` is what lejepa knows of other
    clients."""
    subset = config.train.band_subset if config.conditioned else 0.0
    recipe, align = config.train.recipe, _alignment(config)
    if recipe == "mae":
        return Recipe(geometric_policy(config), mae_loss, subset)
    policy = contrastive_policy(config)
    if recipe == "byol":
        return Recipe(policy, partial(byol_loss, align=align), subset, taught=True)
    if recipe == "lejepa":
        return Recipe(policy, partial(lejepa_loss, settings=config.train, align=align, federated=federated), subset)
    return Recipe(policy, partial(simclr_loss, temperature=config.train.temperature, align=align), subset)


def _alignment(config: Config) -> Align:
    if config.alignment.kind == "representation":
        return representation_distance
    return partial(cross_distillation, temperature=config.train.temperature)


def contrastive_policy(config: Config) -> Augmentation:
    """Return crops with all other changes; those of brightness and colour ``data.jitter`` times as
    strong as usual."""
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
