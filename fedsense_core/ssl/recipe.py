"""What a recipe is: one step's loss, how its views are made, and what it needs of the model.

Each recipe is a class in the file of its name; ``train.recipe`` names it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import ClassVar, assert_never

import torch
from torch import Tensor

from fedsense_core.config import Config
from fedsense_core.data.batches.augment import Augmentation
from fedsense_core.data.batches.batch import Batch, drop_band_subset
from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.registry import implementation
from fedsense_core.ssl.federated import FederatedSigreg
from fedsense_core.ssl.step import StepLoss
from fedsense_core.ssl.views import Views, contrastive_policy

Align = Callable[[PretrainingModel, PretrainingModel | None, Views], Tensor]
"""From the model that learns, its anchor and the views to the alignment loss; zero without an
anchor."""


class Recipe(ABC):
    """A self-supervised loss with its augmentation.

    Its loss must have the same value when it is computed twice from the same state of the
    generator: local training takes a second gradient of a step so (``guidance.kind = "sam"``).
    """

    name: ClassVar[str]
    """As ``train.recipe`` has it."""
    needs_teacher: ClassVar[bool] = False
    """Whether the loss learns from a moving average of the model."""
    needs_predictor: ClassVar[bool] = False
    """Whether the model has a second head, which predicts projections."""
    masks: ClassVar[bool] = False
    """Whether parts of the image are hidden: the model has a decoder that predicts them, and no
    projector learns."""
    contrasts_two_views: ClassVar[bool] = False
    """Whether exactly two views of a chip are compared, as ``alignment.kind = "cross"`` does."""
    has_sigreg: ClassVar[bool] = False
    """Whether embeddings are made Gaussian, which ``train.federated_sigreg`` asks of those of all
    clients together."""
    fewest_chips: ClassVar[int] = 2
    """Smallest batch that has a loss: alone, a chip has nothing to be contrasted with."""
    alignment_weight: ClassVar[float] = 0.5
    """μ where ``alignment.weight`` is ``auto``."""

    def __init__(self, config: Config, federated: FederatedSigreg | None = None) -> None:
        self.settings = config.train
        self.policy = self.augmentation(config)
        self.band_subset = config.train.band_subset if config.conditioned else 0.0
        """Probability that the models see only a random subset of a batch's bands."""
        self.align = _alignment(config)
        self.federated = federated
        """What is known of other clients' embeddings, where they are shared."""

    @staticmethod
    def augmentation(config: Config) -> Augmentation:
        """Return how views are made."""
        return contrastive_policy(config)

    @abstractmethod
    def loss(
        self,
        model: PretrainingModel,
        anchor: PretrainingModel | None,
        x_BCHW: Tensor,
        generator: torch.Generator,
        teacher: PretrainingModel | None,
    ) -> StepLoss:
        """Return the losses of chips; ``teacher`` is None only where `needs_teacher` is false."""

    def __call__(
        self,
        model: PretrainingModel,
        anchor: PretrainingModel | None,
        batch: Batch | Tensor,
        generator: torch.Generator,
        teacher: PretrainingModel | None = None,
    ) -> StepLoss:
        """Return the losses of one batch of standardised chips; ``anchor`` None skips alignment.

        A bare tensor (B, C, H, W) does for models of fixed bands, and for one whose bands
        `read_bands` has set. A teacher is ignored by recipes without one; raises ValueError where
        the recipe needs one and gets none.
        """
        if self.needs_teacher and teacher is None:
            raise ValueError(
                f"train.recipe = {self.name!r} learns from a teacher, but was given none: keep a MovingTeacher of the "
                "model, and pass its model as recipe(..., teacher=...)"
            )
        if isinstance(batch, Tensor):
            return self.loss(model, anchor, batch, generator, teacher)
        shown = drop_band_subset(batch, self.band_subset, generator) if self.band_subset else batch
        for part in (model, anchor, teacher):
            if part is not None:
                part.read_bands(shown.bands)
        return self.loss(model, anchor, shown.pixels, generator, teacher)


def recipe_class(name: str) -> type[Recipe]:
    """Return the recipe of a name. Raises LookupError where there is none."""
    return implementation("fedsense_core.ssl", name, Recipe)


def build_recipe(config: Config, federated: FederatedSigreg | None = None) -> Recipe:
    """Return the recipe that the configuration names; ``federated`` is what is known of other
    clients' embeddings."""
    return recipe_class(config.train.recipe)(config, federated)


def _alignment(config: Config) -> Align:
    # Here, because FedX builds on the loss of SimCLR, and that recipe on this file.
    from fedsense_core.ssl.alignment import cross_distillation, representation_distance

    match config.alignment.kind:
        case "representation":
            return representation_distance
        case "cross":
            return partial(cross_distillation, temperature=config.train.temperature)
        case unknown:
            assert_never(unknown)
