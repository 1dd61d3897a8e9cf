"""Accuracy and macro F1 of predicted classes, with a standard error that respects groups of related
chips.

Chips cut from one scene resemble each other, so they are not independent evidence. The standard
error is a cluster bootstrap (Cameron, Gelbach and Miller 2008, "Bootstrap-based improvements for
inference with clustered errors"): whole groups are drawn with replacement.

Shapes: M test samples, G groups, K classes, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsense_core.errors import SiteError

RESAMPLES = 200
"""Enough for a standard error that is itself about 5 % uncertain."""


@dataclass(frozen=True)
class Scores:
    """How well classes were predicted on a test set."""

    accuracy: float
    """Share of right predictions."""
    macro_f1: float
    """Mean over classes of the harmonic mean of precision and recall."""
    macro_f1_se: float
    """Standard error of macro_f1 from resampled groups; NaN when there are fewer than two
    groups."""


def score(truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0) -> Scores:
    """Score ``predicted`` (M,) against ``truth`` (M,), integer classes.

    ``groups`` (M,) names the scene each sample comes from; None makes every sample its own group.
    Macro F1 averages over the classes that occur in truth or prediction, as scikit-learn does.
    Raises SiteError for an empty set.
    """
    if len(truth) == 0:
        raise SiteError("cannot score an empty test set: give at least one labelled sample.")
    counts_G3K = _counts(truth, predicted, groups)
    total = counts_G3K.sum(0)
    resampled = _resampled_f1(counts_G3K, seed)
    return Scores(
        accuracy=float(total[0].sum() / len(truth)),
        macro_f1=float(_macro_f1(total)),
        macro_f1_se=float(resampled.std(ddof=1)) if len(counts_G3K) > 1 else float("nan"),
    )


def _counts(truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Return for each group and class the number of hits, true members and predictions, (G, 3, K)
    float64."""
    codes = np.arange(len(truth)) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    shape = (int(codes.max()) + 1, 3, int(max(truth.max(), predicted.max())) + 1)
    hit = truth == predicted
    counts = np.zeros(int(np.prod(shape)))
    for kind, who, label in ((0, codes[hit], truth[hit]), (1, codes, truth), (2, codes, predicted)):
        cell = np.ravel_multi_index((who, np.full_like(who, kind), label), shape)
        counts += np.bincount(cell, minlength=len(counts))
    return counts.reshape(shape)


def _macro_f1(counts: np.ndarray) -> np.ndarray:
    """Return macro F1 (...) of counts (..., 3, K): F1 = 2 hits / (members + predictions)."""
    hits, size = counts[..., 0, :], counts[..., 1, :] + counts[..., 2, :]
    present = size > 0
    f1 = np.divide(2 * hits, size, out=np.zeros_like(hits), where=present)
    return np.asarray(f1.sum(-1) / present.sum(-1))


def _resampled_f1(counts_G3K: np.ndarray, seed: int) -> np.ndarray:
    """Return macro F1 (R,) of R draws of G groups with replacement: one product of draw counts with
    the counts."""
    groups = len(counts_G3K)
    draws_RG = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES)
    counts = draws_RG @ counts_G3K.reshape(groups, -1)
    return _macro_f1(counts.reshape(RESAMPLES, *counts_G3K.shape[1:]))
