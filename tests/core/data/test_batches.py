from __future__ import annotations

from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsense_core.data.batches.batch import epoch_batches


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(n=st.integers(1, 40), size=st.integers(1, 50), seed=st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_every_epoch_holds_each_index_once_and_every_batch_is_full(n: int, size: int, seed: int) -> None:
    batches = list(islice(epoch_batches(n, size, seeded(seed)), 12))
    assert all(batch.shape == (size,) and batch.dtype == torch.int64 for batch in batches)
    stream = torch.cat(batches)
    for first in range(0, len(stream) - n + 1, n):
        assert sorted(stream[first : first + n].tolist()) == list(range(n))
    if n >= size:
        assert all(len(set(batch.tolist())) == size for batch in batches), "no chip meets itself"


def test_the_seed_decides_the_order() -> None:
    def first(seed: int) -> list[int]:
        return next(epoch_batches(100, 64, seeded(seed))).tolist()

    assert first(1) == first(1) != first(2)


@pytest.mark.parametrize(("n", "size"), [(0, 4), (4, 0)])
def test_no_chips_or_no_places_are_refused_at_once(n: int, size: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        epoch_batches(n, size, seeded())
