"""What the valid pixels of each band are like: mean, deviation, percentiles and range, in one pass,
merged exactly.

Shapes: n chips, C bands, S chip size, W bins.

A `Statistics` holds only integers that add: how many pixels fall into each bin, and exact sums. So
any split of the same pixels into windows, files or institutions, merged in any order, gives the
same object bit for bit, and each figure is derived from it by exact arithmetic that is rounded at
the end: a deviation that is tiny beside the mean loses nothing. `binning` says what the bins are.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, reduce
from typing import Annotated, Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from fedsense_core.data.chips.binning import (
    FLOAT_BINS,
    INTEGER_BINS,
    UNIT,
    BandSums,
    Float64s,
    Int64s,
    count_floats,
    count_values,
    float_bins,
    float_edges,
)

MAX_COUNT = 1 << 45
"""Most pixels in statistics that are read from JSON: many of these still add up within 64 bits."""
MAX_BANDS = 64
"""As many as a sensor card may have."""
_FLOAT_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics of each band. Equal objects are equal in every bit."""

    count: int
    """Valid pixels: the same for every band."""
    first: int
    """Bin of the first column of ``counts``: of integers the value itself."""
    counts: Int64s
    """(C, W) pixels in each bin. The first and the last column are not empty."""
    sums: tuple[BandSums, ...] | None = None
    """Of float pixels, one for each band. None for integers, whose bins tell everything."""

    @classmethod
    def empty(cls, bands: int) -> Statistics:
        """Return the statistics of no pixel."""
        return cls(0, 0, np.zeros((bands, 0), np.int64))

    @classmethod
    def of(cls, chips: NDArray[Any], valid: NDArray[np.bool_]) -> Statistics:
        """Return the statistics of chips (n, C, S, S) where ``valid`` (n, S, S).

        Types other than integers of up to 16 bits are taken as float32, as the model takes them.
        Raises ValueError for shapes that do not fit, and for a valid pixel that is not finite.
        """
        if chips.ndim != 4 or valid.shape != (len(chips), *chips.shape[2:]):
            raise ValueError(f"chips are (n, C, S, S) and valid is (n, S, S), not {chips.shape} and {valid.shape}")
        count = int(np.count_nonzero(valid))
        if count == 0:
            return cls.empty(chips.shape[1])
        # Band by band: a boolean index over all bands would copy the window C times. None if it
        # would change nothing.
        where = None if count == valid.size else valid.reshape(-1)
        flat = (chips[:, band].reshape(-1) for band in range(chips.shape[1]))
        pixels = (x if where is None else x[where] for x in flat)
        if np.can_cast(chips.dtype, np.uint16):
            return _trimmed(count, 0, np.stack([count_values(x) for x in pixels]))
        if np.can_cast(chips.dtype, np.int16):
            raw = np.stack([count_values(x.astype(np.int16).view(np.uint16)) for x in pixels])
            return _trimmed(count, -(1 << 15), np.roll(raw, 1 << 15, axis=1))
        with np.errstate(over="ignore"):  # what overflows is refused as not finite
            bands = [count_floats(x.astype(np.float32, copy=False)) for x in pixels]
        return _trimmed(count, 0, np.stack([bins for bins, _ in bands]), tuple(sums for _, sums in bands))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Statistics):
            return NotImplemented
        same = (self.count, self.first, self.sums) == (other.count, other.first, other.sums)
        return same and np.array_equal(self.counts, other.counts)

    @property
    def bands(self) -> int:
        """Number of bands C."""
        return len(self.counts)

    def band(self, number: int) -> Statistics:
        """Return the statistics of one band alone; the first is 0."""
        counts = self.counts[number : number + 1]
        sums = None if self.sums is None else self.sums[number : number + 1]
        return _trimmed(self.count, self.first, counts, sums) if self.count else Statistics.empty(1)

    def merge(self, other: Statistics) -> Statistics:
        """Return the statistics of both sets of pixels together; integers and floats give floats.

        Raises ValueError when the numbers of bands differ.
        """
        if self.bands != other.bands:
            raise ValueError(f"statistics of {self.bands} and of {other.bands} bands cannot be merged")
        if not self.count or not other.count:
            return self if self.count else other
        if (self.sums is None) != (other.sums is None):
            return self._as_floats().merge(other._as_floats())
        first = min(self.first, other.first)
        stop = max(part.first + part.counts.shape[1] for part in (self, other))
        counts = np.zeros((self.bands, stop - first), np.int64)
        for part in (self, other):
            counts[:, part.first - first :][:, : part.counts.shape[1]] += part.counts
        pairs = zip(self.sums or (), other.sums or (), strict=True)
        sums = None if self.sums is None else tuple(a.merge(b) for a, b in pairs)
        return Statistics(self.count + other.count, first, counts, sums)

    @property
    def mean(self) -> Float64s:
        """(C,) the exact mean, rounded to float64; 0 without pixels."""
        return np.array([band.total / (max(self.count, 1) << UNIT) for band in self.exact], np.float64)

    @property
    def std(self) -> Float64s:
        """(C,) standard deviation of each band, at least 1e-6 of its magnitude so that it can
        divide."""
        n = max(self.count, 1)
        variances = [(n * band.squares - band.total**2) / ((n * n) << (2 * UNIT)) for band in self.exact]
        floor = 1e-6 * np.maximum(np.abs(self.mean), 1e-6)
        return np.maximum(np.sqrt(np.array(variances, np.float64)), floor)

    @property
    def minimum(self) -> Float64s:
        """(C,) least pixel of each band. Raises ValueError without pixels."""
        self._raise_if_empty()
        return np.array([band.low for band in self.exact])

    @property
    def maximum(self) -> Float64s:
        """(C,) greatest pixel of each band. Raises ValueError without pixels."""
        self._raise_if_empty()
        return np.array([band.high for band in self.exact])

    def percentiles(self, qs: Sequence[float]) -> Float64s:
        """Return (len(qs), C) percentiles, each q from 0 to 100.

        With N pixels in order of value, percentile q is the one of rank ceil(q N / 100), and of
        rank 1 for q = 0: the inverse of the empirical distribution. Of integers it is exact. Of
        floats, the pixels of a bin are taken as evenly spread over it, so that the result is within
        2^-8 of the exact one, relatively (2^-134 absolutely for values below 2^-126); the ranks 1
        and N are exact. Raises ValueError without pixels, and for a q outside 0 to 100.
        """
        self._raise_if_empty()
        if not all(0 <= q <= 100 for q in qs):
            raise ValueError(f"percentiles lie between 0 and 100, not {list(qs)}")
        ranks = [max(1, math.ceil(Fraction(q) * self.count / 100)) for q in qs]
        return np.array([self._at(ranks, band) for band in range(self.bands)]).reshape(self.bands, len(qs)).T

    def summary(self) -> dict[str, Any]:
        """Return ``count`` and the lists ``mean``, ``std``, ``p2``, ``p98``, ``min`` and ``max``,
        one float a band.

        Raises ValueError without pixels.
        """
        p2, p98 = self.percentiles([2, 98])
        named = {"mean": self.mean, "std": self.std, "p2": p2, "p98": p98, "min": self.minimum, "max": self.maximum}
        return {"count": self.count, **{name: values.tolist() for name, values in named.items()}}

    def to_json(self) -> dict[str, Any]:
        """Return plain values from which `from_json` makes an equal object."""
        sums = [{**vars(band), "total": hex(band.total), "squares": hex(band.squares)} for band in self.sums or ()]
        # Upper bytes of counts are nearly all 0: side by side they compress to almost nothing.
        planes = np.ascontiguousarray(self.counts.astype("<i8").reshape(-1, 1).view(np.uint8).T)
        return {
            "kind": "integer" if self.sums is None else "float",
            "count": self.count,
            "bands": self.bands,
            "first": self.first,
            "bins": self.counts.shape[1],
            "counts": base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode("ascii"),
            "sums": sums,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Statistics:
        """Return the statistics that `to_json` wrote. ``fields`` may come from anyone.

        Raises ValueError for anything that no pixels could have given; allocates at most a few
        times 64 MiB.
        """
        packed = _Packed.model_validate(fields)
        match packed.kind:
            case "integer":
                allowed, sums_needed = INTEGER_BINS, 0
            case "float":
                allowed, sums_needed = FLOAT_BINS, packed.bands
            case unknown:
                assert_never(unknown)
        if not (allowed.start <= packed.first and packed.first + packed.bins <= allowed.stop):
            raise ValueError(f"bins {packed.first} + {packed.bins} are outside {allowed.start} to {allowed.stop}")
        if len(packed.sums) != sums_needed:
            raise ValueError(f"{len(packed.sums)} sums for {packed.bands} bands of kind {packed.kind!r}")
        counts = _unpacked(packed)
        # In this order: without the bound on each, their sum could overflow.
        if counts.size and (counts.min() < 0 or counts.max() > packed.count):
            raise ValueError(f"counts must lie between 0 and the {packed.count} pixels")
        if (counts.sum(axis=1) != packed.count).any():
            raise ValueError(f"the counts of each band must add up to {packed.count} pixels")
        if not packed.count:
            return cls.empty(packed.bands)
        sums = tuple(band.checked(packed.count) for band in packed.sums)
        return _trimmed(packed.count, packed.first, counts, sums or None)

    @cached_property
    def exact(self) -> tuple[BandSums, ...]:
        """The sums of each band, also of integers."""
        return self.sums if self.sums is not None else tuple(self._integer_sums(row) for row in self.counts)

    def _integer_sums(self, row: Int64s) -> BandSums:
        occupied = np.flatnonzero(row)
        if not len(occupied):
            return BandSums(0, 0, 0.0, 0.0)
        pairs = list(zip((occupied + self.first).tolist(), row[occupied].tolist(), strict=True))
        total, squares = sum(n * x for x, n in pairs), sum(n * x * x for x, n in pairs)
        return BandSums(total << UNIT, squares << (2 * UNIT), float(pairs[0][0]), float(pairs[-1][0]))

    def _as_floats(self) -> Statistics:
        """Return the same pixels, at least one, in the bins of floats."""
        if self.sums is not None:
            return self
        bins = float_bins(np.arange(self.first, self.first + self.counts.shape[1], dtype=np.float32))
        counts = np.zeros((self.bands, FLOAT_BINS.stop), np.int64)
        for row, into in zip(self.counts, counts, strict=True):
            np.add.at(into, bins, row)
        return _trimmed(self.count, 0, counts, self.exact)

    def _at(self, ranks: Sequence[int], band: int) -> list[float]:
        """Return the pixels of these ranks, the first being 1."""
        row, sums = self.counts[band], self.exact[band]
        up_to = np.cumsum(row)
        columns = np.searchsorted(up_to, ranks)
        if self.sums is None:
            return [float(self.first + column) for column in columns]
        lower, upper = float_edges(columns + self.first)
        share = 1 - (up_to[columns] - np.array(ranks) + 0.5) / row[columns]
        inside = np.clip(lower + (upper - lower) * share, sums.low, sums.high).tolist()
        ends = {1: sums.low, self.count: sums.high}
        return [ends.get(rank, x) for rank, x in zip(ranks, inside, strict=True)]

    def _raise_if_empty(self) -> None:
        if not self.count:
            raise ValueError("there is no valid pixel, so no percentile, minimum or maximum")


def merged(parts: Sequence[Statistics]) -> Statistics:
    """Return the statistics of all the pixels together. Raises ValueError for no parts, or
    different bands."""
    if not parts:
        raise ValueError("there are no statistics to merge")
    return reduce(Statistics.merge, parts)


def _trimmed(count: int, first: int, counts: Int64s, sums: tuple[BandSums, ...] | None = None) -> Statistics:
    """Leave out the empty columns at both ends, so that equal pixels give equal objects."""
    occupied = np.flatnonzero(counts.any(axis=0))
    start, stop = int(occupied[0]), int(occupied[-1]) + 1
    return Statistics(count, first + start, counts[:, start:stop].copy(), sums)


_HexInt = Annotated[str, Field(pattern="^-?0x[0-9a-f]{1,160}$")]


class _PackedSums(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    total: _HexInt
    squares: _HexInt
    low: Annotated[float, Field(ge=-_FLOAT_MAX, le=_FLOAT_MAX)]
    high: Annotated[float, Field(ge=-_FLOAT_MAX, le=_FLOAT_MAX)]

    def checked(self, count: int) -> BandSums:
        """Return the sums if some float32 pixels could have given them, but for a small margin."""
        band = BandSums(int(self.total, 16), int(self.squares, 16), self.low, self.high)
        margin = 1e-6 * max(abs(band.low), abs(band.high)) + 2.0**-UNIT
        largest = max(abs(band.low), abs(band.high)) + margin
        if not band.low - margin <= band.total / (count << UNIT) <= band.high + margin:
            raise ValueError(f"a band's mean is not between its least pixel {band.low} and its greatest {band.high}")
        if band.total**2 > count * band.squares or band.squares > count * Fraction(largest) ** 2 * (1 << (2 * UNIT)):
            raise ValueError("a band's sum of squares contradicts its other sums")
        return band


class _Packed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    kind: Literal["integer", "float"]
    count: Annotated[int, Field(ge=0, le=MAX_COUNT)]
    bands: Annotated[int, Field(ge=1, le=MAX_BANDS)]
    first: int
    bins: Annotated[int, Field(ge=0)]
    counts: Annotated[str, Field(max_length=96 << 20)]
    sums: Annotated[list[_PackedSums], Field(max_length=MAX_BANDS)]


def _unpacked(packed: _Packed) -> Int64s:
    """Return the counts (C, W). Never decompresses more than the sizes say, which must have been
    checked."""
    size = packed.bands * packed.bins * 8
    engine = zlib.decompressobj()
    try:
        planes = engine.decompress(base64.b64decode(packed.counts, validate=True), size + 1)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"the counts are not base64 of zlib's output ({error})") from None
    if len(planes) != size or not engine.eof or engine.unused_data:
        raise ValueError(f"the counts are not {packed.bands} x {packed.bins} numbers")
    columns = np.frombuffer(planes, np.uint8).reshape(8, -1).T
    return np.ascontiguousarray(columns).view("<i8").astype(np.int64).reshape(packed.bands, packed.bins)
