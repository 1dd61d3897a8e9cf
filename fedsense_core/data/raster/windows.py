"""Which windows of a raster are read: each holds whole chips, and each block is decoded once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from rasterio.windows import Window

READ_BYTES = 16 << 20
"""Windows grow to about this size where blocks are small: each call to GDAL has a cost."""


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
