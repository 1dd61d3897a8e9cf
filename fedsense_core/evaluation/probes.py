"""Two probes of frozen features: nearest neighbours and logistic regression.

The weighted neighbour vote is that of Wu et al. 2018 (arXiv 1805.01978), the usual companion of
self-supervised training. Shapes: N training samples, M test samples, D features.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import fedsense_core.pyarrow_workaround  # noqa: F401
from fedsense_core.errors import FedSenseError, SiteError
from fedsense_core.evaluation.embedding import embed
from fedsense_core.evaluation.scores import Scores, score

TEMPERATURE = 0.07
"""Of the neighbour vote exp(cos / T), as in the paper."""
NEIGHBOURS = 20
"""Of each test sample."""
AT_ONCE = 1024
"""Test samples whose similarities are held in memory together."""
INVERSE_PENALTY = 0.1
"""scikit-learn's C, below its default of 1: a few hundred labels do not determine a few hundred
weights a class."""


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
    """A labelled set as `labelled.load_labelled` returns it."""

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


def knn_scores(
    train_f: np.ndarray,
    train_y: np.ndarray,
    test_f: np.ndarray,
    test_y: np.ndarray,
    groups: np.ndarray | None = None,
    k: int = NEIGHBOURS,
) -> Scores:
    """Score the vote of the ``k`` training features (N, D) nearest in cosine to each test feature
    (M, D).

    A neighbour counts exp(cos / 0.07). ``groups`` (M,) are the test samples' scenes. Raises
    SiteError for an empty part or a class without training samples, FedSenseError for features that
    are not finite.
    """
    _check(train_f, train_y, test_f, test_y)
    return score(test_y, knn_predictions(train_f, train_y, test_f, k), groups)


def knn_predictions(train_f: np.ndarray, train_y: np.ndarray, test_f: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Return the classes (M,) for which the neighbours of ``knn_scores`` vote; test samples are
    taken in parts."""
    unit_ND = _unit(train_f)
    votes = []
    for part_BD in np.split(_unit(test_f), range(AT_ONCE, len(test_f), AT_ONCE)):
        cosine_BN = part_BD @ unit_ND.T
        nearest_Bk = np.argsort(-cosine_BN, axis=1, kind="stable")[:, : min(k, len(train_y))]
        weight_Bk = np.exp((np.take_along_axis(cosine_BN, nearest_Bk, 1) - 1) / TEMPERATURE)
        votes.append(np.stack([(weight_Bk * (train_y[nearest_Bk] == y)).sum(1) for y in range(train_y.max() + 1)], 1))
    return np.asarray(np.concatenate(votes).argmax(1))


def linear_scores(
    train_f: np.ndarray,
    train_y: np.ndarray,
    test_f: np.ndarray,
    test_y: np.ndarray,
    groups: np.ndarray | None = None,
) -> Scores:
    """Score a logistic regression on features standardised by the training part's mean and
    deviation.

    Deterministic: the penalised problem is convex and solved from zero. Arguments and errors as in
    ``knn_scores``.
    """
    _check(train_f, train_y, test_f, test_y)
    return score(test_y, linear_predictions(train_f, train_y, test_f), groups)


def linear_predictions(train_f: np.ndarray, train_y: np.ndarray, test_f: np.ndarray) -> np.ndarray:
    """Return the classes (M,) that the probe of ``linear_scores`` predicts."""
    mean, std = train_f.mean(0), train_f.std(0) + 1e-6
    # L-BFGS takes some 40 steps on standardised features; second-order solvers need a (D K)²
    # matrix.
    model = LogisticRegression(C=INVERSE_PENALTY, solver="lbfgs", tol=1e-4, max_iter=1000)
    model.fit((train_f - mean) / std, train_y)
    return np.asarray(model.predict((test_f - mean) / std))


def _unit(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float64)
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12))


def _check(train_f: np.ndarray, train_y: np.ndarray, test_f: np.ndarray, test_y: np.ndarray) -> None:
    for name, features, labels in (("training", train_f, train_y), ("test", test_f, test_y)):
        if len(features) != len(labels):
            raise ValueError(f"the {name} part has {len(features)} features and {len(labels)} labels")
        if len(labels) == 0:
            raise SiteError(f"the {name} part of the labelled set is empty: a probe needs samples in both parts.")
        if not np.isfinite(features).all():
            raise FedSenseError(f"features of the {name} part are not finite: the encoder diverged; train it slower.")
    classes = np.unique(train_y)
    if missing := [int(y) for y in np.setdiff1d(test_y, classes)]:
        raise SiteError(f"classes {missing} of the labelled set have test samples and no training samples: add some.")
    if len(classes) < 2:
        raise SiteError(f"all training samples are of class {int(classes[0])}: a probe needs at least two classes.")
