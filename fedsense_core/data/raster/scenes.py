"""From a scene to windows of pixels: its files on one grid, with what masks and nodata leave.

Windows are planned so that each block of a file is decoded once and memory is bounded.
Shapes: C requested bands, h x w window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from fedsense_core.atomic_io import sha256
from fedsense_core.data.raster.files import check_claims, open_raster, origins_of, parts_of
from fedsense_core.data.raster.formats import FAULTS, GDAL_OPTIONS, MASK_DTYPES, Unreadable, one_line
from fedsense_core.data.raster.grids import Grid, GridMapping, GridMismatch, bilinear, nearest, surrounding
from fedsense_core.data.raster.rasters import CHIP_TAG, Raster, inspect
from fedsense_core.data.raster.validity import Pixels, both, scene_validity
from fedsense_core.data.raster.windows import Axis, plan_windows
from fedsense_core.data.sites.archives import on_disk
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.schema import Layer, MaskRule, Scene, Source
from fedsense_core.data.sites.sentinel2 import metadata_file

Array = NDArray[Any]
Bools = NDArray[np.bool_]


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
            values = self.file.read(self.rule.band, window=part)
        except (*FAULTS, OSError) as error:
            raise Unreadable(f"cannot be decoded ({one_line(error)})") from error
        values, inside = nearest(values, rows, columns, part)
        return np.broadcast_to(inside & ~self._dropped(values), shape)

    def _dropped(self, values: Array) -> Bools:
        rule = self.rule
        dropped = np.isin(values, rule.drop)
        if rule.drop_bits:
            bits = sum(1 << bit for bit in set(rule.drop_bits))
            dropped |= (values.astype(np.int64) & bits) != 0
        return dropped | ~np.isin(values, rule.keep) if rule.keep else dropped


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
        itemsize = max(layer.raster.itemsize for layer in self.layers)
        decoded = self.reference.file.count * np.dtype(self.reference.dtype).itemsize  # by GDAL, of interleaved files
        mappings = [*(layer.mapping for layer in self.layers), self.mask and self.mask.mapping]
        positions = max(mapping.position_bytes if mapping else 0 for mapping in mappings)
        pixel_bytes = max(len(self.spec.bands) * (itemsize + 1), decoded, positions)  # values and masks
        for window in plan_windows(down, across, pixel_bytes, self.spec.limits.max_window_bytes):
            if not self.reference.is_absent(window):
                yield self._read(window)

    def _read(self, window: Window) -> PixelWindow:
        parts = [self._read_layer(layer, window) for layer in self.layers]
        valid = scene_validity(parts)
        if self.mask is not None:
            with _naming_file(self.mask.path, self.path):
                valid = both(valid, self.mask.valid(window))
        if len(parts) == 1:
            values = parts[0].values
        else:
            dtype = common_dtype([part.values.dtype for part in parts])
            values = np.empty((len(self.spec.bands), window.height, window.width), dtype)
            for layer, part in zip(self.layers, parts, strict=True):
                values[list(layer.channels)] = part.values
        return PixelWindow(values, valid, window.row_off, window.col_off)

    def _read_layer(self, layer: OpenLayer, window: Window) -> Pixels:
        raster = layer.raster
        with _naming_file(raster.path, self.path):
            if layer.mapping is None:
                return raster.pixels(window)
            rows, columns = layer.mapping.positions(window)
            bytes_each = len(raster.indexes) * (raster.itemsize + 1)
            part = _window_around(rows, columns, layer.mapping.other, bytes_each, self.spec.limits)
            if part is None:
                shape = (len(raster.indexes), window.height, window.width)
                outside = np.zeros(shape[1:], dtype=bool)
                return Pixels(np.zeros(shape, raster.units.dtype(raster.dtype)), outside, None)
            return _resampled(raster.pixels(part), rows, columns, part)


def _resampled(pixels: Pixels, rows: Array, columns: Array, part: Window) -> Pixels:
    """Interpolate a file's pixels at positions on its grid, as `grids.bilinear` does.

    Nodata has no weight; where the nearest pixel is nodata, so is the result, with its values.
    """
    values, valid = bilinear(pixels.values, pixels.measured, rows, columns, part)
    if pixels.nodata is None:
        return Pixels(values, valid, None)
    nodata, inside = nearest(pixels.nodata, rows, columns, part)
    nodata = nodata & inside
    np.copyto(values, nearest(pixels.values, rows, columns, part)[0], where=nodata)
    allowed, _ = nearest(np.ones_like(pixels.nodata) if pixels.valid is None else pixels.valid, rows, columns, part)
    return Pixels(values, allowed & inside, nodata)


def common_dtype(dtypes: Sequence[Any]) -> np.dtype[Any]:
    """Return the narrowest type of imagery that holds the values of all ``dtypes``: float32 where
    no integer does."""
    joint = np.result_type(*dtypes) if dtypes else np.dtype("float32")
    return joint if joint.itemsize <= 2 else np.dtype("float32")


def files_needed(scene: Scene, source: Source, bands: Sequence[str]) -> tuple[Path, ...]:
    """Return the files of a scene that are read for the named bands: no layer without any, the mask
    by a rule, and what VRTs lead to."""
    layers = [layer.path for layer, _ in layers_needed(scene, source.card.positions(bands, source.sensor))]
    files = (*layers, *((scene.mask,) if scene.mask and source.mask else ()))
    return tuple(dict.fromkeys(part for path in files for part in parts_of(path)))


def metadata_needed(scene: Scene, source: Source, bands: Sequence[str]) -> tuple[Path, ...]:
    """Return the files of products' metadata that decide how the same files are read."""
    if not source.baseline_offset or source.card.add_offset is not None:
        return ()
    layers = [layer.path for layer, _ in layers_needed(scene, source.card.positions(bands, source.sensor))]
    origins = (origin for path in layers for origin in origins_of(path))
    return tuple(dict.fromkeys(found for path in origins if (found := metadata_file(path))))


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
    for path in metadata_needed(scene, source, spec.bands):
        if path in (source.digests or ()):  # as lists of images need not hold it
            with _naming_file(path, scene.path):
                _check_digest(path, source.digests)
    needed = layers_needed(scene, wanted)
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


def layers_needed(scene: Scene, wanted: Sequence[int]) -> list[tuple[Layer, tuple[int, ...]]]:
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
        if rule.band > file.count:
            raise Unreadable(f"is a mask of {file.count} bands; band {rule.band} was asked for")
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
