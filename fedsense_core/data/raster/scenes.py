"""Reading a scene: its files on one grid, with what masks and nodata leave of it, window by window.

Shapes: C requested bands, h x w window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from fedsense_core.atomic_io import sha256
from fedsense_core.data.raster.grids import Apart, Grid, Placement, bilinear, nearest, surrounding
from fedsense_core.data.raster.rasters import (
    CHIP_TAG,
    FAULTS,
    GDAL_OPTIONS,
    MASK_DTYPES,
    Raster,
    Unreadable,
    both,
    check_claims,
    common_dtype,
    inspect,
    one_line,
    open_raster,
)
from fedsense_core.data.raster.windows import Axis, plan
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.schema import Layer, MaskRule, Scene, Source

Array = NDArray[Any]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Request:
    """What is wanted of a site."""

    bands: tuple[str, ...]
    size: int
    """Chip size S, in pixels."""
    stride: int
    """Pixels from one chip to the next."""
    limits: ReadLimits


@dataclass(frozen=True)
class Block:
    """The pixels of some neighbouring chips; the first begins at the upper left corner, the others
    each a stride on."""

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

    file: Any
    rule: MaskRule
    placement: Placement
    limits: ReadLimits

    def valid(self, window: Window) -> Bools:
        """Return which pixels (h, w) of the chips' grid the mask lets pass; outside it there are
        none.

        Raises Unreadable.
        """
        shape = (window.height, window.width)
        rows, columns = self.placement.positions(window)
        part = _part(rows, columns, self.placement.other, np.dtype(self.file.dtypes[0]).itemsize, self.limits)
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
    """An open file of a scene, and where it goes."""

    raster: Raster
    channels: tuple[int, ...]
    """Which of the requested bands it holds, in its own order."""
    placement: Placement | None
    """Its place on the chips' grid; None where both are the same."""


@dataclass(frozen=True)
class OpenScene:
    """A scene that has passed inspection."""

    path: Path
    """After which the scene is named."""
    layers: tuple[OpenLayer, ...]
    reference: Raster
    """The file with the finest pixels, whose grid is the chips'."""
    mask: Mask | None
    request: Request

    def blocks(self) -> Iterator[Block]:
        """Yield all chips, in memory bounded by the limits. Raises Unreadable when a block cannot
        be decoded."""
        size, stride = self.request.size, self.request.stride
        grid = self.reference.grid
        down, across = (
            Axis(length, block, size, stride)
            for length, block in zip((grid.height, grid.width), self.reference.block_shape, strict=True)
        )
        itemsize = max(np.dtype(layer.raster.units.dtype(layer.raster.dtype)).itemsize for layer in self.layers)
        held = self.reference.file.count * np.dtype(self.reference.dtype).itemsize  # by GDAL, of interleaved files
        placements = [*(layer.placement for layer in self.layers), self.mask and self.mask.placement]
        positions = max(placement.position_bytes if placement else 0 for placement in placements)
        pixel_bytes = max(len(self.request.bands) * (itemsize + 1), held, positions)  # values and masks
        for window in plan(down, across, pixel_bytes, self.request.limits.max_window_bytes):
            if not self.reference.is_absent(window):
                yield self._read(window)

    def _read(self, window: Window) -> Block:
        parts = [self._layer(layer, window) for layer in self.layers]
        valid = reduce(both, (valid for _, valid in parts))
        if self.mask is not None:
            with _naming(Path(self.mask.file.name), self.path):
                valid = both(valid, self.mask.valid(window))
        if len(parts) == 1:
            values = parts[0][0]
        else:
            dtype = common_dtype([values.dtype for values, _ in parts])
            values = np.empty((len(self.request.bands), window.height, window.width), dtype)
            for layer, (part, _) in zip(self.layers, parts, strict=True):
                values[list(layer.channels)] = part
        return Block(values, valid, window.row_off, window.col_off)

    def _layer(self, layer: OpenLayer, window: Window) -> tuple[Array, Bools | None]:
        raster = layer.raster
        with _naming(raster.path, self.path):
            if layer.placement is None:
                return raster.read(window)
            rows, columns = layer.placement.positions(window)
            bytes_each = len(raster.indexes) * (np.dtype(raster.dtype).itemsize + 1)
            part = _part(rows, columns, layer.placement.other, bytes_each, self.request.limits)
            if part is None:
                shape = (len(raster.indexes), window.height, window.width)
                return np.zeros(shape, raster.units.dtype(raster.dtype)), np.zeros(shape[1:], dtype=bool)
            values, valid = raster.read(part)
            return bilinear(values, valid, rows, columns, part)


def files_needed(scene: Scene, source: Source, bands: Sequence[str]) -> tuple[Path, ...]:
    """Return the files of a scene that are read for the named bands: no layer without any, and the
    mask by a rule."""
    layers = [layer.path for layer, _ in _layers_needed(scene, source.card.positions(bands, source.sensor))]
    return (*layers, *((scene.mask,) if scene.mask and source.mask else ()))


def read_scene(scene: Scene, source: Source, request: Request) -> Iterator[Block]:
    """Yield the chips of a scene. Opens its files, and closes them at the end.

    Raises Unreadable for a scene to skip, perhaps half-way, and SiteError when a file contradicts
    its sensor card.
    """
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(**GDAL_OPTIONS))
        with _naming(scene.path, scene.path):
            opened = _open(scene, source, request, stack)
        yield from opened.blocks()


def _open(scene: Scene, source: Source, request: Request, stack: ExitStack) -> OpenScene:
    wanted = source.card.positions(request.bands, source.sensor)
    for path in files_needed(scene, source, request.bands):
        with _naming(path, scene.path):
            _check_digest(path, source.digests)
    held = _layers_needed(scene, wanted)
    missing = [source.card.names[i] for i in wanted if all(i not in chosen for _, chosen in held)]
    if missing:
        raise Unreadable(f"has no file with the band {missing[0]}; files listed for the scene: {len(scene.layers)}")
    rasters = [_open_layer(layer, chosen, scene, source, request, stack) for layer, chosen in held]
    known = all(raster.grid.transform is not None and raster.grid.crs is not None for raster in rasters)
    reference = min(rasters, key=lambda raster: _fineness(raster.grid, known))
    _check_reference(reference, source, request)
    layers = []
    for raster, (_, chosen) in zip(rasters, held, strict=True):
        with _naming(raster.path, scene.path):
            placement = Placement.of(reference.grid, raster.grid)
        channels = tuple(wanted.index(band) for band in chosen)
        layers.append(OpenLayer(raster, channels, None if placement.is_identity else placement))
    mask = _open_mask(scene.mask, source.mask, scene, reference, request, stack) if source.mask and scene.mask else None
    return OpenScene(scene.path, tuple(layers), reference, mask, request)


def _layers_needed(scene: Scene, wanted: Sequence[int]) -> list[tuple[Layer, tuple[int, ...]]]:
    """Return the layers that hold some of the wanted bands, and which, in the order in which they
    are wanted."""
    held = [(layer, tuple(band for band in wanted if band in layer.bands)) for layer in scene.layers]
    return [(layer, chosen) for layer, chosen in held if chosen]


def _open_layer(
    layer: Layer, chosen: tuple[int, ...], scene: Scene, source: Source, request: Request, stack: ExitStack
) -> Raster:
    with _naming(layer.path, scene.path):
        file = stack.enter_context(open_raster(layer.path))
        return inspect(file, layer, chosen, source, request.limits)


def _open_mask(path: Path, rule: MaskRule, scene: Scene, reference: Raster, request: Request, stack: ExitStack) -> Mask:
    with _naming(path, scene.path):
        file = stack.enter_context(open_raster(path))
        check_claims(file, MASK_DTYPES, request.limits)
        return Mask(file, rule, Placement.of(reference.grid, Grid.of(file)), request.limits)


def _check_reference(reference: Raster, source: Source, request: Request) -> None:
    grid, size = reference.grid, request.size
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


def _part(rows: Array, columns: Array, grid: Grid, pixel_bytes: int, limits: ReadLimits) -> Window | None:
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
def _naming(path: Path, scene: Path) -> Iterator[None]:
    """Begin a reason with the file's name where the scene is named after another."""
    try:
        yield
    except (Unreadable, Apart, *FAULTS) as error:
        if isinstance(error, FAULTS):
            reason = f"cannot be understood ({one_line(error)})"
        else:
            reason = str(error) if isinstance(error, Unreadable) else f"has {error}"
        raise Unreadable(reason if path == scene else f"{path.name} {reason}") from error
