"""Confusion matrices group by group, from batches of predictions.

Shapes: G groups, K classes, N predictions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedsense_core.tools.downstream.evidence import ConfusionEvidence, Statistic
from fedsense_core.tools.downstream.samples import IGNORED, Array

FEWEST_GROUPS = 8
"""With fewer test images each block of one counts as a group: an interval from two or three groups
says nothing."""


class GroupedConfusion:
    """Counts predictions by group, true class and predicted class."""

    def __init__(self, groups: Sequence[str], classes: int) -> None:
        """Make an empty count for these groups (repeats are one group)."""
        self.groups = tuple(sorted(set(groups)))
        self._position = {group: i for i, group in enumerate(self.groups)}
        self.counts_GKK = np.zeros((len(self.groups), classes, classes))

    def add(self, group: str, truth_N: Array, predicted_N: Array) -> None:
        """Count predictions of one group; where the truth is `IGNORED` there is none."""
        known = truth_N != IGNORED
        classes = self.counts_GKK.shape[1]
        cells = truth_N[known].astype(np.int64) * classes + predicted_N[known]
        self.counts_GKK[self._position[group]] += np.bincount(cells, minlength=classes**2).reshape(classes, classes)

    def evidence(self, statistic: Statistic) -> ConfusionEvidence:
        """Return what was counted; groups without anything to score are left out."""
        seen = self.counts_GKK.sum((1, 2)) > 0
        groups = tuple(group for group, one in zip(self.groups, seen, strict=True) if one)
        return ConfusionEvidence(groups, self.counts_GKK[seen], statistic)
