"""From one file to pixels in its sensor card's units, and which of them are measurements.

Nobody vouches for a file: its claims are checked against limits first, then its blocks are read.
Shapes: C requested bands of one file, h x w window.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Interleaving, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from fedsense_core.data.raster.grids import Grid
from fedsense_core.data.raster.units import CHIP_DTYPES, Units
from fedsense_core.data.raster.validity import Pixels, Validity, both, finite, missing
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.schema import Layer, Source
from fedsense_core.data.sites.sensors import SensorCard
from fedsense_core.errors import SiteError

Array = NDArray[Any]
Bools = NDArray[np.bool_]

DTYPES = (*CHIP_DTYPES, "int8", "uint32", "int32", "float64")
"""What pixels may be; chips have the first ones. 64-bit integers and complex numbers are no
imagery."""
MASK_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32")
"""What classes and flags may be."""
DRIVERS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""By suffix. All else has to be a GeoTIFF: formats that point at other files are never tried."""
CHIP_TAG = "FEDSENSE_CHIP_SIZE"
"""Tag of a mosaic of unrelated chips: larger chips must not be cut across the seams."""
GDAL_OPTIONS: dict[str, Any] = {
    # Side files could point the reader at other files; a COG needs none.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    # GDAL's cache of decoded blocks, in bytes; by default 5 % of the memory, for each client.
    "GDAL_CACHEMAX": 64 << 20,
    "GDAL_NUM_THREADS": 1,
    # Its shortcut for whole PNGs returns whatever was in memory where a file is cut off.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
    # Else damaged JPEG blocks read as other pixels.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
    # Its rows of 8-bit files that are one long strip look like blocks that the file does not hold.
    "GDAL_ENABLE_TIFF_SPLIT": "NO",
}
MOST_PAGES = 64
"""Pages of a GeoTIFF that are looked at for its mask: more are overviews of overviews."""
FAULTS = (RasterioError, CPLE_BaseError, UnicodeError, MemoryError)
"""What rasterio raises for a file that it cannot make sense of."""


class Unreadable(Exception):
    """A reason to skip one scene. Never leaves `fedsense_core.data`."""


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


def open_raster(path: Path) -> Any:
    """Open ``path`` with the one driver that its suffix allows. Raises Unreadable."""
    driver = DRIVERS.get(path.suffix.lower(), "GTiff")
    # Pipes and devices would block, and GDAL's virtual file systems are no files.
    if str(path).startswith("/vsi") or not path.is_file():
        raise Unreadable(f"is no readable {_format(driver)} (no such file)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(path, driver=driver)
    except (*FAULTS, OSError) as error:
        raise Unreadable(f"is no readable {_format(driver)} ({one_line(error)})") from error


def inspect(file: Any, layer: Layer, wanted: Sequence[int], source: Source, limits: ReadLimits) -> Raster:
    """Check an open file's claims without reading a pixel; ``wanted`` are positions of bands among
    the card's.

    Raises Unreadable for a file to skip, SiteError when the file contradicts its sensor card.
    """
    has_alpha = _check_bands(layer, file, source.card)
    indexes = tuple(layer.bands.index(band) + 1 for band in wanted)
    block_shape = check_claims(file, DTYPES, limits)
    _check_mask_pages(layer.path, file, limits)
    present = _present_blocks(file, indexes, block_shape, limits)
    _check_expansion(layer.path, file, present, limits)
    try:
        units = Units.of(layer.path, file, wanted, indexes, source)
    except ValueError as error:
        raise Unreadable(f"{error}; say `add_offset` in the site file") from error
    return Raster(
        path=layer.path,
        file=file,
        indexes=indexes,
        block_shape=block_shape,
        present=present,
        validity=Validity.of(file, indexes, has_alpha, source.card),
        units=units,
    )


def check_claims(file: Any, dtypes: Sequence[str], limits: ReadLimits) -> tuple[int, int]:
    """Return the largest block (rows, columns) of a file within the limits. Raises Unreadable for
    another one."""
    if file.dtypes[0] not in dtypes:
        raise Unreadable(f"has pixels of type {file.dtypes[0]}; allowed are {', '.join(dtypes)}")
    if file.width * file.height > limits.max_file_pixels:
        raise Unreadable(f"claims {file.width} x {file.height} pixels, more than {limits.max_file_pixels}")
    rows, columns = (max(shape[axis] for shape in file.block_shapes) for axis in (0, 1))
    needed = rows * columns * np.dtype(file.dtypes[0]).itemsize * file.count  # interleaved blocks hold every band
    if needed > limits.max_block_bytes:
        raise Unreadable(
            f"has blocks of {columns} x {rows} pixels, {needed} bytes decoded, more than {limits.max_block_bytes}; "
            "rewrite it with `gdal_translate -co TILED=YES`"
        )
    return rows, columns


def _check_bands(layer: Layer, file: Any, card: SensorCard) -> bool:
    """Return whether the last band is an alpha channel besides the layer's bands."""
    # GDAL calls the fourth band of many 8-bit files alpha although it is near infrared: the card
    # decides.
    has_alpha = file.count == len(layer.bands) + 1 and file.colorinterp[-1] == ColorInterp.alpha
    expected = ", ".join(card.names[band] for band in layer.bands)
    if file.count != len(layer.bands) + has_alpha:
        whose = "its sensor card has" if len(layer.bands) == len(card.bands) else "the site file says that it has"
        raise SiteError(
            f"{layer.path}: holds {file.count} bands, but {whose} {len(layer.bands)} ({expected}). "
            "Name the right card, or list the file's bands under `bands` in the site file."
        )
    texts = file.descriptions[: len(layer.bands)]
    described = [card.position(text or "") for text in texts]
    if None not in described and described != list(layer.bands):
        raise SiteError(
            f"{layer.path}: its own band descriptions say {', '.join(texts)}, but the site file expects {expected}. "
            "Put `bands` in the file's order."
        )
    return bool(has_alpha)


def _check_mask_pages(path: Path, file: Any, limits: ReadLimits) -> None:
    """Refuse a GeoTIFF whose mask, a page of its own, claims blocks above the limit. Raises
    Unreadable."""
    if file.driver != "GTiff" or not any(
        MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags for flags in file.mask_flag_enums
    ):
        return
    for number in range(2, MOST_PAGES + 2):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                page = rasterio.open(f"GTIFF_DIR:{number}:{path}", driver="GTiff")
        except (*FAULTS, OSError):
            return  # the last page came before
        with page:
            rows, columns = page.block_shapes[0]
            if rows * columns > limits.max_block_bytes:
                raise Unreadable(
                    f"has a mask with blocks of {columns} x {rows} pixels, more than {limits.max_block_bytes} bytes"
                )


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


def _check_expansion(path: Path, file: Any, present: Bools | None, limits: ReadLimits) -> None:
    share = 1.0 if present is None else float(present.mean())
    decoded = share * file.width * file.height * file.count * np.dtype(file.dtypes[0]).itemsize
    ratio = decoded / max(1, path.stat().st_size)
    if ratio > limits.max_expansion:
        raise Unreadable(f"claims {ratio:.0f} times its own size, more than {limits.max_expansion}")


def _format(driver: str) -> str:
    return "GeoTIFF" if driver == "GTiff" else driver


def one_line(error: BaseException) -> str:
    """Return the words of an error, or of its cause, without line breaks."""
    return " ".join(str(error.__cause__ or error).split())[:200]
