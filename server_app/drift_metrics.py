"""How far clients are from their mean (docs/method.md, section 8)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from server_app.round import Accepted


def drift_of(accepted: Sequence[Accepted], mean_update: Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """Return, by site, the drift ‖Δ̂_i - Δ̄‖/‖Δ̄‖ and the cosine of Δ̂_i to Δ̄."""
    drift, cosine = {}, {}
    size = float(mean_update.norm()) or 1.0
    for one in accepted:
        update = one.update()
        drift[one.site] = float((update - mean_update).norm()) / size
        cosine[one.site] = float(torch.nn.functional.cosine_similarity(update, mean_update, dim=0))
    return drift, cosine
