"""The losses of one optimiser step, and the views of a batch that contrastive recipes compare.

Shapes: B batch, C bands, H x H chip, S view size, D width of a projection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsense_core.data.batches.augment import Augmentation, augment
from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.ssl.sigreg import SigregStatistics


@dataclass(frozen=True)
class StepLoss:
    """The two terms that local training minimises: ssl + μ alignment (DESIGN, section 3)."""

    ssl: Tensor
    """Self-supervised loss, scalar."""
    alignment: Tensor
    """Distance to the universal encoder's representation, scalar; zero without an anchor."""
    sums: SigregStatistics | None = None
    """What the other clients are to know of the batch's embeddings (lejepa,
    ``train.federated_sigreg``)."""

    def total(self, weight: float) -> Tensor:
        """Return ssl + weight * alignment."""
        return self.ssl + weight * self.alignment if weight else self.ssl


@dataclass(frozen=True)
class Views:
    """Random views of a batch, and what the model that learns makes of them."""

    images: tuple[Tensor, ...]
    """One (B, C, S, S) for each view."""
    projected: tuple[Tensor, ...]
    """h of each view (B, D)."""


Align = Callable[[PretrainingModel, PretrainingModel | None, Views], Tensor]
"""From the model that learns, its anchor and the views to the alignment loss; zero without an
anchor."""


def look(
    model: PretrainingModel, x_BCHW: Tensor, policy: Augmentation, generator: torch.Generator, count: int = 2
) -> Views:
    """Draw ``count`` views of each chip and project them, all in one pass of the encoder."""
    images = tuple(augment(x_BCHW, policy, generator) for _ in range(count))
    embedded = model.embed(torch.cat(images)).chunk(count)
    # Views apart: the projector normalises by its batch, and the anchor's batch is one view.
    return Views(images, tuple(model.projector(part) for part in embedded))


def precise(x: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 if it is: losses of bf16 numbers would be off by
    hundredths."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
