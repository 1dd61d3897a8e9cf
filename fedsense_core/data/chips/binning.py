"""Bins and exact sums of pixels: the integers that `Statistics` is made of.

Shapes: N pixels of one band.

Integer pixels have one bin for each value. A float32 is its sign, 8 bits of exponent and 23 of
mantissa (IEEE 754); its bin is the upper 17 of these 32 bits, so a bin is at most 2^-8 of its
values wide. Every float32 is a whole number of 2^-149 and its square one of 2^-298, which are the
units of the sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64s = NDArray[np.float64]
Int64s = NDArray[np.int64]

_CHUNK = 1 << 18
"""Pixels that are binned at once: their copies stay in the processor's cache, and their sums below
2^53 are exact."""
_LOW = 15
"""Bits of a float32 that its bin does not tell."""
_SIGN = 1 << 16
"""Bins of one sign. In order of value, the bin of 0 has this number."""
UNIT = 149
"""Sums of pixels are in units of 2^-149, those of squares in units of its square."""
INTEGER_BINS = range(-(1 << 15), 1 << 16)
"""One bin a value: int16 and uint16 share them."""
FLOAT_BINS = range(1 << 8, (1 << 17) - (1 << 8))
"""Without those of infinities and NaN."""


@dataclass(frozen=True)
class BandSums:
    """Exact sums over the pixels of one band."""

    total: int
    """Sum of the pixels, in units of 2^-149."""
    squares: int
    """Sum of their squares, in units of 2^-298."""
    low: float
    """Least pixel."""
    high: float
    """Greatest pixel."""

    def merge(self, other: BandSums) -> BandSums:
        """Return the sums over both sets of pixels together."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        return BandSums(self.total + other.total, self.squares + other.squares, low, high)


def count_values(pixels: NDArray[Any]) -> Int64s:
    """Return (65536,) how often each value of unsigned pixels (N,) occurs."""
    counts = np.zeros(1 << 16, np.int64)
    for start in range(0, len(pixels), _CHUNK):
        of_chunk = np.bincount(pixels[start : start + _CHUNK])
        counts[: len(of_chunk)] += of_chunk
    return counts


def _raw_bins(pixels: NDArray[np.float32]) -> Int64s:
    """Return the upper 17 bits of each float32; 0 is added so that -0 is 0."""
    return ((pixels + np.float32(0)).view(np.uint32) >> _LOW).astype(np.int64)


def float_bins(pixels: NDArray[np.float32]) -> Int64s:
    """Return the bin of each float32, numbered so that bins grow with the value: negative ones have
    theirs reversed."""
    raw = _raw_bins(pixels)
    return np.where(raw < _SIGN, raw + _SIGN, 2 * _SIGN - 1 - raw)


def float_edges(columns: Int64s) -> tuple[Float64s, Float64s]:
    """Return the lower and upper ends of the values in bins that are numbered in order."""
    return _edge(columns), _edge(columns + 1)


def _edge(columns: Int64s) -> Float64s:
    """Return the float whose bits are the bin's, with zeros below: exponent 0 has no implicit
    leading bit."""
    sign, magnitude = np.sign(columns - _SIGN), np.abs(columns - _SIGN)
    exponent, mantissa = magnitude >> 8, magnitude & 0xFF
    leading = np.where(exponent > 0, 1 << 8, 0)
    edges: Float64s = np.ldexp(
        (sign * (leading + mantissa)).astype(np.float64), np.maximum(exponent, 1) - 1 + _LOW - UNIT
    )
    return edges


def count_floats(pixels: NDArray[np.float32]) -> tuple[Int64s, BandSums]:
    """Return (2^17,) how many pixels (N,) fall into each bin, in order of value, and their exact
    sums.

    Raises ValueError for a pixel that is not finite.
    """
    # Of each bin: pixels, sum of their low bits, sum of the squares of these. The last are below
    # 2^30.
    counts, lows, squares = (np.zeros(2 * _SIGN, np.int64) for _ in range(3))
    for start in range(0, len(pixels), _CHUNK):
        chunk = pixels[start : start + _CHUNK]
        bins = _raw_bins(chunk)
        low = (chunk.view(np.uint32) & ((1 << _LOW) - 1)).astype(np.float64)
        for into, weights in ((counts, None), (lows, low), (squares, low * low)):
            of_chunk = np.bincount(bins, weights)
            into[: len(of_chunk)] += of_chunk.astype(np.int64, copy=False)
    if counts.reshape(2, 256, 256)[:, 255].any():
        raise ValueError("a valid pixel is infinite or not a number")
    total, total_squares = _exact_sums(counts, lows, squares)
    sums = BandSums(total, total_squares, float(pixels.min()) + 0.0, float(pixels.max()) + 0.0)
    return np.concatenate([counts[_SIGN:][::-1], counts[:_SIGN]]), sums


def _exact_sums(counts: Int64s, lows: Int64s, squares: Int64s) -> tuple[int, int]:
    """Return the sums of the pixels and of their squares, in units of 2^-149 and 2^-298.

    A pixel is ±(2^15 b + low) 2^e: b and e are its bin's. The bins of one sign and exponent share
    e, and are added as int64; Python's integers do the rest.
    """
    rows = [x.reshape(512, 256) for x in (counts, lows, squares)]
    total = total_squares = 0
    for row in np.flatnonzero(rows[0].any(axis=1)).tolist():
        n, low, low2 = (x[row] for x in rows)
        sign, exponent = (-1 if row >= 256 else 1), row % 256
        b = np.arange(256) + (256 if exponent else 0)
        shift = max(exponent, 1) - 1
        total += (sign * ((int(n @ b) << _LOW) + int(low.sum()))) << shift
        squared = (int(n @ (b * b)) << (2 * _LOW)) + (int(low @ b) << (_LOW + 1)) + int(low2.sum())
        total_squares += squared << (2 * shift)
    return total, total_squares
