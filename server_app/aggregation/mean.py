"""How accepted updates become one: decoded one at a time into one accumulator.

Memory is a few vectors whatever the number of clients; frames wait on disk. The order is that of
site names: floating-point sums depend on it, and Flower's node ids change from one run to the next.
Shapes: N, L as in ``fedsense_core.tensors``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedsense_core.protocol.frame import FrameKind
from fedsense_core.tensors import TensorTable, vector_norm
from server_app.admission import Accepted


def weights_of(accepted: Sequence[Accepted]) -> list[float]:
    """Return p_i, examples seen normalised to one."""
    total = sum(one.examples for one in accepted)
    return [one.examples / total for one in accepted]


def weighted_mean(accepted: Sequence[Accepted]) -> Tensor:
    """Return Σ p_i x_i of what travelled (updates, or models) as float32 (N,).

    The operations and their order are those of Flower's FedAvg on the same ordered replies, so with
    full models the result equals it bit for bit (McMahan et al. 2017, algorithm 1).
    """
    mean: np.ndarray | None = None
    for one, weight in zip(accepted, weights_of(accepted), strict=True):
        value = one.value().numpy()
        if mean is None:
            mean = value * weight
        else:
            mean += value * weight
    if mean is None:
        raise ValueError("no accepted update to average")
    return torch.from_numpy(mean)


def model_of(one: Accepted) -> Tensor:
    """Return w_i (N,), a client's model as the server decodes it: the replica moved by Δ̂_i, or
    what was sent whole."""
    value = one.value()
    return value if one.expected.kind == FrameKind.MODEL else one.expected.replica.weights + value


def layerwise_mean(accepted: Sequence[Accepted], table: TensorTable, *, normalised: bool) -> Tensor:
    """Return the model (N,) that L-DAWA makes of the clients' (Rehman et al. 2023, arXiv
    2307.07393, and its code).

    As published each tensor is Σ c_i w_i / n, where c_i is the cosine of w_i to the global model
    that the round began with; cosines are below 1, so it shrinks. ``normalised`` divides by Σ c_i
    instead. A sum of cosines near or below zero would then blow the tensor up, so a client whose
    tensor points away from the global one (c_i < 0) is left out of that tensor, and where all are,
    the tensor stays as it was.
    """
    base = accepted[0].expected.replica.weights
    total, weights_L = torch.zeros(table.numel), torch.zeros(len(table), dtype=torch.float64)
    for one in accepted:
        parts = zip(table.views(total), table.views(model_of(one)), table.views(base), strict=True)
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
    """Return the cosine of two vectors (M,); 1 where one of them is zero: no angle, so nothing
    speaks against it."""
    size = vector_norm(a) * vector_norm(b)
    return min(1.0, max(-1.0, float(a.double() @ b.double()) / size)) if size else 1.0


def spread_of(accepted: Sequence[Accepted], mean_update: Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """Return, by site, the drift ‖Δ̂_i - Δ̄‖/‖Δ̄‖ and the cosine of Δ̂_i to Δ̄ (DESIGN, section
    8)."""
    drift, cosine = {}, {}
    size = float(mean_update.norm()) or 1.0
    for one in accepted:
        update = one.update()
        drift[one.site] = float((update - mean_update).norm()) / size
        cosine[one.site] = float(torch.nn.functional.cosine_similarity(update, mean_update, dim=0))
    return drift, cosine
