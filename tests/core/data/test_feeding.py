"""Batches come in the order that was drawn, the same with and without a second thread, each of one
kind."""

from __future__ import annotations

import contextlib
import threading
from itertools import islice

import numpy as np
import pytest
import torch
from stored_chips import chips_of_array

from fedsense_core.data.batches.feeding import Feed, batches_of, draws
from fedsense_core.data.chips.chips import Chips

CPU = torch.device("cpu")


def chips(n: int, bands: int = 3, seed: int = 0) -> Chips:
    values = np.random.default_rng(seed).integers(1, 999, (n, bands, 8, 8), dtype=np.uint16)
    return chips_of_array(values, [f"b{i}" for i in range(bands)], f"chips-{bands}")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_feed_gives_the_batches_that_were_drawn_bit_for_bit() -> None:
    many_chips = chips(20)
    plain = list(islice(batches_of(many_chips, 6, generator()), 7))
    with Feed(draws([[many_chips]], 6, generator()), CPU) as feed:
        fed = [next(feed) for _ in plain]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(plain, fed, strict=True))
    assert feed.waited_s > 0


def test_a_batch_is_of_one_kind_and_kinds_come_as_often_as_they_have_chips() -> None:
    many, few = chips(90, 2), chips(10, 5, seed=1)
    drawn = [one.name for one, _ in islice(draws([[many, few]], 4, generator()), 400)]
    assert 0.85 < drawn.count("chips-2") / 400 < 0.95


def test_institutions_take_turns_whatever_their_sizes() -> None:
    drawn = [one.name for one, _ in islice(draws([[chips(90, 2)], [chips(10, 5)]], 4, generator()), 6)]
    assert drawn == ["chips-2", "chips-5"] * 3


def test_closing_ends_the_thread_also_after_an_error() -> None:
    before = threading.active_count()
    with contextlib.suppress(RuntimeError), Feed(draws([[chips(9)]], 4, generator()), CPU) as feed:
        next(feed)
        raise RuntimeError
    assert threading.active_count() == before


def test_a_fault_of_the_second_thread_reaches_the_model() -> None:
    def broken():
        yield chips(4), torch.tensor([0, 1])
        yield chips(4), torch.tensor([99])

    with Feed(broken(), CPU) as feed:
        next(feed)
        with pytest.raises(IndexError):
            next(feed)
