"""What a source's imagery consists of, each with the key by which a cache knows it again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedsense_core.data.chips.chipping import Subject
from fedsense_core.data.raster.rasters import Unreadable, as_stored, both, measured
from fedsense_core.data.raster.scenes import Block, Request, files_needed, read_scene
from fedsense_core.data.raster.units import Units
from fedsense_core.data.sites.schema import Images, Scene, Source

READING_FORMAT = 2
"""Part of every key: raise it when the same files give other chips."""


@dataclass(frozen=True)
class SceneSubject:
    """A scene of a source."""

    scene: Scene
    source: Source
    request: Request

    @property
    def name(self) -> str:
        """Path of the file after which the scene is named."""
        return str(self.scene.path)

    @property
    def key(self) -> str:
        """Digest of the state of its files and of everything that decides what chips they give."""
        source, files = self.source, files_needed(self.scene, self.source, self.request.bands)
        return digest(
            _asked(source, self.request),
            [[str(layer.path), layer.bands] for layer in self.scene.layers],
            [state(path) for path in files],
            [(source.digests or {}).get(path, "unlisted") for path in files] if source.digests is not None else None,
            asdict(source.mask) if source.mask and self.scene.mask else None,
            source.gsd_range_m,
            source.baseline_offset,
        )

    def blocks(self) -> Iterator[Block]:
        """Yield its chips."""
        return read_scene(self.scene, self.source, self.request)


@dataclass(frozen=True)
class ImageSubject:
    """An image of a dataset."""

    images: Images
    number: int
    source: Source
    request: Request

    @property
    def name(self) -> str:
        """The dataset's own name of it."""
        return self.images.name(self.number)

    @property
    def key(self) -> str:
        """Digest of the dataset's own key and of everything that decides what chips it gives."""
        return digest(_asked(self.source, self.request), self.images.key(self.number))

    def blocks(self) -> Iterator[Block]:
        """Yield the image's chips as one block."""
        card, size = self.source.card, self.request.size
        values, valid = self.images.read(self.number)
        height, width = values.shape[1:]
        if min(height, width) < size:
            raise Unreadable(f"is {width} x {height} pixels, smaller than one chip of {size}")
        needed = height * width * len(self.request.bands) * (values.dtype.itemsize + 1)
        if needed > self.request.limits.max_window_bytes:
            raise Unreadable(f"has {width} x {height} pixels, more than {self.request.limits.max_window_bytes} bytes")
        chosen = np.ascontiguousarray(values[list(card.positions(self.request.bands, self.source.sensor))])
        missing = as_stored(card.nodata, str(values.dtype))
        nodata = [() if missing is None else (missing,)] * len(chosen)
        ones = (1.0,) * len(chosen)
        units = Units(ones, (0.0,) * len(chosen), False, card)
        yield Block(*units.convert(chosen, both(valid, measured(chosen, nodata))), 0, 0)


def subjects_of(source: Source, request: Request, images: Images | None) -> list[Subject]:
    """Return a source's scenes, or the images of its dataset."""
    if images is not None:
        return [ImageSubject(images, number, source, request) for number in range(len(images))]
    return [SceneSubject(scene, source, request) for scene in source.scenes]


def digest(*parts: Any) -> str:
    """Return a short digest of plain values."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def state(path: Path) -> list[Any]:
    """Return size, time of change and readability of a file; one that has vanished is found missing
    by its reader."""
    try:
        stat = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), stat.st_size, stat.st_mtime_ns, os.access(path, os.R_OK)]


def _asked(source: Source, request: Request) -> list[Any]:
    # How many chips a site may have does not change those of a scene.
    limits = request.limits.model_dump(exclude={"max_chips"})
    return [READING_FORMAT, source.card.model_dump(), request.bands, request.size, request.stride, limits]
