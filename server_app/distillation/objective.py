"""What a distillation objective is. Shapes: P public chips, B batch, D features, n clients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsense_core.config import DistillationSection
from fedsense_core.data.batches.batch import Batch
from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.registry import implementation
from fedsense_core.ssl.teacher import MovingTeacher

Teachers = Literal["clients", "student", "nobody"]


@dataclass(frozen=True)
class Teacher:
    """One encoder's view of the public imagery."""

    weight: float
    """a_i, the client's share."""
    features: Tensor
    """Normalised features (P, D), half precision: the encoder's, or projections where heads are
    distilled."""


@dataclass(frozen=True)
class Student:
    """The model that learns, and the moving averages of it that its losses look at; all new in
    every round."""

    model: PretrainingModel
    target: MovingTeacher | None
    """What the recipe learns from (byol)."""
    keys: MovingTeacher | None
    """What a batch is compared with (ensemble)."""

    def ema_update(self) -> None:
        """Move the averages towards the model."""
        for average in (self.target, self.keys):
            if average is not None:
                average.ema_update(self.model)


@dataclass(frozen=True)
class Step:
    """One step of distillation: a batch of public chips, and who looks at it."""

    student: Student
    teachers: Sequence[Teacher]
    parts: Sequence[Batch]
    """The B chips, those of one kind together."""
    rows: Tensor
    """Their numbers among the public chips (B,), in the order of ``parts``."""
    represent: Callable[[PretrainingModel, Sequence[Batch]], Tensor]
    """From a model and chips to its features or projections (B, D)."""
    augment: Callable[[], Sequence[Batch]]
    """A new random view of every chip."""
    projects: bool = False
    """Whether ``represent`` gives projections."""

    def student_features(self) -> Tensor:
        """Return normalised features of the student (B, D), with gradient."""
        return normalised(self.represent(self.student.model, self.parts))

    def teacher_features(self) -> Tensor:
        """Return normalised features of all teachers (n, B, D)."""
        features = torch.stack([teacher.features[self.rows] for teacher in self.teachers])
        return features.to(self.parts[0].pixels.device).float()


class Objective(ABC):
    """The distance of a student to what its teachers make of public chips.

    Most match only relations between images, so a client's encoder may be rotated against the
    others'.
    """

    name: ClassVar[str]
    teachers: ClassVar[Teachers]
    """Whose encoders teach."""
    compares_heads: ClassVar[bool] = False
    """Whether projections are compared, so that heads learn too: without averaging nothing else
    moves them. FLESD and FedMKD compare the outputs of their heads."""
    key_decay: ClassVar[float | None] = None
    """Decay of a moving average of the student that makes keys; None where there are none."""

    def __init__(self, settings: DistillationSection) -> None:
        self.settings = settings

    @classmethod
    def of(cls, settings: DistillationSection) -> Objective:
        """Return the one that ``distillation.kind`` names."""
        return implementation("server_app.distillation", settings.kind, Objective)(settings)

    @abstractmethod
    def distance(self, step: Step) -> Tensor:
        """Return the loss of one batch, a scalar."""


def normalised(z_BD: Tensor) -> Tensor:
    """Return float32 features of length 1 (B, D)."""
    return F.normalize(z_BD.float(), dim=1)
