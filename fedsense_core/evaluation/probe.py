"""Both probes of an encoder on one labelled set."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fedsense_core.evaluation.embedding import embed
from fedsense_core.evaluation.probes import knn_scores, linear_scores


class LabelledPart(Protocol):
    """Labelled chips of one part, n of them."""

    @property
    def values(self) -> Tensor | np.ndarray:
        """(n, C, H, W) float32, standardised."""

    @property
    def labels(self) -> Tensor | np.ndarray:
        """(n,) integers."""

    @property
    def groups(self) -> Tensor | np.ndarray:
        """(n,) integers that name the scene of each chip."""


class LabelledParts(Protocol):
    """A labelled set as ``fedsense_core.data`` loads it."""

    @property
    def train(self) -> LabelledPart:
        """What the probes learn from."""

    @property
    def test(self) -> LabelledPart:
        """What they are scored on."""


@dataclass(frozen=True)
class ProbeScores:
    """What a metrics line says about an encoder."""

    knn_accuracy: float
    knn_macro_f1: float
    linear_accuracy: float
    linear_macro_f1: float
    linear_macro_f1_se: float

    def as_dict(self) -> dict[str, float]:
        """Return the fields by name."""
        return asdict(self)


def probe(
    encoder: nn.Module, labelled: LabelledParts, size: int | None = None, device: str | torch.device = "cpu"
) -> ProbeScores:
    """Score ``encoder`` on ``labelled`` by weighted nearest neighbours and by logistic regression.

    Chips are resized to ``size`` x ``size`` pixels first. Deterministic. Raises SiteError for an
    empty part or a class without training samples, FedSenseError when the encoder has diverged.
    """
    train_f, test_f = (
        embed(encoder, torch.as_tensor(part.values), size=size, device=device)
        for part in (labelled.train, labelled.test)
    )
    train_y, test_y, groups = map(np.asarray, (labelled.train.labels, labelled.test.labels, labelled.test.groups))
    knn = knn_scores(train_f, train_y, test_f, test_y, groups)
    linear = linear_scores(train_f, train_y, test_f, test_y, groups)
    return ProbeScores(
        knn_accuracy=knn.accuracy,
        knn_macro_f1=knn.macro_f1,
        linear_accuracy=linear.accuracy,
        linear_macro_f1=linear.macro_f1,
        linear_macro_f1_se=linear.macro_f1_se,
    )
