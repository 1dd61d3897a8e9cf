"""LeJEPA (arXiv 2511.08544): views of a chip agree, and every view's embeddings are distributed as
N(0, I)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.ssl.recipe import Recipe
from fedsense_core.ssl.sigreg import random_directions, sigreg
from fedsense_core.ssl.step import StepLoss, precise
from fedsense_core.ssl.views import projected_views


def lejepa_distance(z_VBD: Tensor, regulariser: Callable[[Tensor], Tensor], weight: float) -> Tensor:
    """Return (1 - λ) mean (z_v - mean_v z)² + λ mean_v R(z_v), of embeddings that are not
    normalised.

    R, from (B, D) to a scalar, is SIGReg along some directions. The first mean is over views, chips
    and the D coordinates too: SIGReg is a mean over directions, and so changes as much for each
    coordinate. λ = 0.02 is published with these two means.
    """
    with torch.autocast(z_VBD.device.type, enabled=False):
        z_VBD = precise(z_VBD)
        apart = (z_VBD - z_VBD.mean(0)).square().mean()
        # View by view: views of one chip are no independent samples.
        shape = torch.stack([regulariser(z_BD) for z_BD in z_VBD]).mean()
        return (1 - weight) * apart + weight * shape


class Lejepa(Recipe):
    """Equal views, and embeddings made Gaussian: each client's own, or all clients' together."""

    name = "lejepa"
    has_sigreg = True

    def loss(
        self,
        model: PretrainingModel,
        anchor: PretrainingModel | None,
        x_BCHW: Tensor,
        generator: torch.Generator,
        teacher: PretrainingModel | None,
    ) -> StepLoss:
        """Return the loss of all views, the alignment, and sums for the other clients where they
        are shared."""
        settings, federated = self.settings, self.federated
        views = projected_views(model, x_BCHW, self.policy, generator, settings.views)
        z_VBD = torch.stack(views.projected)
        if federated is not None and federated.offset is not None:
            loss = lejepa_distance(z_VBD, federated.sigreg, settings.sigreg_weight)
        else:
            drawn_MD = random_directions(settings.sigreg_directions, z_VBD.shape[2], generator).to(z_VBD.device)
            loss = lejepa_distance(z_VBD, partial(sigreg, directions_MD=drawn_MD), settings.sigreg_weight)
        sums = None if federated is None else federated.next_sums(z_VBD)
        return StepLoss(loss, self.align(model, anchor, views), sums)
