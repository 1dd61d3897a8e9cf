"""Reading GeoTIFFs that nobody vouches for: look first, then read block by block, with caps on everything.

Shapes: n chips, C requested bands, h x w window, S chip size in pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from fedsense_core.data.limits import ReadLimits
from fedsense_core.data.sensors import SensorCard
from fedsense_core.errors import SiteError

Array = NDArray[Any]

DTYPES = ("uint8", "uint16", "int16", "float32")
"""What pixels may be. Wider integers and complex numbers are no imagery."""
CHIP_TAG = "FEDSENSE_CHIP_SIZE"
"""Tag of a file that is a mosaic of unrelated chips: larger chips must not be cut across the seams."""
GDAL_OPTIONS: dict[str, Any] = {
    # Side files could point the reader at other files; a COG needs none.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    # Decoded blocks kept by GDAL, in bytes; its default is 5 % of the machine's memory, for each client.
    "GDAL_CACHEMAX": 64 << 20,
    "GDAL_NUM_THREADS": 1,
}


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why. Plain data: a bad file never ends a run."""

    path: str
    reason: str


@dataclass(frozen=True)
class Raster:
    """A file that has passed inspection."""

    path: Path
    width: int
    height: int
    dtype: str
    block_shape: tuple[int, int]
    indexes: tuple[int, ...]
    """1-based indexes of the requested bands, as GDAL counts."""
    masked: bool
    """True when the file says which pixels are valid: by nodata, by an internal mask or by an alpha band."""
    nodata: float | None
    """The card's nodata; the file's own is in its masks."""


@dataclass(frozen=True)
class ChipBlock:
    """The chips of one window."""

    rows: NDArray[np.int64]
    """(n,) where each lies in the file, in chips from the top."""
    columns: NDArray[np.int64]
    """(n,) where each lies in the file, in chips from the left."""
    values: Array
    """(n, C, S, S) as stored."""
    valid: NDArray[np.bool_]
    """(n, S, S): a measurement in every requested band."""


class Unreadable(Exception):
    """A reason to skip one file. Never leaves this package."""


def open_raster(path: Path) -> Any:
    """Open ``path`` as a GeoTIFF and nothing else. Raises Unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(path, driver="GTiff")
    except (RasterioError, OSError) as error:
        raise Unreadable(f"is no readable GeoTIFF ({_one_line(error)})") from error


def inspect(path: Path, card: SensorCard, bands: Sequence[str], size: int, limits: ReadLimits) -> Raster:
    """Check one file's claims without reading a pixel.

    Raises Unreadable for a file to skip, SiteError when the file contradicts its sensor card.
    """
    with open_raster(path) as file:
        _check_bands(path, file, card)
        _check_mosaic(file, size)
        _check_claims(path, file, size, limits)
        indexes = tuple(i + 1 for i in card.positions(bands, str(path)))
        return Raster(
            path=path,
            width=file.width,
            height=file.height,
            dtype=str(file.dtypes[0]),  # a GeoTIFF has one type for all its bands
            block_shape=_block_shape(file, limits),
            indexes=indexes,
            masked=_is_masked(file, indexes, card),
            nodata=card.nodata,
        )


def read_chips(raster: Raster, size: int, limits: ReadLimits) -> Iterator[ChipBlock]:
    """Yield the file's whole chips window by window, in memory bounded by ``limits``.

    Raises Unreadable when a block cannot be decoded.
    """
    with open_raster(raster.path) as file:
        for window in _windows(raster, size, limits):
            values, valid = _read(file, raster, window)
            rows, columns = np.indices((window.height // size, window.width // size)).reshape(2, -1)
            rows, columns = rows + window.row_off // size, columns + window.col_off // size
            yield ChipBlock(rows, columns, _cut(values, size), _cut(valid[None], size)[:, 0])


def _check_bands(path: Path, file: Any, card: SensorCard) -> None:
    expected = ", ".join(card.names)
    if file.count != len(card.bands) + _has_extra_alpha(file, card):
        raise SiteError(
            f"{path}: holds {file.count} bands, but its sensor card has {len(card.bands)} ({expected}). "
            "Name the right card, or list the file's bands under `bands` in the site file."
        )
    texts = file.descriptions[: len(card.bands)]
    described = [card.position(text or "") for text in texts]
    if None not in described and described != list(range(len(texts))):
        raise SiteError(
            f"{path}: its own band descriptions say {', '.join(texts)}, but the site file expects {expected}. "
            "Put `bands` in the file's order."
        )


def _has_extra_alpha(file: Any, card: SensorCard) -> bool:
    """True when the last band is an alpha channel besides the card's bands.

    GDAL calls the fourth band of many 8-bit files alpha although it is near infrared: the card decides.
    """
    return bool(file.count == len(card.bands) + 1 and file.colorinterp[-1] == ColorInterp.alpha)


def _is_masked(file: Any, indexes: Sequence[int], card: SensorCard) -> bool:
    flags = [file.mask_flag_enums[i - 1] for i in indexes]
    believable = [f for f in flags if MaskFlags.alpha not in f or _has_extra_alpha(file, card)]
    return any(MaskFlags.all_valid not in f for f in believable)


def _check_claims(path: Path, file: Any, size: int, limits: ReadLimits) -> None:
    if file.dtypes[0] not in DTYPES:
        raise Unreadable(f"has pixels of type {file.dtypes[0]}; allowed are {', '.join(DTYPES)}")
    pixels = file.width * file.height
    if min(file.width, file.height) < size:
        raise Unreadable(f"is {file.width} x {file.height} pixels, smaller than one chip of {size}")
    if pixels > limits.max_file_pixels:
        raise Unreadable(f"claims {file.width} x {file.height} pixels, more than {limits.max_file_pixels}")
    ratio = pixels * file.count * np.dtype(file.dtypes[0]).itemsize / max(1, path.stat().st_size)
    if ratio > limits.max_expansion:
        raise Unreadable(f"claims {ratio:.0f} times its own size, more than {limits.max_expansion}")


def _check_mosaic(file: Any, size: int) -> None:
    tag = file.tags().get(CHIP_TAG, "")
    if tag.isascii() and tag.isdecimal() and 0 < int(tag) <= 1 << 16 and int(tag) % size:
        raise Unreadable(f"is a mosaic of unrelated {tag}-pixel chips; ask for chips of {tag} or a divisor of it")


def _block_shape(file: Any, limits: ReadLimits) -> tuple[int, int]:
    """Return the largest block (rows, columns) over the bands. Raises Unreadable when decoding one needs too much."""
    rows, columns = (max(shape[axis] for shape in file.block_shapes) for axis in (0, 1))
    needed = rows * columns * np.dtype(file.dtypes[0]).itemsize * file.count  # interleaved blocks hold every band
    if needed > limits.max_block_bytes:
        raise Unreadable(
            f"has blocks of {columns} x {rows} pixels, {needed} bytes decoded, more than {limits.max_block_bytes}; "
            "rewrite it with `gdal_translate -co TILED=YES`"
        )
    return rows, columns


def _windows(raster: Raster, size: int, limits: ReadLimits) -> Iterator[Window]:
    """Yield windows of whole chips that begin on block edges where blocks and chips fit into each other."""
    bytes_each = size * size * len(raster.indexes) * (np.dtype(raster.dtype).itemsize + 1)  # values and masks
    most = max(1, limits.max_window_bytes // bytes_each)
    across, down = raster.width // size, raster.height // size
    step_x = min(across, max(1, ceil(raster.block_shape[1] / size)), most)
    step_y = min(down, max(1, ceil(raster.block_shape[0] / size)), max(1, most // step_x))
    for y in range(0, down, step_y):
        for x in range(0, across, step_x):
            columns, rows = min(step_x, across - x), min(step_y, down - y)
            yield Window(x * size, y * size, columns * size, rows * size)


def _read(file: Any, raster: Raster, window: Window) -> tuple[Array, NDArray[np.bool_]]:
    """Return values (C, h, w) and the pixels (h, w) that are valid in every requested band."""
    indexes = list(raster.indexes)
    try:
        values: Array = file.read(indexes, window=window)
        valid = np.ones(values.shape[1:], dtype=bool)
        if raster.masked:
            valid &= (file.read_masks(indexes, window=window) != 0).all(axis=0)
    except (RasterioError, OSError) as error:
        raise Unreadable(f"cannot be decoded ({_one_line(error)})") from error
    if raster.nodata is not None:
        valid &= (values != raster.nodata).all(axis=0)
    if values.dtype.kind == "f":
        valid &= np.isfinite(values).all(axis=0)
    return values, valid


def _cut(values: Array, size: int) -> Array:
    """Cut (C, h, w) into (n, C, S, S), row by row."""
    bands, height, width = values.shape
    grid = values.reshape(bands, height // size, size, width // size, size)
    return np.ascontiguousarray(grid.transpose(1, 3, 0, 2, 4)).reshape(-1, bands, size, size)


def _one_line(error: BaseException) -> str:
    text = str(error.__cause__ or error)
    return " ".join(text.split())[:200]
