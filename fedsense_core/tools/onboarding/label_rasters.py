"""Which rasters hold classes or heights instead of measurements: masks of a labelled set, surfaces
beside orthophotographs.

Names alone are not enough: `masks` may be a place, and `images_masked` holds pictures. So classes
painted as colours are looked at, too: neighbouring pixels of theirs are nearly always equal, and
those of a photograph hardly ever.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = "holds classes, not measurements"
HEIGHTS = "holds heights, not light"
FLAT = 0.8
"""Share of pixels of a label raster that are as the one to their right, at least. Photographs of 8
bits have well below a half, as all three bands have to agree."""
MOST_ROWS, MOST_COLUMNS = 64, 1024
"""Pixels that are looked at, from the middle row on: those of few blocks."""

_CLASS_WORDS = {"mask", "masks", "label", "labels", "gt", "groundtruth", "target", "targets", "annotation"}
_CLASS_WORDS |= {"annotations", "seg", "segmentation", "segmentations", "instance", "instances", "cm"}
_OF_SETS = re.compile(
    r"_reference_map[.]|_(?:LabelHand|JRCWaterHand|S1OtsuLabel(?:Hand|Weak)|S2IndexLabelWeak)[.]"
    r"|(?:^|/)ROIs\d{4}_[^/]*_(?:lc|dfc)_\d+_p\d+[.]"
)
"""Labels of BigEarthNet, Sen1Floods11, SEN12MS and DFC2020, whose names hold no such word."""
_HEIGHT_WORDS = {"dem", "dsm", "dtm", "ndsm", "chm", "slope", "aspect", "hillshade"}


def no_imagery(path: str, file: Any, sample: NDArray[Any] | None) -> str:
    """Say why an open file is no imagery, by its ``path`` from the surveyed folder and a ``sample``
    (C, h, w) of its pixels; an empty text for imagery, and for what cannot be told.

    Source of the words: the layouts of public sets, see tests/zoo.
    """
    words = _words(path)
    if file.count == 1 and words & _HEIGHT_WORDS:
        return HEIGHTS
    if _OF_SETS.search(path) and np.dtype(file.dtypes[0]).kind in "iu":
        return CLASSES
    if not words & _CLASS_WORDS:
        return ""
    if file.count == 1 and np.dtype(file.dtypes[0]).kind in "iu":
        return CLASSES
    return CLASSES if sample is not None and is_flat(sample) else ""


def is_named_so(stem: str) -> bool:
    """Tell whether a file's own name, not those of its folders, calls it classes or heights: a band
    of a product in a folder of that name is a band."""
    return bool(_words(stem) & (_CLASS_WORDS | _HEIGHT_WORDS))


def needs_sample(path: str, file: Any) -> bool:
    """Tell whether `no_imagery` needs pixels: of files of three or four bytes that names call
    labels."""
    return file.count in (3, 4) and file.dtypes[0] == "uint8" and bool(_words(path) & _CLASS_WORDS)


def is_flat(sample: NDArray[Any]) -> bool:
    """Tell whether pixels (C, h, w) are areas of equal colour, as painted classes are."""
    if sample.shape[-1] < 2:
        return False
    same = (sample[..., 1:] == sample[..., :-1]).all(axis=0)
    return float(same.mean()) >= FLAT


def _words(path: str) -> set[str]:
    """Return the words of a path's folders and of its file's name: `5_Labels_all` holds ``labels``,
    and `60cm` is one word."""
    parts = PurePosixPath(path)
    words = [word for part in (*parts.parts[:-1], parts.stem) for word in re.split(r"[^a-z0-9]+", part.lower())]
    return {word.rstrip("0123456789") for word in words}
