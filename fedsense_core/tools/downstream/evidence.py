"""What a score was computed from, group by group, so that it can be computed again from resampled
groups.

Chips of one scene, tiles of one flight and pixels of one image are not independent evidence. A
cluster bootstrap draws whole groups with replacement (Cameron, Gelbach and Miller 2008); two
methods are compared under the same draws. For this every score is a function of weights, one for
each group: how often the group was drawn.

Shapes: G groups, K classes, D detections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, assert_never

import numpy as np

Statistic = Literal["accuracy", "macro-f1", "mean-iou", "positive-f1"]


class Evidence(Protocol):
    """Enough to score a task under any weights of its groups."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups (G,)."""

    def value(self, weights_G: np.ndarray) -> float:
        """Return the score when group g counts ``weights_G[g]`` times; NaN where nothing is left to
        score."""


@dataclass(frozen=True)
class ConfusionEvidence:
    """Classification of chips or pixels: a confusion matrix a group."""

    groups: tuple[str, ...]
    counts_GKK: np.ndarray
    """Samples by group, true class and predicted class, float64."""
    statistic: Statistic

    def value(self, weights_G: np.ndarray) -> float:
        """Return the statistic of the weighted sum of all matrices.

        ``accuracy`` is the share on the diagonal. The means run over classes that occur in truth or
        prediction; ``positive-f1`` is the F1 of class 1 alone.
        """
        counts_KK = np.tensordot(np.asarray(weights_G, np.float64), self.counts_GKK, axes=1)
        hits, members, predicted = np.diag(counts_KK), counts_KK.sum(1), counts_KK.sum(0)
        total = counts_KK.sum()
        if total == 0:
            return float("nan")
        match self.statistic:
            case "accuracy":
                return float(hits.sum() / total)
            case "mean-iou":
                return _mean_present(hits, members + predicted - hits)
            case "macro-f1":
                return _mean_present(2 * hits, members + predicted)
            case "positive-f1":
                return _mean_present(2 * hits[1:2], (members + predicted)[1:2])
            case _:
                assert_never(self.statistic)


@dataclass(frozen=True)
class DetectionEvidence:
    """Detection at one overlap threshold: each detection's score and whether it found an object of
    its class."""

    groups: tuple[str, ...]
    objects_GK: np.ndarray
    """Objects by group and class, float64."""
    scores_D: np.ndarray
    hits_D: np.ndarray
    """Bool."""
    classes_D: np.ndarray
    """Positions of classes, integers."""
    group_D: np.ndarray
    """Positions in ``groups``, integers."""

    def value(self, weights_G: np.ndarray) -> float:
        """Return the mean over classes with objects of the average precision, as COCO has it.

        That is the mean of precision, made non-increasing, at the 101 recalls 0, 0.01, ..., 1.
        """
        weights_G = np.asarray(weights_G, np.float64)
        objects_K = weights_G @ self.objects_GK
        precisions = [
            self._average_precision(k, weights_G, objects_K[k]) for k in range(len(objects_K)) if objects_K[k]
        ]
        return float(np.mean(precisions)) if precisions else float("nan")

    def _average_precision(self, k: int, weights_G: np.ndarray, objects: float) -> float:
        mine = np.flatnonzero(self.classes_D == k)
        order = mine[np.argsort(-self.scores_D[mine], kind="stable")]
        weight = weights_G[self.group_D[order]]
        hits = np.cumsum(weight * self.hits_D[order])
        shown = np.cumsum(weight)
        precision = np.divide(hits, shown, out=np.zeros_like(hits), where=shown > 0)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        first_S = np.searchsorted(hits / objects, np.linspace(0, 1, 101))
        return float(np.append(envelope, 0.0)[first_S].mean())


def _mean_present(over: np.ndarray, under: np.ndarray) -> float:
    present = under > 0
    ratio = np.divide(over, under, out=np.zeros_like(over), where=present)
    return float(ratio.sum() / present.sum()) if present.any() else float("nan")
