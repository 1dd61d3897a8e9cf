"""Mean and deviation per band in one pass over the valid pixels, merged without loss.

Shapes: n chips, C bands, S chip size. The merge is that of Chan, Golub and LeVeque (1979).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Pixel count, mean and sum of squared deviations of each band, all float64 (C,)."""

    count: int
    mean: Float64s
    squares: Float64s

    @classmethod
    def empty(cls, bands: int) -> Moments:
        """Return the moments of no pixel."""
        return cls(0, np.zeros(bands), np.zeros(bands))

    @classmethod
    def of(cls, chips: NDArray[Any], valid: NDArray[np.bool_]) -> Moments:
        """Return the moments of chips (n, C, S, S) where ``valid`` (n, S, S)."""
        count = int(valid.sum())
        if count == 0:
            return cls.empty(chips.shape[1])
        # Band by band: a boolean index over all bands would copy the window C times.
        pixels = (chips[:, band][valid].astype(np.float64) for band in range(chips.shape[1]))
        pairs = [(x.mean(), np.square(x - x.mean()).sum()) for x in pixels]
        return cls(count, np.array([m for m, _ in pairs]), np.array([s for _, s in pairs]))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of pixels together."""
        count = self.count + other.count
        if count == 0:
            return self
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.count / count)
        squares = self.squares + other.squares + gap * gap * (self.count * other.count / count)
        return Moments(count, mean, squares)

    def scaled(self, scale: float, offset: float) -> Moments:
        """Return the moments of ``scale`` times the pixels plus ``offset``."""
        return Moments(self.count, self.mean * scale + offset, self.squares * scale * scale)

    @property
    def std(self) -> Float64s:
        """Standard deviation of each band, at least 1e-6 of its magnitude so that it can divide."""
        deviation = np.sqrt(self.squares / max(self.count, 1))
        floor = 1e-6 * np.maximum(np.abs(self.mean), 1e-6)
        return np.maximum(deviation, floor)


def merge_all(moments: list[Moments]) -> Moments:
    """Return the moments of all the pixels together. The list must not be empty."""
    return reduce(Moments.merge, moments)
