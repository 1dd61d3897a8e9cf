"""What a task is made of: images with their truth, of a training and a test part, read when they
are needed.

Shapes: C bands, H x W pixels, n boxes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.data.sites.sensors import Band
from fedsense_core.data.standardise import standardise
from fedsense_core.errors import SiteError, nearest
from fedsense_core.tools.downstream.names import TaskName

Array = NDArray[Any]
Load = Callable[[], Array]
"""Reads an image (C, H, W) or a mask (H, W), anew at each call."""

IGNORED = 255
"""Class of pixels in a mask whose truth is not known: neither learned from nor scored."""
MOST_MEASURED = 1000
"""Training images, evenly spread, from which a large set's statistics are taken."""
IN_MEMORY_BYTES = 2 << 30
"""A set of images, with their masks, up to this size is read once and kept."""


@dataclass(frozen=True)
class Boxes:
    """Objects of one image."""

    xyxy_n4: Array
    """Left, top, right, bottom in pixels, float32."""
    classes_n: Array
    """Positions in the task's classes, int64."""
    difficult_n: Array
    """Bool: objects that are neither learned from nor scored."""


Value = TypeVar("Value")
Item = TypeVar("Item")
Target = TypeVar("Target", int, Array, Boxes)


@dataclass(frozen=True)
class Sample(Generic[Target]):
    """One image and its truth."""

    name: str
    """What tables and pictures call it."""
    group: str
    """Samples of one group are neighbours, which are alike; intervals draw whole groups."""
    image: Load
    """(C, H, W) uint8, uint16, int16 or float32."""
    target: Callable[[], Target]
    """Position of its class; or a mask (H, W) int64, `IGNORED` where the truth is not known; or
    boxes."""
    after: Load | None = None
    """Of change detection: the second image (C, H, W); ``target`` is then 1 where something
    changed."""


@dataclass(frozen=True)
class TaskData(Generic[Target]):
    """A task with its images."""

    task: TaskName
    name: str
    """Of the data set."""
    classes: tuple[str, ...]
    spectrum: tuple[Band, ...]
    """What each channel of the images is."""
    train: tuple[Sample[Target], ...]
    test: tuple[Sample[Target], ...]
    mean: Tensor
    """(C,) float32 of the training images; see `measured`."""
    std: Tensor
    """(C,) float32."""
    note: str = ""
    """What every table must say, such as "PROXY labels: made by an algorithm" or how the split was
    made."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names, in channel order."""
        return tuple(band.name for band in self.spectrum)

    @property
    def digest(self) -> str:
        """Hex name of the images, as far as names, groups, classes, bands and statistics tell them
        apart."""
        parts = [[(sample.name, sample.group) for sample in part] for part in (self.train, self.test)]
        text = json.dumps([parts, self.classes, self.bands, self.mean.tolist(), self.std.tolist()])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def standardise(self, image: Array) -> Tensor:
        """Return an image (C, H, W) as float32, standardised by the training part and clamped to ±6
        deviations."""
        x_CHW = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        return standardise(x_CHW, self.mean, self.std)

    def only(self, bands: Sequence[str]) -> TaskData[Target]:
        """Return the task with just these bands, in this order. Raises SiteError for a band that it
        does not have."""
        bands = tuple(bands)
        if bands == self.bands:
            return self
        for band in bands:
            if band not in self.bands:
                raise SiteError(
                    f"the images of {self.name} have no band {band!r}, but {', '.join(self.bands)}."
                    f"{nearest(band, list(self.bands))} Evaluate an encoder that reads their bands, or name the bands "
                    "of the files with --sensor."
                )
        positions = [self.bands.index(band) for band in bands]
        return replace(
            self,
            spectrum=tuple(self.spectrum[i] for i in positions),
            train=tuple(_only(sample, positions) for sample in self.train),
            test=tuple(_only(sample, positions) for sample in self.test),
            mean=self.mean[positions],
            std=self.std[positions],
        )

    def in_memory(self, most_bytes: int = IN_MEMORY_BYTES) -> TaskData[Target]:
        """Return the task with images and masks that are read once and kept, if all (judged by the
        first) fit."""
        samples = [*self.train, *self.test]
        if not samples or _bytes(samples[0]) * len(samples) > most_bytes:
            return self
        return replace(self, train=tuple(map(_cached, self.train)), test=tuple(map(_cached, self.test)))


def measured(images: Sequence[Load]) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (C,) float32 of each band over all pixels; a flat band gets the
    deviation 1.

    Of more than 1000 images, 1000 evenly spread ones are read. Pass the training part's alone.
    """
    count, total, squares = 0, np.zeros(0), np.zeros(0)
    for load in spread_over(images, MOST_MEASURED):
        image = load()
        x_CP = image.reshape(len(image), -1).astype(np.float64)
        count += x_CP.shape[1]
        total = x_CP.sum(1) + (total if total.size else 0.0)
        squares = np.square(x_CP).sum(1) + (squares if squares.size else 0.0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    deviation[deviation < 1e-6] = 1.0
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(deviation.astype(np.float32))


def spread_over(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many of the items, evenly spread."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(len(items), most)).astype(int))]


def constant(value: Value) -> Callable[[], Value]:
    """Return a reader of what is in memory already."""
    return lambda: value


def _only(sample: Sample[Target], positions: Sequence[int]) -> Sample[Target]:
    image, after = sample.image, sample.after
    chosen: Load | None = None if after is None else (lambda: after()[list(positions)])
    return replace(sample, image=lambda: image()[list(positions)], after=chosen)


def _bytes(sample: Sample[Target]) -> int:
    truth = sample.target()
    images = sample.image().nbytes * (1 if sample.after is None else 2)
    return images + (truth.nbytes if isinstance(truth, np.ndarray) else 0)  # a mask of int64 outweighs its image


def _cached(sample: Sample[Target]) -> Sample[Target]:
    return replace(
        sample,
        image=cache(sample.image),
        target=cache(sample.target),
        after=None if sample.after is None else cache(sample.after),
    )
