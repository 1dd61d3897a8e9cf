"""Chips with gaps, and chips that show nothing.

Shapes: n chips, C bands, S chip size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Bools = NDArray[np.bool_]


def filled(chips: Array, valid: Bools) -> Array:
    """Give invalid pixels of chips (n, C, S, S) their chip's mean of the band, so that a gap draws
    no edge."""
    for i in np.flatnonzero(~valid.all(axis=(1, 2))):
        for band in chips[i]:
            mean = band[valid[i]].mean(dtype=np.float64)
            band[~valid[i]] = mean if band.dtype.kind == "f" else round(mean)
    return chips


def count_constant(chips: Array) -> int:
    """Return how many of chips (n, C, S, S) have one value all over, in every band."""
    # Three pixels rule out nearly every chip of real imagery.
    suspects = (chips[:, :, (-1, 0, -1), (0, -1, -1)] == chips[:, :, :1, 0]).all(axis=(1, 2))
    suspected = chips[suspects]
    return int(np.count_nonzero((suspected == suspected[:, :, :1, :1]).all(axis=(1, 2, 3))))
