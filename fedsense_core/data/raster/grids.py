"""Where the pixels of a raster lie, and how a coarser raster is resampled onto a finer one's grid.

Only scenes of several files, and masks, need the resampling.

Shapes: C bands, h x w pixels of the chips' grid, H x W pixels of the other raster that surround
them.

Each pixel is mapped from its position in the whole raster, so the result does not depend on the
windows in which it is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform as reproject_points
from rasterio.windows import Window

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Float64s = NDArray[np.float64]

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius: good to 0.4 %, enough to tell pixel sizes apart."""
_DIGITS = 6
"""Positions are rounded to a millionth of a pixel: coordinates of millions of metres leave noise of
that size."""
_POINTS = 64
"""Along each side, at which rasters are tried for common ground."""
_AT_ONCE = 1 << 18
"""Points that are reprojected at once: on their way they are objects of Python, ten times as
large."""
_MOST_STRETCHED = 1e6
"""Condition number of a transform beyond which its inverse is noise: no camera's pixels are that
long."""


class GridMismatch(Exception):
    """Two rasters have no ground in common, or nothing says that they have."""


@dataclass(frozen=True)
class Grid:
    """The pixels of one raster."""

    width: int
    height: int
    transform: Affine | None
    """From (column, row) to coordinates; None without georeference."""
    crs: CRS | None

    @classmethod
    def of(cls, file: Any) -> Grid:
        """Return the grid of an open file. A singular transform is none."""
        transform = file.transform
        usable = transform != Affine.identity() and all(map(math.isfinite, transform)) and _is_sane(transform)
        return cls(file.width, file.height, transform if usable else None, file.crs if usable else None)

    def gsd_m(self, default: float) -> float:
        """Return the side of a pixel in metres; ``default`` without georeference."""
        if self.transform is None or self.crs is None:
            return default
        side = math.sqrt(abs(self.transform.determinant))
        if not self.crs.is_geographic:
            return side * _metres_per_unit(self.crs)
        _, latitude = _applied(_matrix(self.transform), np.array(self.width / 2), np.array(self.height / 2))
        # A degree of longitude shrinks with latitude, one of latitude does not: the mean of both is
        # geometric.
        return side * math.radians(EARTH_RADIUS_M) * math.sqrt(max(0.0, math.cos(math.radians(float(latitude)))))


@dataclass(frozen=True)
class GridMapping:
    """Where the pixels of ``target`` lie among those of ``other``."""

    target: Grid
    other: Grid
    direct: Float64s | None
    """(3, 3) from the target's (column, row, 1) to the other's where both use the same
    coordinates."""

    @classmethod
    def of(cls, target: Grid, other: Grid) -> GridMapping:
        """Lay one raster over another by their georeference or, without, by their sizes.

        Raises GridMismatch when they have no common ground, differ in shape without georeference,
        or in coordinates that cannot be transformed.
        """
        if target.transform is None or other.transform is None:
            if target.width * other.height != target.height * other.width:
                raise GridMismatch(
                    f"{other.width} x {other.height} pixels, not of the same shape as the finest file's "
                    f"{target.width} x {target.height}, and no georeference says how they lie"
                )
            return cls(target, other, np.diag([other.width / target.width, other.height / target.height, 1.0]))
        if target.crs is None or other.crs is None or target.crs == other.crs:
            direct = _inverse(other.transform) @ _matrix(target.transform)
            mapping = cls(target, other, direct)
        else:
            mapping = cls(target, other, None)
        mapping._check_overlap()
        return mapping

    @property
    def is_identity(self) -> bool:
        """True when both rasters have the same pixels."""
        if self.direct is None or (self.target.width, self.target.height) != (self.other.width, self.other.height):
            return False
        corners = np.array([[0.0, self.target.width], [0.0, self.target.height]])
        return bool(np.allclose(_applied(self.direct, *corners), corners, rtol=0, atol=0.01))

    @property
    def position_bytes(self) -> int:
        """Bytes that `positions` takes for each pixel, copies too; 0 where a whole row or column
        shares them."""
        return 0 if self.direct is not None and self.direct[0, 1] == 0 == self.direct[1, 0] else 64

    def positions(self, window: Window) -> tuple[Float64s, Float64s]:
        """Return rows and columns of the window's pixel centres in the other raster: 0 is its first
        pixel's centre.

        They broadcast to (h, w). Raises GridMismatch where coordinates cannot be transformed.
        """
        rows = np.arange(window.row_off, window.row_off + window.height)[:, None] + 0.5
        columns = np.arange(window.col_off, window.col_off + window.width)[None, :] + 0.5
        x, y = self._positions_in_other(rows, columns)
        return np.round(y - 0.5, _DIGITS), np.round(x - 0.5, _DIGITS)

    def _positions_in_other(self, rows: Float64s, columns: Float64s) -> tuple[Float64s, Float64s]:
        """Return the other raster's columns and rows of points of the target."""
        return self._reprojected(rows, columns) if self.direct is None else _applied(self.direct, columns, rows)

    def _reprojected(self, rows: Float64s, columns: Float64s) -> tuple[Float64s, Float64s]:
        if self.target.transform is None or self.other.transform is None:
            raise GridMismatch("no georeference")
        x, y = _applied(_matrix(self.target.transform), columns, rows)
        shape = np.broadcast_shapes(x.shape, y.shape)
        flat = np.array([np.broadcast_to(values, shape).ravel() for values in (x, y)])
        try:
            for start in range(0, flat.shape[1], _AT_ONCE):
                part = flat[:, start : start + _AT_ONCE]
                part[:] = reproject_points(self.target.crs, self.other.crs, *part)
        except (RasterioError, CPLE_BaseError, ValueError) as error:
            raise GridMismatch(
                f"coordinates ({self.other.crs}) that cannot be transformed to the finest file's"
            ) from error
        x, y = flat.reshape(2, *shape)
        return _applied(_inverse(self.other.transform), x, y)

    def _check_overlap(self) -> None:
        """Raise GridMismatch unless some of many points of the finest raster lie on the other."""
        points = (np.arange(_POINTS, dtype=np.float64) + 0.5) / _POINTS
        x, y = self._positions_in_other(points[:, None] * self.target.height, points[None, :] * self.target.width)
        if not ((x > 0) & (x < self.other.width) & (y > 0) & (y < self.other.height)).any():
            raise GridMismatch("no ground in common with the finest file, by their georeference")


def surrounding(rows: Float64s, columns: Float64s, other: Grid) -> Window | None:
    """Return the other raster's pixels that the positions lie between, or None when all lie
    outside."""
    spans = []
    for positions, size in ((rows, other.height), (columns, other.width)):
        inside = positions[np.isfinite(positions)]
        if not len(inside):
            return None
        first, last = max(0, math.floor(inside.min())), min(size - 1, math.ceil(inside.max()))
        if first > last or inside.max() < -0.5 or inside.min() >= size - 0.5:
            return None
        spans.append((first, last - first + 1))
    (top, height), (left, width) = spans
    return Window(left, top, width, height)


def nearest(values: Array, rows: Float64s, columns: Float64s, window: Window) -> tuple[Array, Bools]:
    """Return the pixels (..., h, w) of ``values`` (..., H, W) nearest to the positions, and where
    there are any (h, w).

    ``window`` is the part of the other raster that ``values`` are; positions are those in the whole
    of it.
    """
    y, inside_y = _indexes(np.floor(rows + 0.5) - window.row_off, window.height)
    x, inside_x = _indexes(np.floor(columns + 0.5) - window.col_off, window.width)
    return values[..., y, x], np.asarray(inside_y & inside_x)


def bilinear(
    values: Array, valid: Bools | None, rows: Float64s, columns: Float64s, window: Window
) -> tuple[Array, Bools]:
    """Interpolate ``values`` (C, H, W) at the positions; return (C, h, w) of the same type and
    where (h, w) valid.

    ``window`` is as in `nearest`. Invalid pixels have no weight, so that none bleeds into its
    neighbours; a result is valid where the nearest pixel is.
    """
    valid = np.ones(values.shape[1:], dtype=bool) if valid is None else valid
    known, inside = nearest(valid, rows, columns, window)
    top, left = np.floor(rows), np.floor(columns)
    shape = np.broadcast_shapes(rows.shape, columns.shape)
    total, weights = np.zeros((len(values), *shape), np.float32), np.zeros(shape, np.float32)
    for down in (0, 1):
        for right in (0, 1):
            y, _ = _indexes(top + down - window.row_off, window.height)
            x, _ = _indexes(left + right - window.col_off, window.width)
            share_y, share_x = np.abs(1 - down - (rows - top)), np.abs(1 - right - (columns - left))
            weight = (share_y * share_x * valid[y, x]).astype(np.float32)
            # Chosen, not multiplied: 0 times not-a-number would be none either.
            total += np.where(weight > 0, values[:, y, x], 0) * weight
            weights += weight
    total /= np.where(weights > 0, weights, 1)
    return np.rint(total).astype(values.dtype) if values.dtype.kind != "f" else total, known & inside


def _indexes(positions: Float64s, size: int) -> tuple[NDArray[np.int64], Bools]:
    """Return positions as indexes, moved to the edge where they lie outside, and which lie
    inside."""
    inside = (positions >= 0) & (positions <= size - 1)
    return np.clip(np.nan_to_num(positions, posinf=0.0, neginf=0.0), 0, size - 1).astype(np.int64), inside


def _matrix(transform: Affine) -> Float64s:
    """Return a transform as a matrix (3, 3)."""
    return np.array((*tuple(transform)[:6], 0.0, 0.0, 1.0), np.float64).reshape(3, 3)


def _inverse(transform: Affine) -> Float64s:
    """Return the matrix (3, 3) from coordinates to (column, row, 1)."""
    return np.asarray(np.linalg.inv(_matrix(transform)), np.float64)


def _is_sane(transform: Affine) -> bool:
    """Tell whether coordinates can be turned back into pixels."""
    return bool(np.linalg.cond(_matrix(transform)[:2, :2]) < _MOST_STRETCHED)


def _applied(matrix: Float64s, x: Float64s, y: Float64s) -> tuple[Float64s, Float64s]:
    """Map x and y, which broadcast; without a turn they do not mix, and keep their own shapes."""
    (a, b, c), (d, e, f), _ = matrix.tolist()
    return (a * x + c if b == 0 else a * x + b * y + c), (e * y + f if d == 0 else d * x + e * y + f)


def _metres_per_unit(crs: CRS) -> float:
    try:
        return float(crs.linear_units_factor[1])
    except (RasterioError, ValueError):
        return 1.0
