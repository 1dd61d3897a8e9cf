"""What a site file resolves to: the institution's sources, their scenes, and the files of each
scene. Plain data.

A *scene* is what is cut into chips: usually one file with all bands; or several files that cover
the same ground, such as one file a band, or 10 m and 20 m bands apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.sensors import SensorCard


@dataclass(frozen=True)
class Layer:
    """One file of a scene."""

    path: Path
    """Of the file system, or of a member of an archive; see `archives`."""
    bands: tuple[int, ...]
    """Which bands of the card the file holds, in its own order, as 0-based positions in
    ``SensorCard.bands``."""


@dataclass(frozen=True)
class Scene:
    """Files that cover the same ground."""

    layers: tuple[Layer, ...]
    """At least one; no band twice. The finest grid among the layers that are read is the chips'
    grid."""
    mask: Path | None = None
    """Raster of classes or flags on the same ground, by which pixels are left out; see
    `MaskRule`."""
    fault: str = ""
    """Why the scene cannot be read, where listing its files showed that already."""

    @property
    def path(self) -> Path:
        """The file after which the scene is named in messages."""
        return self.layers[0].path

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return (*(layer.path for layer in self.layers), *((self.mask,) if self.mask else ()))


@dataclass(frozen=True)
class MaskRule:
    """Which values of a band of a scene's mask raster make a pixel invalid."""

    drop: tuple[int, ...] = ()
    """Pixels of these classes are left out (scene classifications, such as Sentinel-2's SCL)."""
    drop_bits: tuple[int, ...] = ()
    """Pixels with any of these bits set are left out (bit 0 is the lowest; such as Landsat's
    QA_PIXEL)."""
    keep: tuple[int, ...] = ()
    """Where there are any, pixels of other values are left out (such as Planet's UDM2, 1 for
    clear)."""
    band: int = 1
    """The mask's band, counted from 1."""


@dataclass(frozen=True)
class DatasetRef:
    """A dataset class that yields images, named by the institution's own site file."""

    target: str
    """``module:Class``, such as ``torchgeo.datasets:EuroSAT``."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the class; a relative ``root`` has been made absolute."""


class Images(Protocol):
    """Images that come from elsewhere than scenes, all with the bands of one card; see
    `datasets.open_dataset`."""

    def __len__(self) -> int:
        """Return how many there are."""

    def key(self, i: int) -> str:
        """Return what identifies image ``i`` and its present state, for caches."""

    def name(self, i: int) -> str:
        """Return what image ``i`` is called in messages."""

    def read(self, i: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return values (C, H, W), in the card's bands and order, and the pixels (H, W) that are no
        gaps.

        Gaps that the values themselves show, as nodata or not-a-number, are the reader's to find in
        the bands asked for. Raises `rasters.Unreadable` for an image to skip, SiteError for one
        that contradicts the card.
        """


@dataclass(frozen=True)
class Source:
    """Scenes that share one sensor card."""

    sensor: str
    """Name of the shipped card, or ``custom``."""
    card: SensorCard
    scenes: tuple[Scene, ...]
    mask: MaskRule | None = None
    gsd_range_m: tuple[float, float] | None = None
    """Scenes whose own pixels are smaller or larger, in metres, are skipped and named."""
    digests: Mapping[Path, str] | None = None
    """SHA-256 of each file, in hex; a file that differs, or is not listed, is skipped and named."""
    baseline_offset: float | None = None
    """Counts that products of Sentinel-2 baseline 04.00 and later carry on top (1000); None for
    other sensors."""
    dataset: DatasetRef | None = None
    """Where images come from instead of scenes."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of every scene, masks too."""
        return tuple(file for scene in self.scenes for file in scene.files)


@dataclass(frozen=True)
class Skipped:
    """A scene that was left out, and why. Plain data: a bad file never ends a run."""

    path: str
    reason: str
    other_bands: bool = False
    """Whether its bands are not those of the sensor card, which may then be wrong."""

    @property
    def kind(self) -> str:
        """The reason by which scenes are counted together: figures, and GDAL's words in brackets,
        differ from file to file."""
        return re.sub(r"\d+", "N", self.reason.split(" (")[0])


@dataclass(frozen=True)
class ChipGrid:
    """How chips lie in a scene."""

    overlap: float = 0.0
    """Share of a chip's side that it has in common with the next chip, 0 to below 1."""
    stride_px: int | None = None
    """Pixels from one chip to the next, whatever the chips' size; None goes by ``overlap``."""

    def stride(self, size: int) -> int:
        """Return the pixels from one chip of ``size`` to the next."""
        return self.stride_px or max(1, round(size * (1 - self.overlap)))


@dataclass(frozen=True)
class Site:
    """A checked site file with its globs resolved."""

    name: str
    description: str
    path: Path
    sources: tuple[Source, ...]
    limits: ReadLimits
    grid: ChipGrid = ChipGrid()
    share_statistics: bool = False
    """Whether the institution allows that means and deviations of its bands leave the machine, if a
    run asks."""

    share_overlap: bool = False
    """Whether the coordinator may know which share of the imagery is also in its own sets."""

    @property
    def common_bands(self) -> tuple[str, ...]:
        """Names of the bands that every source holds, in the first source's order."""
        first, *rest = (source.card.names for source in self.sources)
        return tuple(name for name in first if all(name in names for names in rest))

    def parts(self) -> tuple[Site, ...]:
        """Return one site for each source: imagery of one sensor each, whose bands need not be the
        others'."""
        return tuple(replace(self, sources=(source,)) for source in self.sources)
