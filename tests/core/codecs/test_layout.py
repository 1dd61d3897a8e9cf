from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsense_core.codecs.layout import CHUNK_BLOCKS, BlockLayout
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
