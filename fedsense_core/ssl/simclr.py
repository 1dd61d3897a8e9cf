"""SimCLR (arXiv 2002.05709): two views of a chip attract, all other chips of the batch repel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.ssl.recipe import Recipe
from fedsense_core.ssl.step import StepLoss, precise
from fedsense_core.ssl.views import projected_views


def nt_xent(a_BD: Tensor, b_BD: Tensor, temperature: float) -> Tensor:
    """Return the normalised temperature-scaled cross entropy of paired projections (equation 1 of
    the paper)."""
    with torch.autocast(a_BD.device.type, enabled=False):  # in bf16 the logits would be off by several hundredths
        z = F.normalize(precise(torch.cat([a_BD, b_BD])), dim=1)
        logits = z @ z.T / temperature
        logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), float("-inf"))
        partner = torch.arange(len(z), device=z.device).roll(len(a_BD))
        return F.cross_entropy(logits, partner)


class Simclr(Recipe):
    """NT-Xent of the projections of two views."""

    name = "simclr"
    contrasts_two_views = True

    def loss(
        self,
        model: PretrainingModel,
        anchor: PretrainingModel | None,
        x_BCHW: Tensor,
        generator: torch.Generator,
        teacher: PretrainingModel | None,
    ) -> StepLoss:
        """Return the contrastive loss of two views, and their alignment."""
        views = projected_views(model, x_BCHW, self.policy, generator)
        first, second = views.projected
        return StepLoss(nt_xent(first, second, self.settings.temperature), self.align(model, anchor, views))
