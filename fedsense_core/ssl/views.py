"""Random views of a batch: how they are made, and what the model makes of them.

Shapes: B batch, C bands, H x H chip, S view size, D width of a projection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedsense_core.config import Config
from fedsense_core.data.batches.augment import Augmentation, augment
from fedsense_core.models.pretraining import PretrainingModel


@dataclass(frozen=True)
class Views:
    """Random views of a batch, and their projections by the model that learns."""

    images: tuple[Tensor, ...]
    """One (B, C, S, S) for each view."""
    projected: tuple[Tensor, ...]
    """h of each view (B, D)."""


def projected_views(
    model: PretrainingModel, x_BCHW: Tensor, policy: Augmentation, generator: torch.Generator, count: int = 2
) -> Views:
    """Draw ``count`` views of each chip and project them, all in one pass of the encoder."""
    images = tuple(augment(x_BCHW, policy, generator) for _ in range(count))
    embedded = model.embed(torch.cat(images)).chunk(count)
    # View by view: the projector normalises by its batch, and the anchor's batch is one view.
    return Views(images, tuple(model.projector(part) for part in embedded))


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
