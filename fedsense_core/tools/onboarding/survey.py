"""Which rasters lie in a folder, and what each says that it holds. Only headers are read, no
pixels."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window

from fedsense_core.data.raster.files import check_claims, open_raster
from fedsense_core.data.raster.formats import DRIVERS, DTYPES, GDAL_OPTIONS, MASK_DTYPES, NOT_READ, Unreadable
from fedsense_core.data.raster.grids import Grid
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.schema import Skipped
from fedsense_core.errors import SiteError

SUFFIXES = (".tif", ".tiff", *DRIVERS)
MOST_OPENED = 4000
"""Headers that are read. Of more files, each name family gives a share, and the others are taken to
be alike."""
PEEK_PX = 256
"""Side of the one window that `peek` reads."""

FilesProgress = Callable[[int, int], None]
"""Called with the files done and all files."""


@dataclass(frozen=True)
class Look:
    """What a file says that it holds."""

    bands: int
    dtype: str
    texts: tuple[str, ...]
    """Description of each band, empty where there is none."""
    wavelengths_um: tuple[float | None, ...]
    """Central wavelength of each band where the file says it."""
    is_rgb: bool
    """The first three bands are called red, green and blue."""
    has_alpha: bool
    """The last band is called alpha."""
    gsd_m: float | None
    """Side of a pixel in metres, None without georeference."""
    width: int
    height: int


@dataclass(frozen=True)
class Image:
    """A readable raster."""

    path: str
    """From the folder, with forward slashes."""
    look: Look

    @property
    def folder(self) -> str:
        """Folder of the file from the surveyed one; empty for itself."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """File name."""
        return self.path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """File name without suffix."""
        return PurePosixPath(self.path).stem

    @property
    def suffix(self) -> str:
        """``.tif`` and the like, as it is written."""
        return PurePosixPath(self.path).suffix


@dataclass(frozen=True)
class Survey:
    """What lies in a folder."""

    folder: Path
    images: tuple[Image, ...]
    unreadable: tuple[Skipped, ...]
    """Rasters that cannot be used, and why; paths from the folder."""
    not_read: Counter[str]
    """Files of each other raster format."""
    opened: int
    """Headers that were read."""


def survey(folder: Path, progress: FilesProgress = lambda done, total: None) -> Survey:
    """Look at every raster below ``folder``. Raises SiteError where there is no folder or no
    raster."""
    if not folder.is_dir():
        raise SiteError(f"{folder}: is no folder. Give the folder in which your imagery lies.")
    paths, unreadable, not_read = _files(folder)
    if not paths:
        other = ", ".join(f"{count} {suffix}" for suffix, count in not_read.most_common(4))
        hint = f" It holds {other}: convert them to GeoTIFF, for example with `gdal_translate`." if other else ""
        raise SiteError(f"{folder}: holds no raster that is read ({', '.join(SUFFIXES)}).{hint}")
    chosen = _chosen(paths)
    looks: dict[str, Look] = {}
    with rasterio.Env(**GDAL_OPTIONS):
        for done, path in enumerate(chosen):
            progress(done, len(chosen))
            try:
                looks[path] = look(folder / path)
            except Unreadable as reason:
                unreadable.append(Skipped(path, str(reason)))
    progress(len(chosen), len(chosen))
    images = tuple(Image(path, seen) for path, seen in _all_looks(paths, looks, {item.path for item in unreadable}))
    return Survey(folder, images, tuple(unreadable), not_read, len(chosen))


def look(path: Path) -> Look:
    """Read a file's header. Raises Unreadable for what training would skip anyway."""
    with open_raster(path) as file:
        single = file.count == 1  # only a mask may have the wider types
        if file.dtypes[0] not in DTYPES and not (single and file.dtypes[0] in MASK_DTYPES):
            raise Unreadable(f"has pixels of type {file.dtypes[0]}; allowed are {', '.join(DTYPES)}")
        colours = file.colorinterp
        gsd_m = Grid.of(file).gsd_m(0.0)
        return Look(
            bands=file.count,
            dtype=file.dtypes[0],
            texts=tuple(text or "" for text in file.descriptions),
            wavelengths_um=tuple(_wavelength_um(file.tags(i, ns="IMAGERY")) for i in file.indexes),
            is_rgb=colours[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue),
            has_alpha=file.count > 1 and colours[-1] == ColorInterp.alpha,
            gsd_m=gsd_m or None,
            width=file.width,
            height=file.height,
        )


def peek(path: Path, band: int) -> NDArray[np.float64]:
    """Return the pixels of one window in the middle of a file, of the 1-based ``band``; none if it
    cannot be read."""
    try:
        with rasterio.Env(**GDAL_OPTIONS), open_raster(path) as file:
            check_claims(file, DTYPES, ReadLimits())
            width, height = min(PEEK_PX, file.width), min(PEEK_PX, file.height)
            window = Window((file.width - width) // 2, (file.height - height) // 2, width, height)
            values = np.asarray(file.read(band, window=window), np.float64)
            return values[np.isfinite(values)]
    except (Unreadable, RasterioError, OSError):
        return np.zeros(0)


def _files(folder: Path) -> tuple[list[str], list[Skipped], Counter[str]]:
    paths: list[str] = []
    odd: list[Skipped] = []
    other: Counter[str] = Counter()
    for parent, _, names in os.walk(folder):
        for name in names:
            suffix = PurePosixPath(name).suffix.lower()
            path = (Path(parent) / name).relative_to(folder).as_posix()
            if suffix in SUFFIXES and not path.isprintable():
                # A site file is text; besides, bytes that are no UTF-8 would not go into it.
                odd.append(Skipped(path, "has a name that cannot be written; rename it"))
            elif suffix in SUFFIXES:
                paths.append(path)
            elif suffix in NOT_READ:
                other[suffix] += 1
    return sorted(paths), odd, other


def _family(path: str) -> str:
    """Return what is common to files that differ in numbers and capitals alone, such as dates and
    tiles."""
    return re.sub(r"[A-Z]*\d+[A-Z]*", "#", path)


def _chosen(paths: Sequence[str]) -> list[str]:
    """Return the files to open: all, or of very many a share of each family, spread evenly."""
    if len(paths) <= MOST_OPENED:
        return list(paths)
    families: dict[str, list[str]] = {}
    for path in paths:
        families.setdefault(_family(path), []).append(path)
    share = max(1, MOST_OPENED // len(families))
    chosen = [
        names[i * len(names) // n] for names in families.values() for n in [min(share, len(names))] for i in range(n)
    ]
    return chosen[:MOST_OPENED]


def _all_looks(paths: Sequence[str], looks: dict[str, Look], unreadable: set[str]) -> list[tuple[str, Look]]:
    """Give files that were not opened the look of the first one of their family."""
    first: dict[str, Look] = {}
    for path, seen in looks.items():
        first.setdefault(_family(path), seen)
    known = ((path, looks.get(path) or first.get(_family(path))) for path in paths if path not in unreadable)
    return [(path, seen) for path, seen in known if seen is not None]


def _wavelength_um(tags: dict[str, str]) -> float | None:
    """Read GDAL's own tag of a band's central wavelength."""
    try:
        value = float(tags["CENTRAL_WAVELENGTH_UM"])
    except (KeyError, ValueError):
        return None
    return value if 0.2 < value < 20 else None
