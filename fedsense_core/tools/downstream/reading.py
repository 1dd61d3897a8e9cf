"""The files of a user's labelled folder, read as carefully as imagery: allowed formats, capped
sizes, no side files.

Unlike a scene of an institution, a file of a labelled set must not be missing: what cannot be read
is an error. Shapes: C bands, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from pydantic import Field
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from fedsense_core.data.chips.gaps import filled
from fedsense_core.data.raster.files import check_claims, open_raster
from fedsense_core.data.raster.formats import DRIVERS, FAULTS, GDAL_OPTIONS, MASK_DTYPES, Unreadable, one_line
from fedsense_core.data.raster.rasters import CHIP_TAG, inspect
from fedsense_core.data.sites.cards import CARDS
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.schema import Layer, Source
from fedsense_core.data.sites.sensors import SensorCard, shipped_card
from fedsense_core.data.sites.site_file import SensorChoice, read_strict_toml
from fedsense_core.errors import SiteError
from fedsense_core.tools.downstream.samples import Load

Array = NDArray[Any]
LIMITS = ReadLimits()
IMAGE_SUFFIXES = (".tif", ".tiff", *DRIVERS)
"""Of files that are taken for images."""


@dataclass(frozen=True)
class Extent:
    """What an image file says of itself."""

    height: int
    width: int
    chip: int | None
    """Side of the chips of a file that is a mosaic of unrelated chips."""


@dataclass(frozen=True)
class Described:
    """What is said of the files, if anything."""

    sensor: str | None = None
    """Name of a shipped sensor card."""
    bands: tuple[str, ...] = ()
    """Names of the bands in the files' order, where these are not all of the card's."""
    limits: ReadLimits = LIMITS
    card: SensorCard | None = None
    """That of the folder's own `TaskFile`, where ``sensor`` and ``bands`` say nothing."""

    def images(self, first: Path) -> ImageFiles:
        """Return a reader of images like ``first``.

        Where nothing is said, the file's own band descriptions are looked up in the shipped cards;
        three bands without any are red, green and blue. Raises SiteError where that fails, too.
        """
        where = "--sensor" if self.sensor else str(first)
        if self.sensor:
            card = shipped_card(self.sensor, where)
            return ImageFiles(card.only(self.bands, "--bands") if self.bands else card, self.sensor, self.limits)
        if self.card is not None and not self.bands:
            return ImageFiles(self.card, "custom", self.limits)
        with _opened(first) as file:
            names = list(self.bands) or [text or "" for text in file.descriptions]
            count = int(file.count)
        for sensor in CARDS:
            card = shipped_card(sensor, where)
            if all(card.position(name) is not None for name in names):
                return ImageFiles(card.only(names, where), sensor, self.limits)
        if self.bands:
            raise SiteError(f"--bands {','.join(self.bands)}: no shipped sensor card has all of these. Name --sensor.")
        # A fourth band of an 8-bit PNG is its alpha channel; of a GeoTIFF it may be near infrared.
        if count == 3 or (count == 4 and first.suffix.lower() == ".png"):
            return ImageFiles(shipped_card("rgb", where), "rgb", self.limits)
        alpha = " If the fourth is transparency, --sensor rgb." if count == 4 else ""
        raise SiteError(
            f"{first}: holds {count} {_bands(count)} and does not say which. Name a sensor card with --sensor "
            f"({', '.join(sorted(CARDS))}), and with --bands the bands in the files' order where they are not all."
            f"{alpha} Other sensors are described in a task.toml in the folder."
        )


class TaskFile(SensorChoice):
    """`task.toml` in a labelled folder, which need not have one: what its files are, and what
    tables must say."""

    name: Annotated[str, Field(min_length=1)]
    """Short name of the data set."""
    note: str = ""
    """What every table must say, such as that no human made the labels."""


@dataclass(frozen=True)
class About:
    """What is known of a labelled folder before its images are looked at."""

    folder: Path
    name: str
    note: str
    described: Described

    def of_sensor(self, sensor: str) -> About:
        """Return the same with a sensor card, where nobody named one."""
        said = self.described
        return self if said.sensor or said.bands or said.card else replace(self, described=replace(said, sensor=sensor))

    def with_note(self, more: str) -> str:
        """Return the folder's note and what a reader of it adds."""
        return "; ".join(part for part in (self.note, more) if part)


def about_folder(folder: Path, described: Described) -> About:
    """Return name, note and sensor of a folder, by its `task.toml` where it has one. Raises
    SiteError for a bad one."""
    path = folder / "task.toml"
    if not path.is_file():
        return About(folder, folder.resolve().name, "", described)
    file = read_strict_toml(path, TaskFile)
    return About(folder, file.name, file.note, replace(described, card=file.card(str(path))))


@dataclass(frozen=True)
class ImageFiles:
    """Reads images that share one sensor card."""

    card: SensorCard
    """Of just the bands that the files hold, in their order."""
    sensor: str
    limits: ReadLimits

    def extent(self, path: Path) -> Extent:
        """Return the size of an image as `extent_of` does."""
        return extent_of(path)

    def read(self, path: Path, window: Window | None = None) -> Array:
        """Return an image (C, H, W), or a window of it. Gaps are given the mean of their band.

        Raises SiteError for a file that is damaged, too large to be read at once, or of other bands
        than the card's.
        """
        everything = tuple(range(len(self.card.bands)))
        source = Source(self.sensor, self.card, (), baseline_offset=self.card.baseline_offset)
        with _opened(path) as file:
            self._check_bands(path, file)
            raster = inspect(file, Layer(path, everything), everything, source, self.limits)
            window = _checked(window, file, self.limits)
            values, valid = raster.read(window)
        if valid is None or valid.all():
            return values
        return np.asarray(filled(values[None], valid[None])[0]) if valid.any() else np.zeros_like(values)

    def _check_bands(self, path: Path, file: Any) -> None:
        names = self.card.names
        if file.count == len(names) or (file.count == len(names) + 1 and file.colorinterp[-1] == ColorInterp.alpha):
            return
        raise SiteError(
            f"{path}: holds {file.count} {_bands(file.count)}, but the images of this folder are read as "
            f"{', '.join(names)}. Convert the file; or, if they all are like it, name their bands in the files' order "
            "with --sensor and --bands."
        )

    def later(self, path: Path, window: Window | None = None) -> Load:
        """Return what reads the image, or a window of it, when it is needed."""
        return partial(self.read, path, window)


def extent_of(path: Path) -> Extent:
    """Return the size of an image or a mask without reading a pixel. Raises SiteError."""
    with _opened(path) as file:
        tag = file.tags().get(CHIP_TAG, "")
        return Extent(int(file.height), int(file.width), int(tag) if tag.isascii() and tag.isdecimal() else None)


def read_mask(path: Path, window: Window | None = None, limits: ReadLimits = LIMITS) -> Array:
    """Return a file of classes as (H, W) int64: the numbers of the file, of palette images the
    places in the palette.

    Raises SiteError for a file that is damaged, too large, or of more than one band.
    """
    values = read_colours(path, window, limits)
    if len(values) != 1:
        raise SiteError(
            f"{path}: a mask needs one band of class numbers, this file has {len(values)}. Turn its colours into "
            "numbers from 0, and 255 where the truth is not known."
        )
    return np.asarray(values[0], np.int64)


def read_colours(path: Path, window: Window | None = None, limits: ReadLimits = LIMITS) -> Array:
    """Return every band of a file of flags or colours (bands, H, W) as stored. Raises SiteError as
    `read_mask`."""
    with _opened(path) as file:
        check_claims(file, MASK_DTYPES, limits)
        return np.asarray(file.read(window=_checked(window, file, limits)))


def image_files(folder: Path) -> list[Path]:
    """Return the image files right in ``folder``, sorted by name; hidden files are passed over."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with rasterio.Env(**GDAL_OPTIONS), open_raster(path, LIMITS) as file:
            yield file
    except Unreadable as reason:
        raise SiteError(f"{path}: {reason}. Repair the file, or take it out of the set.") from reason
    except FAULTS as error:
        raise SiteError(f"{path}: cannot be decoded ({one_line(error)}). Copy the file again.") from error


def _bands(count: int) -> str:
    return "band" if count == 1 else "bands"


def _checked(window: Window | None, file: Any, limits: ReadLimits) -> Window:
    window = window or Window(0, 0, file.width, file.height)
    needed = window.width * window.height * file.count * np.dtype(file.dtypes[0]).itemsize
    if needed > limits.max_window_bytes:
        raise Unreadable(
            f"has {file.width} x {file.height} pixels, {needed} bytes at once, more than {limits.max_window_bytes}"
        )
    return window
