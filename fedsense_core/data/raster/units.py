"""From the numbers in a file to those of its sensor card, in a type that chips may have.

Shapes: C requested bands of one file, h x w window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsense_core.data.raster.validity import both, finite
from fedsense_core.data.sites.schema import Source
from fedsense_core.data.sites.sensors import SensorCard
from fedsense_core.data.sites.sentinel2 import Offset, added_offset

Array = NDArray[Any]
Bools = NDArray[np.bool_]

CHIP_DTYPES = ("uint8", "uint16", "int16", "float32")
"""What pixels of chips may be."""
_CONVERTED = {"int8": "int16", "uint32": "float32", "int32": "float32", "float64": "float32"}
"""What pixels of other types become. float32 holds whole numbers up to 2^24 exactly."""
_DECIBELS = {"no": 0.0, "amplitude": 20.0, "power": 10.0}
DECLARED = "declared by the file"
"""Why nothing is added: the file states a scale and an offset of its own."""


@dataclass(frozen=True)
class Units:
    """How stored numbers of C bands become the card's: times ``gain`` plus ``offset``, perhaps in
    decibels."""

    gain: tuple[float, ...]
    offset: tuple[float, ...]
    not_below_zero: bool
    """True for Sentinel-2's offset: counts stay counts."""
    card: SensorCard

    @classmethod
    def of(cls, path: Path, file: Any, wanted: Sequence[int], indexes: Sequence[int], source: Source) -> Units:
        """Return what bands of an open file need: ``wanted`` on the card, ``indexes`` (from 1) in
        the file.

        What the site file says comes before what the file declares, and that before what its
        product says, so that no offset is applied twice. Raises ValueError for metadata of a
        product that cannot be made sense of.
        """
        card = source.card
        declared, ours = _declared(file), card.add_offset is not None
        pairs = [declared[i - 1] for i in indexes]
        added = offset_of(path, file, wanted, indexes, source).counts
        if not _is_declared(declared):
            return cls((1.0,) * len(pairs), added, bool(source.baseline_offset and any(added)), card)
        steps = [pair if pair == (1.0, 0.0) else _to_card(*pair, card) for pair in pairs]
        if ours:  # the number replaces the file's offset, not its scale
            steps = [(gain, gain * number) for (gain, _), number in zip(steps, added, strict=True)]
        return cls(tuple(gain for gain, _ in steps), tuple(step for _, step in steps), False, card)

    @classmethod
    def of_image(cls, source: Source, bands: int) -> Units:
        """Return what an image of a dataset needs: nothing but what the site file says."""
        added = source.card.add_offset or 0.0
        return cls((1.0,) * bands, (added,) * bands, bool(added and source.baseline_offset), source.card)

    def dtype(self, stored: str) -> str:
        """Return the type that `convert` makes of type ``stored``: integers stay integers where
        every step is whole."""
        stored = _CONVERTED.get(stored, stored)
        most = 1 << 8 * np.dtype(stored).itemsize  # a step beyond the type's range would leave nothing of it
        whole = set(self.gain) == {1.0} and all(step == int(step) and abs(step) < most for step in self.offset)
        return stored if whole and self.card.decibels == "no" else "float32"

    def convert(self, values: Array, valid: Bools | None) -> tuple[Array, Bools | None]:
        """Return values (C, h, w) in the card's units, and where (h, w) they are valid; may change
        ``values``.

        Integers stop at the ends of their type. In decibels, what is not above 0 is no measurement;
        nor is what a float32 cannot hold.
        """
        stored = str(values.dtype)
        if stored in _CONVERTED:
            with np.errstate(over="ignore"):
                values = values.astype(_CONVERTED[stored])
            valid = both(valid, finite(values))
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
        return out.astype(np.float32, copy=False), both(valid, finite(out))

    def stored(self, value: float, band: int) -> float:
        """Return the number in the file that `convert` turns into ``value`` of a band, as nearly as
        can be told."""
        if self.card.decibels != "no":
            value = (10 ** (value / _DECIBELS[self.card.decibels]) - self.card.offset) / self.card.scale
        if self.not_below_zero and value <= 0:  # all below have become 0
            return 0.0
        number = (value - self.offset[band]) / self.gain[band]
        return float(round(number)) if math.isclose(number, round(number), rel_tol=1e-5) else number

    def _shifted(self, values: Array) -> Array:
        limits = np.iinfo(values.dtype)
        least = max(0, limits.min) if self.not_below_zero else limits.min
        for band, step in zip(values, map(int, self.offset), strict=True):
            # First to where the step stays inside the type, then the step.
            ends = (min(max(end - step, limits.min), limits.max) for end in (least, limits.max))
            np.clip(band, *ends, out=band)
            band += np.array(step).astype(values.dtype)  # of an unsigned type it wraps around to a subtraction
        return values


def offset_of(path: Path, file: Any, wanted: Sequence[int], indexes: Sequence[int], source: Source) -> Offset:
    """Return the number added to the counts of the bands that `Units.of` describes, and why.

    Raises ValueError as it does.
    """
    card, none = source.card, (0.0,) * len(indexes)
    if card.add_offset is not None:
        return Offset((card.add_offset,) * len(indexes), "by add_offset of the site file")
    if _is_declared(_declared(file)):
        return Offset(none, DECLARED)
    if not source.baseline_offset:
        return Offset(none, "")
    tags = [file.tags(), *(file.tags(i) for i in indexes)]
    return added_offset(path, tags, [card.bands[band].code for band in wanted], -source.baseline_offset)


def _declared(file: Any) -> list[tuple[float, float]]:
    """Return the scale and offset of each band.

    A scale of 0, or none at all, says nothing: such a band is in the card's units, whichever others
    are read.
    """
    pairs = zip(map(float, file.scales), map(float, file.offsets), strict=True)
    return [pair if pair[0] and all(map(math.isfinite, pair)) else (1.0, 0.0) for pair in pairs]


def _is_declared(pairs: Sequence[tuple[float, float]]) -> bool:
    return any(pair != (1.0, 0.0) for pair in pairs)


def _to_card(scale: float, offset: float, card: SensorCard) -> tuple[float, float]:
    """Return gain and offset from a file's own units to the card's, without the noise of floating
    point.

    HDF files of MODIS state the number to divide by, 10,000, and GDAL copies it as a scale: it is
    taken as it is meant.
    """
    unit = card.scale or 1.0
    if scale > 1 and math.isclose(scale * unit, 1.0, rel_tol=1e-6) and not offset:
        scale = unit
    gain, step = scale / unit, (offset - card.offset) / unit
    return (1.0 if math.isclose(gain, 1.0, rel_tol=1e-6) else gain, float(round(step)) if _near_whole(step) else step)


def _near_whole(step: float) -> bool:
    return abs(step - round(step)) <= 1e-6 * max(1.0, abs(step))
