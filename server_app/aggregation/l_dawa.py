"""``l-dawa``: each tensor by its cosine to the global one (Rehman et al. 2023, arXiv
2307.07393)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from fedsense_core.protocol.frame import FrameKind
from fedsense_core.tensors import TensorTable, vector_norm
from server_app.aggregation.rule import AggregationRule
from server_app.round import Accepted


class LDawa(AggregationRule):
    """As published, and as the authors' code does it: after some rounds of plain means."""

    name = "l-dawa"
    normalised: ClassVar[bool] = False

    def combine(self, accepted: Sequence[Accepted], mean: Tensor, table: TensorTable, rounds_before: int) -> Tensor:
        """Return the layerwise mean, or the plain one in the first ``aggregation.plain_rounds``."""
        if rounds_before < self.config.aggregation.plain_rounds:
            return mean
        model = layerwise_mean(accepted, table, normalised=self.normalised)
        expected = accepted[0].expected
        return model if expected.kind == FrameKind.MODEL else model - expected.replica.weights


def layerwise_mean(accepted: Sequence[Accepted], table: TensorTable, *, normalised: bool) -> Tensor:
    """Return the model (N,) that L-DAWA makes of the clients'.

    As published each tensor is Σ c_i w_i / n, where c_i is the cosine of w_i to the global model
    that the round began with; cosines are below 1, so it shrinks. ``normalised`` divides by Σ c_i
    instead. A sum of cosines near or below zero would then blow the tensor up, so a client whose
    tensor points away from the global one (c_i < 0) is left out of that tensor, and where all are,
    the tensor stays as it was.
    """
    base = accepted[0].expected.replica.weights
    total, weights_L = torch.zeros(table.numel), torch.zeros(len(table), dtype=torch.float64)
    for one in accepted:
        parts = zip(table.views(total), table.views(one.model()), table.views(base), strict=True)
        for index, ((_, out), (_, own), (_, start)) in enumerate(parts):
            cosine = cosine_of(own, start)
            weight = max(0.0, cosine) if normalised else cosine
            out += own * weight
            weights_L[index] += weight
    if not normalised:
        return total.div_(len(accepted))
    for (_, out), (_, start), weight in zip(table.views(total), table.views(base), weights_L.tolist(), strict=True):
        out.copy_(out / weight if weight else start)
    return total


def cosine_of(a: Tensor, b: Tensor) -> float:
    """Return the cosine of two vectors (M,); 1 where one is zero: no angle speaks against it."""
    size = vector_norm(a) * vector_norm(b)
    return min(1.0, max(-1.0, float(a.double() @ b.double()) / size)) if size else 1.0
