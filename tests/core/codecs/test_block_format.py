from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsense_core.codecs.block_format import (
    CHUNK_BLOCKS,
    BlockLayout,
    halves,
    read_halves,
    read_tensor_scales,
    tensor_scales,
)
from fedsense_core.errors import FrameError
from fedsense_core.tensors import TensorTable

SHAPES = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 5000)),
        st.tuples(st.integers(0, 3), st.integers(0, 3000)),
        st.tuples(st.integers(1, 2), st.integers(CHUNK_BLOCKS * 1024 - 2, CHUNK_BLOCKS * 1024 + 2)),
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(shapes=SHAPES)
def test_chunks_and_small_pieces_cover_every_element_exactly_once(shapes: list[tuple[int, ...]]) -> None:
    table = TensorTable.from_shapes({str(i): shape for i, shape in enumerate(shapes)})
    layout = BlockLayout.of(table)
    source = torch.arange(1, table.numel + 1, dtype=torch.float32)
    copied, blocks = torch.zeros(table.numel), 0
    for chunk in layout.chunks():
        assert chunk.blocks.start == blocks
        assert 0 < chunk.blocks.stop - chunk.blocks.start <= CHUNK_BLOCKS
        blocks = chunk.blocks.stop
        rows = chunk.gather(source)
        assert rows.sum(dtype=torch.float64) == sum(source[s.elements].sum(dtype=torch.float64) for s in chunk.segments)
        copied_here = torch.zeros(table.numel)
        chunk.scatter(rows, copied_here)
        copied += copied_here
    for _, piece in layout.small_pieces():
        copied[piece] += source[piece]
    assert blocks == layout.blocks
    assert torch.equal(copied, source)


def test_blocks_do_not_span_tensors_and_small_tensors_have_none(table: TensorTable) -> None:
    layout = BlockLayout.of(table)
    assert [(c.tensor, c.blocks) for c in layout.coded] == [(0, slice(0, 2)), (2, slice(2, 5))]
    assert layout.tensor_of_block().tolist() == [0, 0, 2, 2, 2]
    assert [tensor for tensor, _ in layout.small] == [1, 3, 4]
    assert layout.small_numel == 40 + 2000


def test_the_filling_of_a_last_block_is_zero(table: TensorTable) -> None:
    (chunk,) = BlockLayout.of(table).chunks()
    rows = chunk.gather(torch.ones(table.numel))
    assert rows.sum(1).tolist() == [1024, 2000 - 1024, 1024, 1024, 1024]


def test_scales_keep_eleven_bits_down_to_a_billionth_of_the_largest() -> None:
    for top in (1e-9, 1.0, 1e3, 2.0**40):
        scales = torch.tensor(top) * 2.0 ** -torch.linspace(0, 29, 500)
        (tensor_scale,) = tensor_scales(scales[:1])
        numbers = halves(scales, tensor_scale)
        assert np.isfinite(numbers).all()
        decoded = torch.from_numpy(numbers.astype(np.float32)) * tensor_scale
        assert ((decoded - scales).abs() <= scales * 2.0**-11).all()


def test_a_tensor_of_next_to_nothing_has_scale_zero() -> None:
    assert tensor_scales(torch.tensor([0.0, 1e-16, 1e-45])).tolist() == [0, 0, 0]
    assert halves(torch.tensor([1e-16, 0.0]), torch.tensor(0.0)).tolist() == [0, 0]


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, -1.0, 1e38, 2.0**31 * 1.001, 1e-30, 1e-45])
def test_hostile_tensor_scales_are_refused(hostile: float) -> None:
    words = np.array([1.0, hostile], "<f4").view(np.uint8)
    with pytest.raises(FrameError, match="tensor scale"):
        read_tensor_scales(words)


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, -1.0, 65504.0])
def test_hostile_block_scales_are_refused(hostile: float) -> None:
    words = np.array([1.0, hostile], "<f2").view(np.uint8)
    with pytest.raises(FrameError, match="block scale"):
        read_halves(words, signed=False)


def test_small_values_may_be_negative_but_not_beyond_their_largest() -> None:
    assert read_halves(np.array([-32768, 32768, 0.5], "<f2").view(np.uint8), signed=True).tolist() == [
        -32768,
        32768,
        0.5,
    ]
    with pytest.raises(FrameError):
        read_halves(np.array([-65504], "<f2").view(np.uint8), signed=True)
