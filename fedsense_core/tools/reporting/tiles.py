"""Rows of captioned tiles, the one form in which pictures reach the report, and chips as RGB
arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

MOST_GAIN = 5
"""A chip of open water is left nearly even: more would show the noise of the sensor."""


@dataclass(frozen=True)
class Tile:
    """One small picture."""

    image: np.ndarray
    """(H, W, 3) uint8."""
    caption: str = ""
    agrees: bool | None = None
    """Whether the tile is of the same class as the row's query; None where that means nothing."""


@dataclass(frozen=True)
class Row:
    """Tiles that belong together."""

    name: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class ReportPictures:
    """The pictures of a report; empty groups are left out."""

    chips: tuple[Row, ...] = ()
    """Samples of each institution, from ``pictures.chip_sheet``."""
    neighbours: tuple[Row, ...] = ()
    """Query and nearest chips, from ``nearest_neighbours``."""
    pca: tuple[Row, ...] = ()
    """Chip and feature map, from ``pca_rgb``."""
    reconstructions: tuple[Row, ...] = ()
    """Chip, visible part and reconstruction, from ``reconstructions``."""


def to_rgb(x_NCHW: Tensor, bands: Sequence[str] = ()) -> np.ndarray:
    """Return chips as pictures (N, H, W, 3) uint8.

    Each band is stretched between its 2nd and 98th percentile over all the chips given, then each
    chip as a whole, at most fivefold, so that forests are not black beside clouds and colours still
    compare.
    """
    names = [band.lower() for band in bands]
    if {"red", "green", "blue"} <= set(names):
        chosen = [names.index(colour) for colour in ("red", "green", "blue")]
    else:
        chosen = [0, 1, 2] if x_NCHW.shape[1] >= 3 else [0, 0, 0]
    shown_N3HW = x_NCHW[:, chosen].float().cpu().numpy()
    low, high = np.percentile(shown_N3HW, (2, 98), axis=(0, 2, 3), keepdims=True)
    unit = (shown_N3HW - low) / np.maximum(high - low, 1e-6)
    dark, light = np.percentile(unit, (2, 98), axis=(1, 2, 3), keepdims=True)
    grey = (dark + light) / 2
    unit = (unit - grey) / np.maximum(light - dark, 1 / MOST_GAIN) + 0.5
    return np.asarray((255 * np.clip(unit, 0, 1)).round().astype(np.uint8).transpose(0, 2, 3, 1))
