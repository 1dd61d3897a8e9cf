"""``mean``: by examples seen (McMahan et al. 2017, algorithm 1), and by ``aggregation.weights``."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fedsense_core.tensors import TensorTable
from server_app.aggregation.rule import AggregationRule
from server_app.round import Accepted


class Mean(AggregationRule):
    """Σ p_i x_i."""

    name = "mean"

    def combine(self, accepted: Sequence[Accepted], mean: Tensor, table: TensorTable, rounds_before: int) -> Tensor:
        """Return the mean."""
        return mean
