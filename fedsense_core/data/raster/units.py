"""From the numbers in a file to those that its sensor card describes: declared scales, Sentinel-2's
offset, decibels.

Shapes: C bands, h x w window.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsense_core.data.sites.schema import Source
from fedsense_core.data.sites.sensors import SensorCard

Array = NDArray[Any]
Bools = NDArray[np.bool_]

OFFSET_SINCE = 4.0
"""Processing baseline from which Sentinel-2's products carry an offset (January 2022)."""
_BASELINE = re.compile(r"(?:^|_)N(\d\d)(\d\d)(?=_|\.|$)")
_DECIBELS = {"no": 0.0, "amplitude": 20.0, "power": 10.0}


@dataclass(frozen=True)
class Units:
    """How stored numbers of C bands become the card's: times ``gain`` plus ``offset``, then perhaps
    decibels."""

    gain: tuple[float, ...]
    offset: tuple[float, ...]
    not_below_zero: bool
    """True for Sentinel-2's offset: counts stay counts."""
    card: SensorCard

    @classmethod
    def of(cls, path: Path, file: Any, indexes: Sequence[int], source: Source) -> Units:
        """Return what the bands with these 1-based ``indexes`` of an open file need.

        What the file declares comes before what its name says, so that no offset is subtracted
        twice.
        """
        card, ones = source.card, (1.0,) * len(indexes)
        pairs = zip(map(float, file.scales), map(float, file.offsets), strict=True)
        # A scale of 0, or none at all, says nothing: such a band is in the card's units, whichever
        # others are read.
        declared = [pair if pair[0] and all(map(math.isfinite, pair)) else (1.0, 0.0) for pair in pairs]
        if any(pair != (1.0, 0.0) for pair in declared):
            chosen = [declared[i - 1] for i in indexes]
            steps = [pair if pair == (1.0, 0.0) else _to_card(*pair, card) for pair in chosen]
            return cls(tuple(gain for gain, _ in steps), tuple(offset for _, offset in steps), False, card)
        if source.baseline_offset and (baseline_of(path, file.tags()) or 0) >= OFFSET_SINCE:
            return cls(ones, (-source.baseline_offset,) * len(indexes), True, card)
        return cls(ones, (0.0,) * len(indexes), False, card)

    def dtype(self, stored: str) -> str:
        """Return the type that `convert` makes of type ``stored``: integers stay integers where
        every step is whole."""
        most = 1 << 8 * np.dtype(stored).itemsize  # a step beyond the type's range would leave nothing of it
        whole = set(self.gain) == {1.0} and all(step == int(step) and abs(step) < most for step in self.offset)
        return stored if whole and self.card.decibels == "no" else "float32"

    def convert(self, values: Array, valid: Bools | None) -> tuple[Array, Bools | None]:
        """Return values (C, h, w) in the card's units, and where (h, w) they are valid; may change
        ``values``.

        Integers stop at the ends of their type. In decibels, what is not above 0 is no measurement.
        """
        if set(self.gain) == {1.0} and set(self.offset) == {0.0} and self.card.decibels == "no":
            return values, valid
        if self.dtype(str(values.dtype)) == values.dtype and values.dtype.kind != "f":
            return self._shifted(values), valid
        gain, offset = (np.array(step, np.float32)[:, None, None] for step in (self.gain, self.offset))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            out = values.astype(np.float32) * gain + offset
            if self.not_below_zero:
                np.maximum(out, 0, out=out)
            if self.card.decibels != "no":
                out = _DECIBELS[self.card.decibels] * np.log10(out * self.card.scale + self.card.offset)
        finite = np.isfinite(out).all(axis=0)
        return out.astype(np.float32, copy=False), finite if valid is None else valid & finite

    def _shifted(self, values: Array) -> Array:
        limits = np.iinfo(values.dtype)
        least = max(0, limits.min) if self.not_below_zero else limits.min
        for band, step in zip(values, map(int, self.offset), strict=True):
            # First to where the step stays inside the type, then the step.
            ends = (min(max(end - step, limits.min), limits.max) for end in (least, limits.max))
            np.clip(band, *ends, out=band)
            band += np.array(step).astype(values.dtype)  # of an unsigned type it wraps around to a subtraction
        return values


def baseline_of(path: Path, tags: dict[str, str]) -> float | None:
    """Return a Sentinel-2 product's processing baseline, such as 4.0 or 5.09, or None where nothing
    says it.

    By the tag PROCESSING_BASELINE, else by the part ``_N0400_`` of the file's name or of the
    nearest folder's.
    """
    with contextlib.suppress(KeyError, ValueError):  # most files have no such tag, and a name may say it
        return float(tags["PROCESSING_BASELINE"])
    found = (_BASELINE.search(part) for part in reversed(path.parts))
    return next((int(match[1]) + int(match[2]) / 100 for match in found if match), None)


def _to_card(scale: float, offset: float, card: SensorCard) -> tuple[float, float]:
    """Return gain and offset from a file's own units to the card's, without the noise of floating
    point."""
    unit = card.scale or 1.0
    gain, step = scale / unit, (offset - card.offset) / unit
    return (1.0 if math.isclose(gain, 1.0, rel_tol=1e-6) else gain, float(round(step)) if _near_whole(step) else step)


def _near_whole(step: float) -> bool:
    return abs(step - round(step)) <= 1e-6 * max(1.0, abs(step))
