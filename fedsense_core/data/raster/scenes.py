"""From a scene to windows of pixels: its files on one grid, with what masks and nodata leave.

Windows are planned so that each block of a file is decoded once and memory is bounded.
Shapes: C requested bands, h x w window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from fedsense_core.atomic_io import sha256
from fedsense_core.data.raster.files import check_claims, open_raster, parts_of
from fedsense_core.data.raster.formats import FAULTS, GDAL_OPTIONS, MASK_DTYPES, Unreadable, one_line
from fedsense_core.data.raster.grids import Grid, GridMapping, GridMismatch, bilinear, nearest, surrounding
from fedsense_core.data.raster.rasters import CHIP_TAG, Raster, both, inspect
from fedsense_core.data.sites.archives import on_disk
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.schema import Layer, MaskRule, Scene, Source

Array = NDArray[Any]
Bools = NDArray[np.bool_]

READ_BYTES = 16 << 20
"""Windows grow to about this size where blocks are small: each call to GDAL has a cost."""


@dataclass(frozen=True)
class ChipSpec:
    """Which chips are wanted of a site."""

    bands: tuple[str, ...]
    size: int
    """Chip size S, in pixels."""
    stride: int
    """Pixels from one chip to the next."""
    limits: ReadLimits


@dataclass(frozen=True)
class PixelWindow:
    """The pixels of some neighbouring chips: the first at the upper left corner, each other a
    stride further."""

    values: Array
    """(C, h, w) in the card's units."""
    valid: Bools | None
    """(h, w) a measurement in every requested band; None for everywhere."""
    row: int
    """Where the upper left corner lies in the scene, in pixels."""
    col: int


@dataclass(frozen=True)
class Mask:
    """An open raster of classes or flags."""

    path: Path
    file: Any
    rule: MaskRule
    mapping: GridMapping
    limits: ReadLimits

    def valid(self, window: Window) -> Bools:
        """Return which pixels (h, w) of the chips' grid the mask lets pass: none outside it. Raises
        Unreadable."""
        shape = (window.height, window.width)
        rows, columns = self.mapping.positions(window)
        part = _window_around(rows, columns, self.mapping.other, np.dtype(self.file.dtypes[0]).itemsize, self.limits)
        if part is None:
            return np.zeros(shape, dtype=bool)
        try:
            values = self.file.read(1, window=part)
        except (*FAULTS, OSError) as error:
            raise Unreadable(f"cannot be decoded ({one_line(error)})") from error
        values, inside = nearest(values, rows, columns, part)
        dropped = np.isin(values, self.rule.drop)
        if self.rule.drop_bits:
            bits = sum(1 << bit for bit in set(self.rule.drop_bits))
            dropped |= (values.astype(np.int64) & bits) != 0
        return np.broadcast_to(inside & ~dropped, shape)


@dataclass(frozen=True)
class OpenLayer:
    """An open file of a scene."""

    raster: Raster
    channels: tuple[int, ...]
    """Which of the requested bands it holds, in its own order."""
    mapping: GridMapping | None
    """From the chips' grid to its own; None where both are the same."""


@dataclass(frozen=True)
class OpenScene:
    """A scene that has passed inspection."""

    path: Path
    """After which the scene is named."""
    layers: tuple[OpenLayer, ...]
    reference: Raster
    """The file with the finest pixels, whose grid is the chips'."""
    mask: Mask | None
    spec: ChipSpec

    def windows(self) -> Iterator[PixelWindow]:
        """Yield the pixels of all chips, in memory bounded by the limits. Raises Unreadable when a
        block cannot be decoded."""
        size, stride = self.spec.size, self.spec.stride
        grid = self.reference.grid
        down, across = (
            Axis(length, block, size, stride)
            for length, block in zip((grid.height, grid.width), self.reference.block_shape, strict=True)
        )
        itemsize = max(np.dtype(layer.raster.units.dtype(layer.raster.dtype)).itemsize for layer in self.layers)
        decoded = self.reference.file.count * np.dtype(self.reference.dtype).itemsize  # by GDAL, of interleaved files
        mappings = [*(layer.mapping for layer in self.layers), self.mask and self.mask.mapping]
        positions = max(mapping.position_bytes if mapping else 0 for mapping in mappings)
        pixel_bytes = max(len(self.spec.bands) * (itemsize + 1), decoded, positions)  # values and masks
        for window in plan_windows(down, across, pixel_bytes, self.spec.limits.max_window_bytes):
            if not self.reference.is_absent(window):
                yield self._read(window)

    def _read(self, window: Window) -> PixelWindow:
        parts = [self._read_layer(layer, window) for layer in self.layers]
        valid = reduce(both, (valid for _, valid in parts))
        if self.mask is not None:
            with _naming_file(self.mask.path, self.path):
                valid = both(valid, self.mask.valid(window))
        if len(parts) == 1:
            values = parts[0][0]
        else:
            dtype = common_dtype([values.dtype for values, _ in parts])
            values = np.empty((len(self.spec.bands), window.height, window.width), dtype)
            for layer, (part, _) in zip(self.layers, parts, strict=True):
                values[list(layer.channels)] = part
        return PixelWindow(values, valid, window.row_off, window.col_off)

    def _read_layer(self, layer: OpenLayer, window: Window) -> tuple[Array, Bools | None]:
        raster = layer.raster
        with _naming_file(raster.path, self.path):
            if layer.mapping is None:
                return raster.read(window)
            rows, columns = layer.mapping.positions(window)
            bytes_each = len(raster.indexes) * (np.dtype(raster.dtype).itemsize + 1)
            part = _window_around(rows, columns, layer.mapping.other, bytes_each, self.spec.limits)
            if part is None:
                shape = (len(raster.indexes), window.height, window.width)
                return np.zeros(shape, raster.units.dtype(raster.dtype)), np.zeros(shape[1:], dtype=bool)
            values, valid = raster.read(part)
            return bilinear(values, valid, rows, columns, part)


def common_dtype(dtypes: Sequence[Any]) -> np.dtype[Any]:
    """Return the narrowest type of imagery that holds the values of all ``dtypes``: float32 where
    no integer does."""
    joint = np.result_type(*dtypes) if dtypes else np.dtype("float32")
    return joint if joint.itemsize <= 2 else np.dtype("float32")


def files_needed(scene: Scene, source: Source, bands: Sequence[str]) -> tuple[Path, ...]:
    """Return the files of a scene that are read for the named bands: no layer without any, the mask
    by a rule, and what VRTs lead to."""
    layers = [layer.path for layer, _ in _layers_needed(scene, source.card.positions(bands, source.sensor))]
    files = (*layers, *((scene.mask,) if scene.mask and source.mask else ()))
    return tuple(dict.fromkeys(part for path in files for part in parts_of(path)))


def read_scene(scene: Scene, source: Source, spec: ChipSpec) -> Iterator[PixelWindow]:
    """Yield the pixels of a scene's chips. Opens its files, and closes them at the end.

    Raises Unreadable for a scene to skip, perhaps half-way, and SiteError when a file contradicts
    its sensor card.
    """
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(**GDAL_OPTIONS))
        with _naming_file(scene.path, scene.path):
            opened = _open(scene, source, spec, stack)
        yield from opened.windows()


def _open(scene: Scene, source: Source, spec: ChipSpec, stack: ExitStack) -> OpenScene:
    if scene.fault:
        raise Unreadable(scene.fault)
    wanted = source.card.positions(spec.bands, source.sensor)
    for path in dict.fromkeys(map(on_disk, files_needed(scene, source, spec.bands))):
        with _naming_file(path, scene.path):
            _check_digest(path, source.digests)
    needed = _layers_needed(scene, wanted)
    missing = [source.card.names[i] for i in wanted if all(i not in chosen for _, chosen in needed)]
    if missing:
        raise Unreadable(f"has no file with the band {missing[0]}; files listed for the scene: {len(scene.layers)}")
    rasters = [_open_layer(layer, chosen, scene, source, spec, stack) for layer, chosen in needed]
    georeferenced = all(raster.grid.transform is not None and raster.grid.crs is not None for raster in rasters)
    reference = min(rasters, key=lambda raster: _fineness(raster.grid, georeferenced))
    _check_reference(reference, source, spec)
    layers = []
    for raster, (_, chosen) in zip(rasters, needed, strict=True):
        with _naming_file(raster.path, scene.path):
            mapping = GridMapping.of(reference.grid, raster.grid)
        channels = tuple(wanted.index(band) for band in chosen)
        layers.append(OpenLayer(raster, channels, None if mapping.is_identity else mapping))
    mask = _open_mask(scene.mask, source.mask, scene, reference, spec, stack) if source.mask and scene.mask else None
    return OpenScene(scene.path, tuple(layers), reference, mask, spec)


def _layers_needed(scene: Scene, wanted: Sequence[int]) -> list[tuple[Layer, tuple[int, ...]]]:
    """Return the layers that hold some of the wanted bands, and which, in the order in which they
    are wanted."""
    chosen = [(layer, tuple(band for band in wanted if band in layer.bands)) for layer in scene.layers]
    return [(layer, bands) for layer, bands in chosen if bands]


def _open_layer(
    layer: Layer, chosen: tuple[int, ...], scene: Scene, source: Source, spec: ChipSpec, stack: ExitStack
) -> Raster:
    with _naming_file(layer.path, scene.path):
        file = stack.enter_context(open_raster(layer.path, spec.limits))
        return inspect(file, layer, chosen, source, spec.limits)


def _open_mask(path: Path, rule: MaskRule, scene: Scene, reference: Raster, spec: ChipSpec, stack: ExitStack) -> Mask:
    with _naming_file(path, scene.path):
        file = stack.enter_context(open_raster(path, spec.limits))
        check_claims(file, MASK_DTYPES, spec.limits)
        return Mask(path, file, rule, GridMapping.of(reference.grid, Grid.of(file)), spec.limits)


def _check_reference(reference: Raster, source: Source, spec: ChipSpec) -> None:
    grid, size = reference.grid, spec.size
    tag = reference.file.tags().get(CHIP_TAG, "")
    if tag.isascii() and tag.isdecimal() and 0 < int(tag) <= 1 << 16 and int(tag) % size:
        raise Unreadable(f"is a mosaic of unrelated {tag}-pixel chips; ask for chips of {tag} or a divisor of it")
    if min(grid.width, grid.height) < size:
        raise Unreadable(f"is {grid.width} x {grid.height} pixels, smaller than one chip of {size}")
    if source.gsd_range_m is not None:
        low, high = source.gsd_range_m
        gsd_m = grid.gsd_m(source.card.gsd_m)
        # Pixels of 10 m by one map and 10.0003 by another are the same.
        if not low * 0.999 <= gsd_m <= high * 1.001:
            raise Unreadable(f"has pixels of {gsd_m:.4g} m; the site file's `gsd_range_m` is {low:g} to {high:g}")


def _check_digest(path: Path, digests: Mapping[Path, str] | None) -> None:
    if digests is None:
        return
    expected = digests.get(path)
    if expected is None:
        raise Unreadable("is not in the list of digests; add it there, or remove it from the folder")
    try:
        found = sha256(path) if path.is_file() else ""  # a pipe would block
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from error
    if found != expected.lower():
        raise Unreadable(f"has the SHA-256 {found[:12]}..., but the list of digests says {expected[:12]}...")


def _fineness(grid: Grid, georeferenced: bool) -> tuple[float, int]:
    """Return what is smaller for finer pixels: their size where all files tell it, then their
    number."""
    return round(grid.gsd_m(0.0), 3) if georeferenced else 0.0, -grid.width * grid.height


def _window_around(rows: Array, columns: Array, grid: Grid, pixel_bytes: int, limits: ReadLimits) -> Window | None:
    """Return the window of a file that some positions need, or None. Raises Unreadable when it is
    too large."""
    part = surrounding(rows, columns, grid)
    # A coarser file's part is small; one of a few chips may be larger than the limit, as their own
    # window may.
    window = rows.shape[0] * columns.shape[1]
    if part is not None and part.width * part.height > max(4 * window, limits.max_window_bytes // pixel_bytes):
        raise Unreadable(
            f"needs {part.width} x {part.height} pixels for one window of the finest file, more than "
            f"{limits.max_window_bytes} bytes; give it a coarser grid"
        )
    return part


@contextmanager
def _naming_file(path: Path, scene: Path) -> Iterator[None]:
    """Begin a reason with the file's name where the scene is named after another."""
    try:
        yield
    except (Unreadable, GridMismatch, *FAULTS) as error:
        if isinstance(error, FAULTS):
            reason = f"cannot be understood ({one_line(error)})"
        else:
            reason = str(error) if isinstance(error, Unreadable) else f"has {error}"
        raise Unreadable(reason if path == scene else f"{path.name} {reason}") from error


@dataclass(frozen=True)
class Axis:
    """One side of a raster: ``count`` chips of ``size`` pixels, each ``stride`` pixels after the
    one before."""

    length: int
    block: int
    size: int
    stride: int

    @property
    def count(self) -> int:
        """Number of whole chips."""
        return max(0, (self.length - self.size) // self.stride + 1)

    @property
    def least(self) -> int:
        """Fewest whole blocks, in pixels, in which a chip can begin and end."""
        return self.block * ceil(max(self.size, self.stride) / self.block)

    def extent(self, chips: int) -> int:
        """Return the pixels that so many neighbouring chips span."""
        return (chips - 1) * self.stride + self.size

    def beginning_in(self, pixels: int) -> int:
        """Return how many chips begin in so many pixels, at most."""
        return min(self.count, ceil(pixels / self.stride))

    def groups(self, pixels: int) -> Iterator[tuple[int, int]]:
        """Yield first chip and number of chips of each stretch of ``pixels`` in which chips
        begin."""
        first = 0
        for end in range(pixels, self.length + pixels, pixels):
            stop = min(self.count, ceil(end / self.stride))
            if stop > first:
                yield first, stop - first
            first = stop


def plan_windows(down: Axis, across: Axis, pixel_bytes: int, max_bytes: int) -> Iterator[Window]:
    """Yield windows that hold every chip once, of at most ``max_bytes`` unless a single chip has
    more.

    Windows are whole blocks, plus what their last chips reach over. They come in lanes of whole
    blocks from top to bottom, so that a block which two windows share is still in GDAL's cache;
    lanes that cut through blocks come row by row instead.
    """
    height, width = _fitted(down, across, pixel_bytes, max_bytes)
    spans = {"rows": list(down.groups(height)), "columns": list(across.groups(width))}
    by_lanes = width % across.block == 0
    outer, inner = ("columns", "rows") if by_lanes else ("rows", "columns")
    for one in spans[outer]:
        for other in spans[inner]:
            (row, rows), (column, columns) = (other, one) if by_lanes else (one, other)
            yield Window(
                column * across.stride, row * down.stride, across.extent(columns), down.extent(rows)
            )  # fmt: skip


def _fitted(down: Axis, across: Axis, pixel_bytes: int, max_bytes: int) -> tuple[int, int]:
    """Return height and width, in pixels, of the stretches in which the chips of one window
    begin."""

    def fits(height: int, width: int, most: int) -> bool:
        rows, columns = down.beginning_in(height), across.beginning_in(width)
        return down.extent(rows) * across.extent(columns) * pixel_bytes <= most

    height, width = down.least, across.least
    if not fits(height, width, max_bytes):
        return _shrunk(down, across, max_bytes // pixel_bytes)
    most = min(max_bytes, READ_BYTES)
    while width < across.length and fits(height, width + across.least, most):
        width += across.least
    while height < down.length and fits(height + down.least, width, most):
        height += down.least
    return height, width


def _shrunk(down: Axis, across: Axis, pixels: int) -> tuple[int, int]:
    """Return stretches that hold as many chips as fit into ``pixels``, first beside each other, at
    least one."""
    columns = max(1, min(across.beginning_in(across.least), (pixels // down.size - across.size) // across.stride + 1))
    rows = (pixels // across.extent(columns) - down.size) // down.stride + 1
    rows = max(1, min(down.beginning_in(down.least), rows))
    return rows * down.stride, columns * across.stride
