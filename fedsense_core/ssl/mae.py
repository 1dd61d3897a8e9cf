"""Masked image modelling: predict hidden cells; visible cells stay aligned to the universal
encoder's."""

from __future__ import annotations

import torch
from torch import Tensor

from fedsense_core.config import Config
from fedsense_core.data.batches.augment import Augmentation, augment
from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.ssl.recipe import Recipe
from fedsense_core.ssl.step import StepLoss
from fedsense_core.ssl.views import geometric_policy


class Mae(Recipe):
    """Reconstruction of hidden cells of one view, which is the imagery as it is."""

    name = "mae"
    masks = True
    fewest_chips = 1  # a chip is compared with itself alone
    alignment_weight = 0.1

    @staticmethod
    def augmentation(config: Config) -> Augmentation:
        """Return what leaves the imagery as it is."""
        return geometric_policy(config)

    def loss(
        self,
        model: PretrainingModel,
        anchor: PretrainingModel | None,
        x_BCHW: Tensor,
        generator: torch.Generator,
        teacher: PretrainingModel | None,
    ) -> StepLoss:
        """Return the reconstruction error of hidden cells, and the squared distance of pooled
        visible features.

        Both encoders see the same mask, and their pooled features are LayerNorm'ed, so the distance
        is bounded (by 4).
        """
        assert model.masked is not None, "the mae recipe needs a model built with train.recipe = 'mae'"
        view = augment(x_BCHW, self.policy, generator)
        mask_BN = model.masked.draw_mask(view, generator)
        predicted, pooled = model.masked(model.encoder, view, mask_BN)
        ssl = model.masked.loss(predicted, view, mask_BN)
        if anchor is None or anchor.masked is None:
            return StepLoss(ssl, ssl.new_zeros(()))
        with torch.no_grad():
            target = anchor.masked.pool_visible(anchor.encoder, view, mask_BN)
        return StepLoss(ssl, (pooled.float() - target.float()).square().mean())
