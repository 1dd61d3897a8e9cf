"""LeJEPA (arXiv 2511.08544): views of a chip agree, and every view's embeddings are distributed as N(0, I)."""

from __future__ import annotations

import torch
from torch import Tensor

from fedsense_core.data.augment import Augmentation
from fedsense_core.models import PretrainingModel
from fedsense_core.settings import TrainSection
from fedsense_core.ssl.sigreg import random_directions, sigreg
from fedsense_core.ssl.step import Align, StepLoss, look, precise


def lejepa_distance(z_VBD: Tensor, directions_MD: Tensor, weight: float) -> Tensor:
    """Return (1 - λ) mean (z_v - mean_v z)² + λ mean_v SIGReg(z_v), of embeddings that are not normalised.

    The first mean is over views, chips and the D coordinates too: SIGReg is a mean over directions, and so changes as
    much for each coordinate. λ = 0.02 is published with these two means.
    """
    with torch.autocast(z_VBD.device.type, enabled=False):
        z_VBD = precise(z_VBD)
        apart = (z_VBD - z_VBD.mean(0)).square().mean()
        # View by view: views of one chip are no independent samples.
        shape = torch.stack([sigreg(z_BD, directions_MD) for z_BD in z_VBD]).mean()
        return (1 - weight) * apart + weight * shape


def lejepa_loss(
    model: PretrainingModel,
    anchor: PretrainingModel | None,
    x_BCHW: Tensor,
    policy: Augmentation,
    generator: torch.Generator,
    *,
    settings: TrainSection,
    align: Align,
) -> StepLoss:
    """Return the loss of all views along directions drawn anew, and the alignment."""
    views = look(model, x_BCHW, policy, generator, settings.views)
    z_VBD = torch.stack(views.projected)
    directions_MD = random_directions(settings.sigreg_directions, z_VBD.shape[2], generator).to(z_VBD.device)
    return StepLoss(lejepa_distance(z_VBD, directions_MD, settings.sigreg_weight), align(model, anchor, views))
