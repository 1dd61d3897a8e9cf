"""BYOL (arXiv 2006.07733): predict from one view what a slowly moving teacher makes of the
other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.ssl.recipe import Recipe
from fedsense_core.ssl.step import StepLoss, precise
from fedsense_core.ssl.views import projected_views


def byol_distance(predicted_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Return the mean of 2 - 2 cos(q, z'), the squared distance of the normalised vectors (equation
    2)."""
    return (2 - 2 * F.cosine_similarity(precise(predicted_BD), precise(target_BD), dim=1)).mean()


class Byol(Recipe):
    """Predictions of each view from the other, as in section 3.1 of the paper."""

    name = "byol"
    needs_teacher = True
    needs_predictor = True
    contrasts_two_views = True

    def loss(
        self,
        model: PretrainingModel,
        anchor: PretrainingModel | None,
        x_BCHW: Tensor,
        generator: torch.Generator,
        teacher: PretrainingModel | None,
    ) -> StepLoss:
        """Return the distance of predictions to the teacher's projections of the other view, and
        the alignment. No gradient reaches the teacher."""
        assert model.predictor is not None, "the byol recipe needs a model built with train.recipe = 'byol'"
        assert teacher is not None, "the byol recipe needs a teacher"
        views = projected_views(model, x_BCHW, self.policy, generator)
        first, second = (model.predictor(h_BD) for h_BD in views.projected)
        with torch.no_grad():
            target_first, target_second = (teacher.project(image) for image in views.images)
        # The paper adds the two, which doubles loss and gradient.
        ssl = (byol_distance(first, target_second) + byol_distance(second, target_first)) / 2
        return StepLoss(ssl, self.align(model, anchor, views))
