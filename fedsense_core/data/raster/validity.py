"""Which pixels of a file are measurements: by its mask or alpha, else by nodata.

A mask or an alpha channel decides alone, as in GDAL (RFC 15, https://gdal.org/development/rfc/).
Without one, a pixel is no measurement where all the bands that are read hold nodata: one band may
hold the value by chance, as dark water does in blue where nodata is 0.
Shapes: C requested bands of one file, h x w window.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags

from fedsense_core.data.sites.sensors import SensorCard

Array = NDArray[Any]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Pixels:
    """A window of one file."""

    values: Array
    """(C, h, w) in the card's units."""
    valid: Bools | None
    """(h, w) where masks, blocks and finite numbers allow a measurement; None for everywhere."""
    nodata: Bools | None
    """(h, w) where every band of this file holds nodata; None for nowhere, or where a mask
    decides."""

    @property
    def measured(self) -> Bools | None:
        """Where (h, w) this file by itself has measurements; None for everywhere."""
        return self.valid if self.nodata is None else both(self.valid, ~self.nodata)


@dataclass(frozen=True)
class Validity:
    """What in a file says which pixels are measurements."""

    masked: bool
    """True when a mask does."""
    alpha: bool
    """True when the last band does: GDAL's own masks forget it in a file that also has a nodata
    value."""
    nodata: tuple[tuple[Any, ...], ...]
    """For each requested band its stored values that are no measurement; none where a mask or alpha
    decides."""
    in_any_band: bool
    """True where nodata in one band is enough."""

    @classmethod
    def of(cls, file: Any, indexes: Sequence[int], has_alpha: bool, card: SensorCard) -> Validity:
        """Return what decides for the bands with these 1-based ``indexes`` of an open file."""
        masked = has_mask(file, indexes)
        if masked or has_alpha:
            return cls(masked, has_alpha, ((),) * len(indexes), False)
        declared = _declared(file) if card.file_nodata else (None,) * file.count
        pairs = ((card.nodata, declared[i - 1]) for i in indexes)
        nodata = tuple(distinct(*(as_stored(value, file.dtypes[0]) for value in pair)) for pair in pairs)
        return cls(False, False, nodata, card.nodata_bands == "any")


def has_mask(file: Any, indexes: Sequence[int]) -> bool:
    """Tell whether an open file holds a mask of its own for some of its bands."""
    flags = [set(file.mask_flag_enums[i - 1]) for i in indexes]
    others = {MaskFlags.alpha, MaskFlags.nodata}  # GDAL calls masks that it makes of these per_dataset, too
    return any(MaskFlags.per_dataset in flag and not flag & others for flag in flags)


def scene_validity(parts: Sequence[Pixels]) -> Bools | None:
    """Return where (h, w) files of one scene, on one grid, have measurements; None for everywhere.

    What is missing in one file is missing; nodata is where all of them hold it.
    """
    valid = reduce(both, (part.valid for part in parts))
    missing: Bools | None = parts[0].nodata
    for part in parts[1:]:
        missing = None if missing is None or part.nodata is None else missing & part.nodata
    return valid if missing is None else both(valid, ~missing)


def both(a: Bools | None, b: Bools | None) -> Bools | None:
    """Return what is valid by both; None stands for everything."""
    return b if a is None else a if b is None else a & b


def finite(values: Array) -> Bools | None:
    """Return where (h, w) values (C, h, w) are finite in every band, or None for everywhere."""
    if values.dtype.kind != "f":
        return None
    found = np.asarray(np.isfinite(values).all(axis=0))
    return None if found.all() else found


def missing(values: Array, nodata: Sequence[Sequence[Any]], in_any_band: bool) -> Bools | None:
    """Return where (h, w) values (C, h, w) are nodata, in all bands or in any; None for nowhere."""
    found: Bools | None = None
    for band, unwanted in zip(values, nodata, strict=True):
        here = _equal_to(band, unwanted)
        if in_any_band:
            found = here if found is None else found if here is None else found | here
        elif here is None:
            return None
        else:
            found = here if found is None else found & here
    return found if found is not None and found.any() else None


def as_stored(nodata: float | None, dtype: str) -> Any:
    """Return a nodata value in the pixels' own type, or None where no pixel can have it."""
    kind = np.dtype(dtype)
    if nodata is None or not math.isfinite(nodata):  # such a pixel is found by being no finite number
        return None
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return kind.type(nodata)
    limits = np.iinfo(kind)
    return kind.type(int(nodata)) if nodata == int(nodata) and limits.min <= nodata <= limits.max else None


def distinct(*values: Any) -> tuple[Any, ...]:
    """Return the values that are not None, each once."""
    return tuple(dict.fromkeys(value for value in values if value is not None))


def _equal_to(band: Array, unwanted: Sequence[Any]) -> Bools | None:
    found: Bools | None = None
    for value in unwanted:
        here = np.asarray(band == value)
        if here.any():
            found = here if found is None else found | here
    return found


def _declared(file: Any) -> tuple[float | None, ...]:
    """Return the nodata value that a file declares for each of its bands.

    GDAL's item NODATA_VALUES gives bands values of their own, such as the transparent colour of a
    PNG.
    """
    listed = file.tags().get("NODATA_VALUES", "").split()
    if len(listed) == file.count:
        with contextlib.suppress(ValueError):  # anyone can write such an item
            return tuple(map(float, listed))
    return tuple(file.nodatavals)
