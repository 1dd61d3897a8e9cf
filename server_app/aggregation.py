"""The weighted mean of accepted updates, decoded one at a time into one accumulator.

Memory is two vectors whatever the number of clients; frames wait on disk. The order is that of site names:
floating-point sums depend on it, and Flower's node ids change from one run to the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from server_app.admission import Accepted


def weights_of(accepted: Sequence[Accepted]) -> list[float]:
    """Return p_i, examples seen normalised to one."""
    total = sum(one.examples for one in accepted)
    return [one.examples / total for one in accepted]


def weighted_mean(accepted: Sequence[Accepted]) -> Tensor:
    """Return Σ p_i x_i of what travelled (updates, or models) as float32 (N,).

    The operations and their order are those of Flower's FedAvg on the same ordered replies, so with full models the
    result equals it bit for bit (McMahan et al. 2017, algorithm 1).
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


def spread_of(accepted: Sequence[Accepted], mean_update: Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """Return, by site, the drift ‖Δ̂_i - Δ̄‖/‖Δ̄‖ and the cosine of Δ̂_i to Δ̄ (DESIGN, section 8)."""
    drift, cosine = {}, {}
    size = float(mean_update.norm()) or 1.0
    for one in accepted:
        update = one.update()
        drift[one.site] = float((update - mean_update).norm()) / size
        cosine[one.site] = float(torch.nn.functional.cosine_similarity(update, mean_update, dim=0))
    return drift, cosine
