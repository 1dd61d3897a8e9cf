"""Batches that are ready when the model asks: gathered in a second thread, standardised where the
model computes."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from types import TracebackType

import torch
from torch import Tensor

from fedsense_core.data.batches.batch import Batch, epoch_batches
from fedsense_core.data.batches.prefetch import prefetch
from fedsense_core.data.chips.chips import Chips

PREFETCHED_BATCHES = 2
"""Batches that are gathered before they are asked for: one would wait whenever one took long."""

Draw = tuple[Chips, Tensor]
"""Chips of one kind and the positions (B,) of those that make the next batch."""


def draws(sets: Sequence[Sequence[Chips]], batch_size: int, generator: torch.Generator) -> Iterator[Draw]:
    """Yield without end what goes into each batch: one institution after the other, one kind of
    chips at a time.

    ``sets`` holds for each institution its kinds of chips; an institution's kinds are drawn in
    proportion to their numbers. Raises ValueError for a kind without chips.
    """
    orders = [[epoch_batches(len(chips), batch_size, generator) for chips in kinds] for kinds in sets]
    return _in_turn(sets, orders, generator)


def _in_turn(
    sets: Sequence[Sequence[Chips]], orders: list[list[Iterator[Tensor]]], generator: torch.Generator
) -> Iterator[Draw]:
    sizes = [torch.tensor([float(len(chips)) for chips in kinds]) for kinds in sets]
    while True:
        for kinds, kind_orders, size in zip(sets, orders, sizes, strict=True):
            one = int(torch.multinomial(size, 1, generator=generator)) if len(kinds) > 1 else 0
            yield kinds[one], next(kind_orders[one])


def batches_of(chips: Chips, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
    """Yield batches of one kind of chips without end, gathered when asked for."""
    for one, index in draws([[chips]], batch_size, generator):
        yield Batch(one.batch(index), one.spectrum)


class Feed(Iterator[Batch]):
    """The batches of ``draws``, in their order. Close it, or use it in a ``with``, so that its
    thread ends."""

    def __init__(self, draws: Iterator[Draw], device: torch.device) -> None:
        self.waited_s = 0.0
        """Seconds for which the model waited for its batches: gathering, copying to the device,
        standardising."""
        self._device = device
        self._gathered = prefetch(_gathered(draws, device), PREFETCHED_BATCHES)

    def __next__(self) -> Batch:
        """Return the next batch on the device."""
        began = time.perf_counter()
        chips, index, raw = next(self._gathered)
        pixels = chips.standardise(raw.to(self._device, non_blocking=True), index)
        self.waited_s += time.perf_counter() - began
        return Batch(pixels, chips.spectrum)

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread."""
        self._gathered.close()


def _gathered(draws: Iterator[Draw], device: torch.device) -> Generator[tuple[Chips, Tensor, Tensor]]:
    """Yield for each draw the chips as stored, where they are copied to the device from."""
    for chips, index in draws:
        raw = chips.read(index)
        yield chips, index, raw.pin_memory() if device.type == "cuda" else raw
