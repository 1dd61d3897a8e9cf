"""``multi-krum``: the mean of those that lie closest to each other (Blanchard et al. 2017, arXiv
1703.02757, section 4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from server_app.aggregation.robust_rule import RobustRule
from server_app.aggregation.rule import weighted_mean
from server_app.aggregation.slices import slices
from server_app.round import Accepted

Doubles = NDArray[np.float64]


class MultiKrum(RobustRule):
    """Leaves out the f replies that are farthest from their neighbours, f =
    ``aggregation.byzantine``; the rest weigh as in the mean."""

    name = "multi-krum"

    def centre(self, accepted: Sequence[Accepted]) -> Tensor:
        """Return the mean (N,) of n - f replies."""
        self.check(len(accepted))
        return weighted_mean([accepted[row] for row in chosen_rows(squared_distances(accepted), self.attackers)])


def squared_distances(accepted: Sequence[Accepted]) -> Doubles:
    """Return ‖x_i - x_j‖² of all pairs (n, n), summed in float64.

    They are taken from inner products of differences to the first reply: where whole models travel,
    those of the models themselves would cancel.
    """
    products_nn = np.zeros((len(accepted), len(accepted)))
    for values_nS in slices(accepted):
        from_first_nS = (values_nS - values_nS[0]).astype(np.float64)
        products_nn += from_first_nS @ from_first_nS.T
    squares_n = np.diag(products_nn)
    return np.maximum(squares_n[:, None] + squares_n - 2 * products_nn, 0)


def chosen_rows(distances_nn: Doubles, attackers: int) -> list[int]:
    """Return the n - f rows with the best scores, in their order.

    The score of a reply is the sum of its squared distances to the n - f - 2 others that are
    closest to it. Of equal scores the earlier row is better: rows are in the order of site names.
    """
    n = len(distances_nn)
    others_nn = distances_nn + np.diag(np.full(n, np.inf))
    scores_n = np.sort(others_nn, axis=1)[:, : n - attackers - 2].sum(axis=1)
    return sorted(np.argsort(scores_n, kind="stable")[: n - attackers].tolist())
