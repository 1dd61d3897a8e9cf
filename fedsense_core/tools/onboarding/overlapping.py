"""Marks of sets that a site's imagery is compared with before a run: other site files, labelled
sets, and folders of downstream tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from fedsense_core.config import DataSection
from fedsense_core.data.chips.labelled import load_labelled
from fedsense_core.data.opening import load_site, open_sources
from fedsense_core.data.overlap import Footprint, Marks, hashes_of, marks, marks_of
from fedsense_core.errors import SiteError
from fedsense_core.tools.downstream.reading import IMAGE_SUFFIXES, Described, ImageFiles, about_folder

TESTED = ("test", "val", "valid", "validation")
"""Folders of what is scored, in the layouts of downstream tasks."""


def marks_of_path(path: Path, data: DataSection) -> Marks:
    """Return the marks of a site file's imagery, or of a labelled folder's test part.

    A folder without parts counts as a whole. Raises SiteError where there is nothing to compare.
    """
    if path.is_file():
        return marks_of(open_sources(load_site(path), data.bands, data.chip_size, None))
    if (path / "labelled.toml").is_file():
        return marks([], [hashes_of(load_labelled(path, data.bands).test.values.numpy())])
    images = _tested(path)
    if not images:
        raise SiteError(f"{path}: is no site file, and no folder of images ({', '.join(IMAGE_SUFFIXES)})")
    files = about_folder(path, Described()).described.images(images[0])
    hashes = [hash_n8 for image in images for hash_n8 in _hashes(image, files, data)]
    footprints = [place.row() for image in images if (place := Footprint.of(image))]
    return marks(footprints, hashes)


def _tested(folder: Path) -> list[Path]:
    """Return the images of the part that is scored, or all where there are no parts."""
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    tested = [path for path in images if any(part.lower() in TESTED for part in path.relative_to(folder).parts)]
    return tested or images


def _hashes(path: Path, files: ImageFiles, data: DataSection) -> Iterator[NDArray[np.uint8]]:
    """Yield the hashes of an image's chips, row by row; nothing for masks and other files."""
    size = data.chip_size
    wanted = _positions(files, data.bands)
    try:
        extent = files.extent(path)
        for top in range(0, extent.height - size + 1, size):
            row = files.read(path, Window(0, top, extent.width, size))[wanted]
            across = extent.width // size
            yield hashes_of(row[:, :, : across * size].reshape(len(row), size, across, size).transpose(2, 0, 1, 3))
    except SiteError:
        return


def _positions(files: ImageFiles, bands: Sequence[str]) -> list[int]:
    found = [files.card.position(name) for name in (files.card.names if bands == "all" else bands)]
    known = [position for position in found if position is not None]
    return known if len(known) == len(found) else list(range(len(files.card.names)))
