"""Images of any size as square tiles, at random for training, all of them once for scoring.

Shapes: C bands, H x W pixels, S side of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fedsense_core.errors import SiteError
from fedsense_core.tools.downstream.samples import Sample, Target, TaskData

Item = TypeVar("Item")


@dataclass(frozen=True)
class Window:
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class FoldedData(TaskData[Target]):
    """A task whose data may have no test part: every sample is then scored by heads that were
    trained without it."""

    folds: int = 1
    """Above 1, ``train`` and ``test`` are the same samples, in an order in which neighbours follow
    each other; so many stretches of them are scored in turn."""


def splits(data: TaskData[Target]) -> list[tuple[tuple[Sample[Target], ...], tuple[Sample[Target], ...]]]:
    """Return the training and the test samples of each training: one, or one for each fold of
    consecutive samples.

    Raises SiteError where a part is empty.
    """
    if not isinstance(data, FoldedData) or data.folds == 1:
        if not data.train or not data.test:
            raise SiteError(f"{data.name} has {len(data.train)} training and {len(data.test)} test images; needs both.")
        return [(data.train, data.test)]
    if data.folds > len(data.train):
        raise SiteError(f"{data.name} has {len(data.train)} images, too few for {data.folds} folds; give it more.")
    parts = [list(part) for part in np.array_split(np.arange(len(data.train)), data.folds)]
    return [
        (tuple(data.train[i] for part in parts if part is not held_out for i in part), _picked(data.test, held_out))
        for held_out in parts
    ]


def windows(height: int, width: int, side: int) -> list[Window]:
    """Return windows of at most ``side`` pixels and of about one size that show each pixel once,
    row by row."""
    down, across = _stretches(height, side), _stretches(width, side)
    return [Window(top, left, bottom - top, right - left) for top, bottom in down for left, right in across]


def filled_up(x: Tensor, side: int, value: float = 0.0) -> Tensor:
    """Return ``x`` (..., H, W) as (..., side, side), with ``value`` below and to the right of it.

    Standardised images have 0 on average.
    """
    return F.pad(x, (0, side - x.shape[-1], 0, side - x.shape[-2]), value=value)


def random_window(height: int, width: int, side: int, generator: torch.Generator) -> Window:
    """Return a window of ``side`` pixels anywhere, or as much as the image has."""
    tall, wide = min(side, height), min(side, width)
    return Window(_below(height - tall + 1, generator), _below(width - wide + 1, generator), tall, wide)


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield the items in groups of ``size``; the last may be smaller."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def drawn(count: int, batch: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Yield batches of positions below ``count`` for ever, all of them before any comes again."""
    waiting: list[int] = []
    while True:
        while len(waiting) < batch:
            waiting += torch.randperm(count, generator=generator).tolist()
        yield waiting[:batch]
        del waiting[:batch]


def _picked(samples: Sequence[Item], positions: Sequence[int]) -> tuple[Item, ...]:
    return tuple(samples[i] for i in positions)


def _stretches(length: int, side: int) -> list[tuple[int, int]]:
    count = ceil(length / side)
    return [(length * i // count, length * (i + 1) // count) for i in range(count)]


def _below(end: int, generator: torch.Generator) -> int:
    return int(torch.randint(end, (1,), generator=generator))
