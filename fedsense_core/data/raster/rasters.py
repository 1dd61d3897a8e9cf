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
from rasterio.enums import ColorInterp, Interleaving
from rasterio.windows import Window

from fedsense_core.data.raster.files import check_claims, check_expansion, check_pages, origins_of
from fedsense_core.data.raster.formats import DTYPES, FAULTS, Unreadable, one_line
from fedsense_core.data.raster.grids import Grid
from fedsense_core.data.raster.other_bands import OtherBands, no_measurements
from fedsense_core.data.raster.units import Units
from fedsense_core.data.raster.validity import Pixels, Validity, both, finite, missing
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.schema import Layer, Source
from fedsense_core.data.sites.sensors import SensorCard

Array = NDArray[Any]
Bools = NDArray[np.bool_]

CHIP_TAG = "FEDSENSE_CHIP_SIZE"
"""Tag of a mosaic of unrelated chips: larger chips must not be cut across the seams."""


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
    validity: Validity
    """What says which pixels are measurements."""
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

    @property
    def itemsize(self) -> int:
        """Bytes of a value while it is read: as stored, or as the chips have it."""
        return max(np.dtype(kind).itemsize for kind in (self.dtype, self.units.dtype(self.dtype)))

    def is_absent(self, window: Window) -> bool:
        """Tell whether the file holds no block of ``window``."""
        return self.present is not None and not self.present[self._blocks(window)].any()

    def read(self, window: Window) -> tuple[Array, Bools | None]:
        """Return values (C, h, w) in the card's units, and which pixels (h, w) are measurements, or
        None for all.

        Raises Unreadable when a block cannot be decoded.
        """
        pixels = self.pixels(window)
        return pixels.values, pixels.measured

    def pixels(self, window: Window) -> Pixels:
        """Return the same, with nodata apart: in a scene of several files it takes all of them.

        Raises as `read` does.
        """
        how = self.validity
        try:
            values: Array = self.file.read(list(self.indexes), window=window)
            mask: Array | None = self.file.read_masks(self.indexes[0], window=window) if how.masked else None
            alpha: Array | None = self.file.read(self.file.count, window=window) if how.alpha else None
        except (*FAULTS, OSError) as error:
            raise Unreadable(f"cannot be decoded ({one_line(error)})") from error
        valid = both(self._present_pixels(window), finite(values))
        for shown in (mask, alpha):
            valid = both(valid, None if shown is None else np.asarray(shown != 0))
        nodata = missing(values, how.nodata, how.in_any_band)
        if nodata is not None and how.in_any_band:
            valid, nodata = both(valid, ~nodata), None
        return Pixels(*self.units.convert(values, valid), nodata)

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
    return Raster(
        path=layer.path,
        file=file,
        indexes=indexes,
        block_shape=block_shape,
        present=present,
        validity=Validity.of(file, indexes, has_alpha, source.card),
        units=_units_of(layer.path, file, wanted, indexes, source),
    )


def _units_of(path: Path, file: Any, wanted: Sequence[int], indexes: Sequence[int], source: Source) -> Units:
    """Return what the bands of a file need; of a VRT, what the files need whose numbers it shows.

    Raises Unreadable where they need different things, or do not make sense.
    """
    try:
        first, *others = (Units.of(part, file, wanted, indexes, source) for part in origins_of(path))
    except ValueError as error:
        raise Unreadable(f"{error}; say `add_offset` in the site file") from error
    if any(other != first for other in others):
        raise Unreadable(
            "is a VRT of files whose numbers carry different offsets; make one of each kind of file, or say "
            "`add_offset` in the site file"
        )
    return first


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
            layer.path, f"has band descriptions that say {', '.join(texts)}, but the site file expects {expected}"
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
