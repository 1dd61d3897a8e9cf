"""Clip: no update counts with more than the median length of its round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from fedsense_core.config import AggregationSection
from server_app.round import Accepted


def clipped(accepted: list[Accepted], settings: AggregationSection) -> list[Accepted]:
    """Return the replies as ``aggregation.clip`` lets them count."""
    match settings.clip:
        case "none":
            return accepted
        case "median":
            return clipped_to_median(accepted)
        case unknown:
            assert_never(unknown)


def clipped_to_median(accepted: Sequence[Accepted]) -> list[Accepted]:
    """Return the replies, each as Δ̂_i min(1, m / ‖Δ̂_i‖), m = median of ‖Δ̂_j‖ over the round.

    Norms were measured when replies were admitted, so frames are decoded once, as for the plain
    mean. A minority of attackers cannot move m beyond the norms of honest clients, and the order in
    which replies come does not matter. Bounding norms is the defence of Sun et al. 2019 (arXiv
    1911.07963); the median as the bound is that of Andrew et al. 2021 (arXiv 1905.03871).
    """
    if not accepted:
        return []
    median = statistics.median(one.norm for one in accepted)
    return [replace(one, scale=median / one.norm) if one.norm > median else one for one in accepted]
