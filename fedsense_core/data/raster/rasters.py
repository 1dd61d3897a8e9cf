"""From one file to pixels in its sensor card's units, and which of them are measurements.

Nobody vouches for a file: its claims are checked against limits first, then its blocks are read.
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
from rasterio.enums import ColorInterp, Interleaving, MaskFlags
from rasterio.windows import Window

from fedsense_core.data.raster.files import check_claims, check_expansion, check_pages
from fedsense_core.data.raster.formats import DTYPES, FAULTS, Unreadable, one_line
from fedsense_core.data.raster.grids import Grid
from fedsense_core.data.raster.other_bands import OtherBands, no_measurements
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.schema import Layer, Source
from fedsense_core.data.sites.sensors import BASELINE_WITH_OFFSET, SensorCard, sentinel2_baseline

Array = NDArray[Any]
Bools = NDArray[np.bool_]

CHIP_TAG = "FEDSENSE_CHIP_SIZE"
"""Tag of a mosaic of unrelated chips: larger chips must not be cut across the seams."""
_DECIBELS = {"no": 0.0, "amplitude": 20.0, "power": 10.0}


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
        if source.baseline_offset and (sentinel2_baseline(path, file.tags()) or 0) >= BASELINE_WITH_OFFSET:
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


@dataclass(frozen=True)
class Raster:
    """An open file that has passed inspection."""

    path: Path
    file: Any
    """The open dataset; whoever opened it closes it."""
    indexes: tuple[int, ...]
    """1-based indexes of the requested bands, as GDAL counts."""
    block_shape: tuple[int, int]
    """Rows and columns of a block."""
    present: Bools | None
    """(rows, columns) blocks that the file holds in every requested band; None if all are there or
    it has no blocks."""
    masked: bool
    """True when a mask says which pixels are valid."""
    alpha: bool
    """True when the last band does, too: GDAL's own masks forget it in a file that also has a
    nodata value."""
    nodata: tuple[tuple[Any, ...], ...]
    """For each requested band its stored values that are no measurement."""
    units: Units
    """From stored numbers to the card's."""

    @property
    def grid(self) -> Grid:
        """Where the pixels lie."""
        return Grid.of(self.file)

    @property
    def dtype(self) -> str:
        """Type of the pixels in the file. A GeoTIFF has one for all its bands."""
        return str(self.file.dtypes[0])

    def is_absent(self, window: Window) -> bool:
        """Tell whether the file holds no block of ``window``."""
        return self.present is not None and not self.present[self._blocks(window)].any()

    def read(self, window: Window) -> tuple[Array, Bools | None]:
        """Return values (C, h, w) in the card's units and the pixels (h, w) valid in every band, or
        None for all.

        Raises Unreadable when a block cannot be decoded.
        """
        try:
            values: Array = self.file.read(list(self.indexes), window=window)
            mask: Array | None = self.file.read_masks(self.indexes[0], window=window) if self.masked else None
            alpha: Array | None = self.file.read(self.file.count, window=window) if self.alpha else None
        except (*FAULTS, OSError) as error:
            raise Unreadable(f"cannot be decoded ({one_line(error)})") from error
        valid = self._present_pixels(window)
        for shown in (mask, alpha):
            valid = both(valid, None if shown is None else np.asarray(shown != 0))
        return self.units.convert(values, both(valid, measured(values, self.nodata)))

    def _present_pixels(self, window: Window) -> Bools | None:
        if self.present is None:
            return None
        present = self.present[self._blocks(window)]
        if present.all():
            return None
        rows, columns = self.block_shape
        pixels = present.repeat(rows, axis=0).repeat(columns, axis=1)
        top, left = window.row_off % rows, window.col_off % columns
        return pixels[top : top + window.height, left : left + window.width]

    def _blocks(self, window: Window) -> tuple[slice, slice]:
        rows, columns = self.block_shape
        return (
            slice(window.row_off // rows, math.ceil((window.row_off + window.height) / rows)),
            slice(window.col_off // columns, math.ceil((window.col_off + window.width) / columns)),
        )


def both(a: Bools | None, b: Bools | None) -> Bools | None:
    """Return what is valid by both; None stands for everything."""
    return b if a is None else a if b is None else a & b


def measured(values: Array, nodata: Sequence[Sequence[Any]]) -> Bools | None:
    """Return where (C, h, w) values are measurements in every band, or None for everywhere."""
    valid: Bools | None = None
    if values.dtype.kind == "f":
        finite = np.asarray(np.isfinite(values).all(axis=0))
        valid = None if finite.all() else finite
    for band, missing in zip(values, nodata, strict=True):
        for value in missing:
            there = np.asarray(band != value)
            valid = valid if there.all() else both(valid, there)
    return valid


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


def inspect(file: Any, layer: Layer, wanted: Sequence[int], source: Source, limits: ReadLimits) -> Raster:
    """Check an open file's claims without reading a pixel; ``wanted`` are positions of bands among
    the card's.

    Raises Unreadable for a file to skip, OtherBands when the file contradicts its sensor card.
    """
    has_alpha = _check_bands(layer, file, source.card)
    indexes = tuple(layer.bands.index(band) + 1 for band in wanted)
    block_shape = check_claims(file, DTYPES, limits)
    check_pages(layer.path, file, limits)
    present = _present_blocks(file, indexes, block_shape, limits)
    check_expansion(layer.path, file, 1.0 if present is None else float(present.mean()), limits)
    card = as_stored(source.card.nodata, file.dtypes[0])
    flags = [set(file.mask_flag_enums[i - 1]) for i in indexes]
    return Raster(
        path=layer.path,
        file=file,
        indexes=indexes,
        block_shape=block_shape,
        present=present,
        masked=any(MaskFlags.per_dataset in flag and MaskFlags.alpha not in flag for flag in flags),
        alpha=has_alpha,
        nodata=tuple(_distinct(card, as_stored(file.nodatavals[i - 1], file.dtypes[0])) for i in indexes),
        units=Units.of(layer.path, file, indexes, source),
    )


def _check_bands(layer: Layer, file: Any, card: SensorCard) -> bool:
    """Return whether the last band is an alpha channel besides the layer's bands.

    Raises OtherBands, and Unreadable for numbers that are no measurements.
    """
    if why := no_measurements(file):
        raise Unreadable(why)
    # GDAL calls the fourth band of many 8-bit files alpha although it is near infrared: the card
    # decides.
    has_alpha = file.count == len(layer.bands) + 1 and file.colorinterp[-1] == ColorInterp.alpha
    expected = ", ".join(card.names[band] for band in layer.bands)
    if file.count != len(layer.bands) + has_alpha:
        whose = "its sensor card has" if len(layer.bands) == len(card.bands) else "the site file says that it has"
        raise OtherBands(layer.path, f"holds {file.count} bands, but {whose} {len(layer.bands)} ({expected})")
    texts = file.descriptions[: len(layer.bands)]
    described = [card.position(text or "") for text in texts]
    if None not in described and described != list(layer.bands):
        raise OtherBands(
            layer.path, f"calls its own bands {', '.join(texts)}, but the site file expects {expected} (in this order)"
        )
    return bool(has_alpha)


def _present_blocks(file: Any, indexes: Sequence[int], shape: tuple[int, int], limits: ReadLimits) -> Bools | None:
    """Return which blocks (rows, columns) a TIFF holds in all of these bands; a block left out is
    no measurement."""
    if file.driver != "GTiff":
        return None
    down, across = math.ceil(file.height / shape[0]), math.ceil(file.width / shape[1])
    bands = indexes if file.interleaving == Interleaving.band else indexes[:1]
    if down * across * len(bands) > limits.max_blocks:
        raise Unreadable(
            f"claims {down * across * len(bands)} blocks of {shape[1]} x {shape[0]} pixels, more than "
            f"{limits.max_blocks}; rewrite it with larger ones, such as `gdal_translate -co TILED=YES`"
        )
    present = np.ones(down * across, dtype=bool)
    for band in bands:
        found = (
            file.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band) is not None
            for y in range(down)
            for x in range(across)
        )
        present &= np.fromiter(found, dtype=bool, count=down * across)
    return None if present.all() else present.reshape(down, across)


def _distinct(*values: Any) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(value for value in values if value is not None))


def _to_card(scale: float, offset: float, card: SensorCard) -> tuple[float, float]:
    """Return gain and offset from a file's own units to the card's, without the noise of floating
    point."""
    unit = card.scale or 1.0
    gain, step = scale / unit, (offset - card.offset) / unit
    return (1.0 if math.isclose(gain, 1.0, rel_tol=1e-6) else gain, float(round(step)) if _near_whole(step) else step)


def _near_whole(step: float) -> bool:
    return abs(step - round(step)) <= 1e-6 * max(1.0, abs(step))
