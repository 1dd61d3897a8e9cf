"""Which chips go into which batch, and what a batch is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsense_core.data.sites.sensors import Band


@dataclass(frozen=True)
class Batch:
    """Chips of one source, so that one list of bands says what the channels of all of them are."""

    pixels: Tensor
    """(B, C, S, S) float32, standardised."""
    bands: tuple[Band, ...]
    """What each of the C channels is."""

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``."""
        return Batch(self.pixels.to(device, non_blocking=True), self.bands)


def drop_band_subset(batch: Batch, probability: float, generator: torch.Generator) -> Batch:
    """Return the batch with a random subset of its bands, or as it is with ``1 - probability``.

    Every subset that is not empty is as likely as every other; the bands keep their order.
    ``generator`` must be a CPU generator. One subset serves the whole batch, so that its images
    stay comparable.
    """
    if len(batch.bands) < 2 or float(torch.rand((), generator=generator)) >= probability:
        return batch
    chosen = torch.zeros(len(batch.bands), dtype=torch.bool)
    while not chosen.any():
        chosen = torch.rand(len(batch.bands), generator=generator) < 0.5
    channels = chosen.nonzero().flatten()
    return Batch(batch.pixels[:, channels.to(batch.pixels.device)], tuple(batch.bands[i] for i in channels.tolist()))


def epoch_batches(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield index batches (batch_size,) int64 without end: each run of n indices holds every chip
    once.

    A batch that spans two epochs takes no chip twice unless n < batch_size. ``generator`` does not
    hold how far the epoch is: seed one per round to make rounds repeatable. Raises ValueError for n
    or batch_size below 1.
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"epoch_batches needs chips and a batch of at least one, not n={n}, batch_size={batch_size}")
    return _endless(n, batch_size, generator)


def _endless(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < batch_size:
            order = torch.randperm(n, generator=generator)
            # A twin in the same batch would be a false negative of contrastive recipes: left-overs
            # go last.
            seen = torch.isin(order, waiting)
            waiting = torch.cat([waiting, order[~seen], order[seen]])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]
