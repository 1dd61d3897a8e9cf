"""Which rasters lie in a folder, and what each says that it holds. Of pixels only some rows of
pictures with transparency are read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from fedsense_core.data.raster.files import check_claims, check_pages, open_raster
from fedsense_core.data.raster.formats import (
    DRIVERS,
    DTYPES,
    FAULTS,
    GDAL_OPTIONS,
    MASK_DTYPES,
    NOT_READ,
    Unreadable,
    one_line,
)
from fedsense_core.data.raster.grids import Grid
from fedsense_core.data.raster.other_bands import no_measurements
from fedsense_core.data.raster.vrt import sources_of
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.products import is_product
from fedsense_core.data.sites.schema import Skipped
from fedsense_core.data.sites.walking import folders_below, listed
from fedsense_core.errors import SiteError
from fedsense_core.tools.onboarding.label_rasters import MOST_COLUMNS, MOST_ROWS, needs_sample, no_imagery

SUFFIXES = (".tif", ".tiff", *DRIVERS)
MOST_OPENED = 4000
"""Headers that are read. Of more files, each name family gives a share, and the others are taken to
be alike."""
PEEK_PX = 256
"""Side of the one window that `peek` reads."""
ALPHA_ROWS = 64
"""Rows of a picture that are looked at for what is half transparent."""
METADATA_BYTES = 1 << 16
"""Of a file of metadata, at most so much is looked at."""

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
    no_measurement: str = ""
    """Why reading refuses the numbers, such as entries of a colour table; empty for imagery."""
    repeats: bool = False
    """A mosaic (VRT) of files that were found themselves."""
    no_imagery: str = ""
    """Why a file that could be read is none, such as classes painted as colours; empty for
    imagery."""


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
    products: tuple[str, ...]
    """SAFE folders, and archives of them; paths from the folder."""
    not_read: Counter[str]
    """Files of each other raster format."""
    opened: int
    """Headers that were read."""


def survey(folder: Path, progress: FilesProgress = lambda done, total: None) -> Survey:
    """Look at every raster below ``folder``. Raises SiteError where there is no folder or no
    raster."""
    if not folder.is_dir():
        raise SiteError(f"{folder}: is no folder. Give the folder in which your imagery lies.")
    if _is_whole_product(folder):
        raise SiteError(f"{folder}: is a product; give the folder that it lies in.")
    paths, products, unreadable, not_read = _files(folder)
    if not (paths or products):
        other = ", ".join(f"{count} {suffix}" for suffix, count in not_read.most_common(4))
        hint = f" It holds {other}: convert them to GeoTIFF, for example with `gdal_translate`." if other else ""
        raise SiteError(f"{folder}: holds no raster that is read ({', '.join(SUFFIXES)}).{hint}")
    chosen = _chosen(paths)
    real = {(folder / path).resolve() for path in paths} if any(path.endswith(".vrt") for path in paths) else set()
    looks: dict[str, Look] = {}
    with rasterio.Env(**GDAL_OPTIONS):
        for done, path in enumerate(chosen):
            progress(done, len(chosen))
            try:
                looks[path] = _marked(folder / path, look(folder / path, path), real)
            except Unreadable as reason:
                unreadable.append(Skipped(path, str(reason)))
    progress(len(chosen), len(chosen))
    images = tuple(Image(path, seen) for path, seen in _all_looks(paths, looks, {item.path for item in unreadable}))
    return Survey(folder, images, tuple(unreadable), tuple(products), not_read, len(chosen))


def look(path: Path, name: str = "") -> Look:
    """Read a file's header, and of few files some pixels; ``name`` is its path from the surveyed
    folder.

    Raises Unreadable for what training would skip anyway.
    """
    with open_raster(path) as file:
        check_pages(path, file, ReadLimits())
        single = file.count == 1  # only a mask may have the wider types
        if file.dtypes[0] not in DTYPES and not (single and file.dtypes[0] in MASK_DTYPES):
            raise Unreadable(f"has pixels of type {file.dtypes[0]}; allowed are {', '.join(DTYPES)}")
        colours = file.colorinterp
        has_alpha = file.count > 1 and colours[-1] == ColorInterp.alpha
        # A PNG's last band is what it says; in a GeoTIFF, "alpha" may be near infrared.
        is_transparent = has_alpha and file.driver == "PNG"
        gsd_m = Grid.of(file).gsd_m(0.0)
        return Look(
            bands=file.count - is_transparent,
            dtype=file.dtypes[0],
            texts=tuple(text or "" for text in file.descriptions[: file.count - is_transparent]),
            wavelengths_um=tuple(
                _wavelength_um(file.tags(i, ns="IMAGERY")) for i in file.indexes[: file.count - is_transparent]
            ),
            is_rgb=colours[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue),
            has_alpha=has_alpha and not is_transparent,
            gsd_m=gsd_m or None,
            width=file.width,
            height=file.height,
            no_measurement=no_measurements(file),
            no_imagery=_no_imagery(name, file, is_transparent),
        )


def _marked(path: Path, seen: Look, real: set[Path]) -> Look:
    """Mark a VRT that leads to some of the files in ``real``."""
    return replace(seen, repeats=path.suffix == ".vrt" and not real.isdisjoint(sources_of(path)))


def _no_imagery(name: str, file: Any, is_transparent: bool) -> str:
    """Say why an open file is no imagery although it could be read, or return an empty text."""
    if is_transparent:
        rows = Window(0, 0, min(file.width, 4 * PEEK_PX), min(file.height, ALPHA_ROWS))
        try:
            check_claims(file, DTYPES, ReadLimits())
            alpha = file.read(file.count, window=rows)
        except (*FAULTS, OSError) as error:
            raise Unreadable(f"cannot be decoded ({one_line(error)})") from error
        if not np.isin(alpha, (0, np.iinfo(alpha.dtype).max)).all():
            return "is half transparent"
    return no_imagery(name, file, _sample(file) if needs_sample(name, file) else None)


def _sample(file: Any) -> NDArray[Any] | None:
    """Return some pixels (C, h, w) from the middle of an open file, or None where they cannot be
    read."""
    rows, columns = min(MOST_ROWS, file.height), min(MOST_COLUMNS, file.width)
    window = Window((file.width - columns) // 2, (file.height - rows) // 2, columns, rows)
    try:
        check_claims(file, DTYPES, ReadLimits())
        return np.asarray(file.read(window=window))
    except (Unreadable, *FAULTS, OSError):
        return None


def satellite_of(path: Path) -> str:
    """Return the satellite that Maxar's metadata beside a file name, such as ``WV02``, or an empty
    text. Tiles of one product share them."""
    whole = path.with_name(re.sub(r"_R\d+C\d+(?=-)", "", path.name))
    for beside in (one.with_suffix(suffix) for one in (path, whole) for suffix in (".IMD", ".imd")):
        try:
            text = beside.read_bytes()[:METADATA_BYTES].decode("ascii", "replace")
        except OSError:
            continue
        if found := re.search(r'satId\s*=\s*"(\w+)"', text):
            return found[1]
    return ""


def peek(path: Path, band: int) -> NDArray[np.float64]:
    """Return the measurements of one window in the middle of a file, of the 1-based ``band``; none
    if it cannot be read."""
    try:
        with rasterio.Env(**GDAL_OPTIONS), open_raster(path) as file:
            check_claims(file, DTYPES, ReadLimits())
            width, height = min(PEEK_PX, file.width), min(PEEK_PX, file.height)
            window = Window((file.width - width) // 2, (file.height - height) // 2, width, height)
            values = np.asarray(file.read(band, window=window), np.float64)
            # A fill of -32768 would make powers look like decibels.
            seen = np.asarray(file.read_masks(band, window=window) != 0)
            return np.asarray(values[np.isfinite(values) & seen])
    except (Unreadable, *FAULTS, OSError):
        return np.zeros(0)


def _files(folder: Path) -> tuple[list[str], list[str], list[Skipped], Counter[str]]:
    """Return the paths of rasters and of products, what cannot be used, and how many files of other
    formats there are. Links to folders are followed; hidden files are none."""
    paths: list[str] = []
    products: list[str] = []
    inside: set[Path] = set()
    odd: list[Skipped] = []
    other: Counter[str] = Counter()
    for parent in folders_below(folder):
        place = parent.relative_to(folder)
        if any(up in inside for up in place.parents) or place in inside:
            continue
        for found in listed(parent):
            name, suffix = found.name, found.suffix.lower()
            path = (place / name).as_posix()
            if name.startswith("."):
                continue  # such as what macOS writes beside each file, with the same suffix
            if _is_whole_product(found) and path.isprintable():
                products.append(path)
                inside.add(place / name)
            elif suffix not in NOT_READ and (suffix not in SUFFIXES or found.is_dir()):
                continue
            elif suffix in SUFFIXES and not path.isprintable():
                # A site file is text; besides, bytes that are no UTF-8 would not go into it.
                odd.append(Skipped(path, "has a name that cannot be written; rename it"))
            elif suffix in SUFFIXES:
                paths.append(path)
            elif suffix in NOT_READ:
                other[suffix] += 1
    return sorted(paths), sorted(products), odd, other


def _is_whole_product(path: Path) -> bool:
    """Tell whether a SAFE folder has the folders of a product; else its files count alone."""
    if not path.is_dir():
        return is_product(path)
    return is_product(path) and any((path / inner).is_dir() for inner in ("GRANULE", "measurement"))


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
