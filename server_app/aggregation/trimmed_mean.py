"""``trimmed-mean``: each coordinate without its largest and smallest values (Yin et al. 2018, arXiv
1803.01498, definition 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from server_app.aggregation.robust_rule import RobustRule
from server_app.aggregation.slices import Floats, by_coordinate
from server_app.round import Accepted


class TrimmedMean(RobustRule):
    """Leaves out f values at each end, f = ``aggregation.byzantine``; clients weigh alike.

    The paper trims a share β of the values at each end; f = β n.
    """

    name = "trimmed-mean"

    def centre(self, accepted: Sequence[Accepted]) -> Tensor:
        """Return the trimmed mean (N,)."""
        self.check(len(accepted))
        return by_coordinate(accepted, lambda values_nS: trimmed_mean(values_nS, self.attackers))


def trimmed_mean(values_nS: Floats, trim: int) -> Floats:
    """Return the mean over clients of each coordinate without ``trim`` values at each end, (n, S)
    to (S,).

    Values are added in their order of size, so no order of clients changes a bit.
    """
    kept_kS: Floats = np.sort(values_nS, axis=0)[trim : len(values_nS) - trim]
    mean_S: Floats = kept_kS.mean(axis=0, dtype=np.float32)
    return mean_S
