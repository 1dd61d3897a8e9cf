"""What a layout of the zoo is: public products under their real names, and what has to come out of
their pixels.

A layout writes small rasters as a product's public specification names and encodes them, and says
for every scene which values its chips have and which pixels are no measurement. Patterns differ by
band and by scene, and rise differently along rows and columns, so that a mix-up of bands, scenes
or axes, an offset and a fill value all show.

Shapes: C bands, H x W pixels of a scene's finest grid.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

Array = NDArray[Any]
Bools = NDArray[np.bool_]

ROW_STEP, COLUMN_STEP = 8, 4
"""Counts from one pixel of the finest grid to the next. Whole at the centres of pixels that are 2,
3 or 6 times as large, so that nothing is rounded."""


@dataclass(frozen=True)
class Truth:
    """What the chips of one scene have to hold."""

    values: Array
    """(C, H, W) in the card's units, bands in the order of the expected ones."""
    valid: Bools
    """(H, W) a measurement."""


@dataclass(frozen=True)
class ExpectedSource:
    """One source that the draft of a layout has to have."""

    sensor: str
    """Name of a shipped card, or ``custom``."""
    bands: tuple[str, ...]
    """Names of the bands, in the order of the truths' channels."""
    truth: Mapping[str, Truth]
    """By scene: what its path holds below the layout's folder, and no other scene's."""
    gsd_m: float | None = None
    """Metres a pixel by the site file; None where the layout cannot say."""
    scale: float | None = None
    """Of the card, where the layout says it."""
    offset: float | None = None
    """Of the card, where the layout says it."""
    wavelengths_um: tuple[float, ...] = ()
    """Of a custom card's bands, where the files say them."""
    left_out: tuple[str, ...] = ()
    """Names of files, with ``*``, that belong to no source. Every other raster has to be in one."""
    missing: str = ""
    """Expression for what the draft asks a person: only where a product's files cannot tell it."""
    answers: tuple[str, ...] = ()
    """What the person puts for each ``?`` of the draft, in order."""

    @property
    def complete(self) -> bool:
        """Whether the draft needs no person's help."""
        return not self.missing


@dataclass(frozen=True)
class Layout:
    """One public layout."""

    name: str
    cites: str
    """Public specification: address, or document with section."""
    make: Callable[[Path], list[ExpectedSource]]
    """Writes the files into a folder, and says what is to be read from them."""
    chip_px: int = 16
    refused: str = ""
    """Expression for why nothing is drafted; no source is then expected."""
    scenes_skipped: tuple[str, ...] = field(default=())
    """Expressions for the reasons of scenes that are skipped and named, one each."""

    def __str__(self) -> str:
        return self.name


def plane(level: float, size: int, factor: int = 1, left: int = 0) -> Array:
    """Return a plane (H, W), ``size`` pixels square: what a band shows on the finest grid.

    With ``factor``, the band was stored with pixels so many times as large, beginning at the column
    ``left`` of the finest grid, and brought back bilinearly: level beyond the outermost centres.
    """
    middle = (factor - 1) / 2
    rows = np.clip(np.arange(size), middle, size - 1 - middle)
    columns = np.clip(np.arange(size), left + middle, size - 1 - middle)
    return np.asarray(level + ROW_STEP * rows[:, None] + COLUMN_STEP * columns[None, :])


def stored_plane(level: float, size: int, factor: int = 1) -> Array:
    """Return the same plane at the centres of pixels that are ``factor`` times as large."""
    centres = (np.arange(size // factor) + 0.5) * factor - 0.5
    return np.asarray(level + ROW_STEP * centres[:, None] + COLUMN_STEP * centres[None, :])


def levels(bands: int, scene: int = 0, first: float = 2000.0) -> list[float]:
    """Return a level for each band of a scene, unlike those of other scenes."""
    return [first + 300 * band + 37 * scene for band in range(bands)]


def byte_planes(bands: int, size: int, scene: int = 0) -> Array:
    """Return planes (C, H, W) of 8 bits."""
    steps = np.arange(size)
    one = steps[:, None] + 2 * steps[None, :]
    return np.stack([10 + 45 * band + 3 * scene + one for band in range(bands)]).astype(np.uint8)


def everywhere(size: int) -> Bools:
    """Return a mask (H, W) of measurements in every pixel."""
    return np.ones((size, size), dtype=bool)


def write_raster(
    path: Path,
    values: Array,
    gsd: float = 10.0,
    *,
    corner: tuple[float, float] = (500_000.0, 5_000_000.0),
    descriptions: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    band_tags: Sequence[Mapping[str, str]] = (),
    mask: Bools | None = None,
    **profile: Any,
) -> Path:
    """Write ``values`` (C, H, W) or (H, W) as a georeferenced GeoTIFF, or by another ``driver``.

    ``gsd`` is the side of a pixel in the coordinates' unit, 0 for no georeference; ``mask`` (H, W)
    is written as the file's own.
    """
    bands = values[None] if values.ndim == 2 else values
    count, height, width = bands.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype}
    if gsd:
        options |= {"crs": "EPSG:32632", "transform": from_origin(*corner, gsd, gsd)}
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **(options | profile)) as file:
            file.write(bands)
            file.update_tags(**(tags or {}))
            for i, text in enumerate(descriptions, start=1):
                file.set_band_description(i, text)
            for i, one in enumerate(band_tags, start=1):
                file.update_tags(i, **one)
            if mask is not None:
                file.write_mask(mask)
    return path
