"""SimCLR (arXiv 2002.05709): two views of a chip attract, all other chips of the batch repel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsense_core.data.augment import Augmentation, augment
from fedsense_core.models import PretrainingModel
from fedsense_core.ssl.step import StepLoss


def nt_xent(a_BD: Tensor, b_BD: Tensor, temperature: float) -> Tensor:
    """Return the normalised temperature-scaled cross entropy of paired projections (equation 1 of the paper)."""
    with torch.autocast(a_BD.device.type, enabled=False):  # in bf16 the logits would be off by several hundredths
        z = F.normalize(torch.cat([a_BD, b_BD]).to(torch.promote_types(a_BD.dtype, torch.float32)), dim=1)
        logits = z @ z.T / temperature
        logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), float("-inf"))
        partner = torch.arange(len(z), device=z.device).roll(len(a_BD))
        return F.cross_entropy(logits, partner)


def simclr_loss(
    model: PretrainingModel,
    anchor: PretrainingModel | None,
    x_BCHW: Tensor,
    policy: Augmentation,
    generator: torch.Generator,
    *,
    temperature: float,
) -> StepLoss:
    """Return the contrastive loss of two views, and 1 - cos(h, stopgrad h_anchor) on the first of them."""
    first, second = augment(x_BCHW, policy, generator), augment(x_BCHW, policy, generator)
    embedded_first, embedded_second = model.embed(torch.cat([first, second])).chunk(2)
    # Views apart: the projector normalises by its batch, and the anchor's batch is the first view.
    h_first, h_second = model.projector(embedded_first), model.projector(embedded_second)
    return StepLoss(nt_xent(h_first, h_second, temperature), _alignment(h_first, anchor, first))


def _alignment(h_BD: Tensor, anchor: PretrainingModel | None, view: Tensor) -> Tensor:
    if anchor is None:
        return h_BD.new_zeros(())
    with torch.no_grad():
        target = anchor.project(view)
    return (1 - F.cosine_similarity(h_BD.float(), target.float(), dim=1)).mean()
