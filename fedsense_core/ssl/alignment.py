"""How contrastive recipes stay near the universal encoder: by its representation, or by the
relations of FedX.

FedX is arXiv 2207.09158, sections 3.2 and 3.3. Shapes: B batch, D width of a projection.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.ssl.simclr import nt_xent
from fedsense_core.ssl.step import precise
from fedsense_core.ssl.views import Views


def representation_distance(model: PretrainingModel, anchor: PretrainingModel | None, views: Views) -> Tensor:
    """Return the mean of 1 - cos(h, stopgrad h_anchor) on the first view; zero without an
    anchor."""
    h_BD = views.projected[0]
    if anchor is None:
        return h_BD.new_zeros(())
    with torch.no_grad():
        target = anchor.project(views.images[0])
    return (1 - F.cosine_similarity(precise(h_BD), precise(target), dim=1)).mean()


def cross_distillation(
    model: PretrainingModel, anchor: PretrainingModel | None, views: Views, *, temperature: float
) -> Tensor:
    """Return what FedX adds to the local contrastive loss; zero without an anchor, which is the
    global model.

    Local relations (JS of how both views of a chip relate to others, by the model's projections),
    global contrast (NT-Xent of predictions with the anchor's projections of the other view) and
    global relations (JS of how both views, by the model's predictions, relate to the anchor's
    projections of others). The others are the second views of all other chips of the batch, which
    is drawn at random; the paper draws another batch for it, whose projection would be half as much
    work again.
    """
    first, second = views.projected
    if anchor is None:
        return first.new_zeros(())
    assert model.predictor is not None, "alignment.kind = 'cross' needs a model built with it"
    with torch.no_grad():
        target = anchor.project(views.images[1])
    predicted_first, predicted_second = model.predictor(first), model.predictor(second)
    local_relations = js_divergence(relations(first, second, temperature), relations(second, second, temperature))
    global_contrast = nt_xent(predicted_first, target, temperature)
    global_relations = js_divergence(
        relations(predicted_first, target, temperature), relations(predicted_second, target, temperature)
    )
    return local_relations + global_contrast + global_relations


def relations(z_BD: Tensor, others_BD: Tensor, temperature: float) -> Tensor:
    """Return log softmax of cos(z_i, others_j)/τ over j ≠ i (B, B - 1): how each chip relates to
    the other chips."""
    with torch.autocast(z_BD.device.type, enabled=False):
        logits = F.normalize(precise(z_BD), dim=1) @ F.normalize(precise(others_BD), dim=1).T / temperature
        n = len(logits)
        # Without the diagonal: in rows of n + 1 instead of n, all of it stands in one column.
        return logits.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1).log_softmax(dim=1)


def js_divergence(log_p_BN: Tensor, log_q_BN: Tensor) -> Tensor:
    """Return the mean over rows of (KL(p ‖ m) + KL(q ‖ m)) / 2 with m = (p + q) / 2, from log
    probabilities."""
    log_m = torch.logaddexp(log_p_BN, log_q_BN) - math.log(2)
    terms = log_p_BN.exp() * (log_p_BN - log_m) + log_q_BN.exp() * (log_q_BN - log_m)
    return terms.sum(dim=1).mean() / 2
