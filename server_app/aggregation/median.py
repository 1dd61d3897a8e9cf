"""``median``: each coordinate by itself (Yin et al. 2018, arXiv 1803.01498, definition 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from server_app.aggregation.robust_rule import RobustRule
from server_app.aggregation.slices import Floats, by_coordinate
from server_app.round import Accepted


class Median(RobustRule):
    """Bears any minority of attackers; clients weigh alike."""

    name = "median"

    def centre(self, accepted: Sequence[Accepted]) -> Tensor:
        """Return the median (N,)."""
        self.check(len(accepted))
        return by_coordinate(accepted, coordinate_median)


def coordinate_median(values_nS: Floats) -> Floats:
    """Return the median over clients of each coordinate, (n, S) to (S,); of an even number the mean
    of the two in the middle."""
    return np.median(values_nS, axis=0).astype(np.float32)
