"""Which numbers of a flat vector are coded in blocks, which travel in fp16, and how to walk over both in small pieces.

Blocks never span two tensors: the last block of each coded tensor is filled up with zeros, and all of it travels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsense_core.codecs.hadamard import BLOCK
from fedsense_core.tensors import TensorSpec, TensorTable

CHUNK_BLOCKS = 256
"""Blocks worked on at once: 1 MiB in float32 fits a core's cache, and bounds memory whatever the model's size."""
PIECE = CHUNK_BLOCKS * BLOCK
"""Elements worked on at once where there are no blocks."""


@dataclass(frozen=True)
class Segment:
    """The part of one tensor that lies in one chunk."""

    tensor: int
    """Its index in the table."""
    rows: slice
    """Its blocks within the chunk."""
    elements: slice
    """Its elements within the flat vector: up to 1023 fewer than its blocks hold."""

    def flat(self, rows_KB: Tensor) -> Tensor:
        """Return the segment's elements, without the filling, as a one-dimensional view of the chunk's rows."""
        first = self.rows.start * BLOCK
        return rows_KB.view(-1)[first : first + self.elements.stop - self.elements.start]


@dataclass(frozen=True)
class Chunk:
    """At most ``CHUNK_BLOCKS`` consecutive blocks."""

    blocks: slice
    """Which blocks of the whole vector."""
    segments: tuple[Segment, ...]

    def gather(self, vector: Tensor) -> Tensor:
        """Copy the chunk's elements of ``vector`` (N,) into new float32 rows (K, 1024), the filling zero."""
        rows_KB = torch.zeros(self.blocks.stop - self.blocks.start, BLOCK, dtype=torch.float32)
        for segment in self.segments:
            segment.flat(rows_KB).copy_(vector[segment.elements])
        return rows_KB

    def scatter(self, rows_KB: Tensor, vector: Tensor) -> None:
        """Copy rows (K, 1024) into their places in ``vector`` (N,), leaving the filling out."""
        for segment in self.segments:
            vector[segment.elements] = segment.flat(rows_KB)


@dataclass(frozen=True)
class CodedTensor:
    """One tensor that is cut into blocks."""

    tensor: int
    spec: TensorSpec
    blocks: slice

    def cut(self, low: int, high: int) -> Segment:
        """Return the segment of this tensor in the chunk of blocks ``low`` to ``high``."""
        start, stop = max(low, self.blocks.start), min(high, self.blocks.stop)
        first = self.spec.offset + (start - self.blocks.start) * BLOCK
        return Segment(
            self.tensor,
            slice(start - low, stop - low),
            slice(first, min(first + (stop - start) * BLOCK, self.spec.end)),
        )


@dataclass(frozen=True)
class BlockLayout:
    """A tensor table as a codec sees it."""

    coded: tuple[CodedTensor, ...]
    small: tuple[tuple[int, TensorSpec], ...]
    """(index in the table, spec) of the tensors that travel in fp16."""
    tensors: int
    blocks: int
    small_numel: int

    @classmethod
    def of(cls, table: TensorTable) -> BlockLayout:
        """Cut every tensor of ``table`` that is worth a code into blocks."""
        coded: list[CodedTensor] = []
        small: list[tuple[int, TensorSpec]] = []
        blocks = 0
        for index, spec in enumerate(table.specs):
            if spec.is_small:
                small.append((index, spec))
            else:
                coded.append(CodedTensor(index, spec, slice(blocks, blocks + -(-spec.numel // BLOCK))))
                blocks = coded[-1].blocks.stop
        return cls(tuple(coded), tuple(small), len(table), blocks, sum(spec.numel for _, spec in small))

    def chunks(self) -> Iterator[Chunk]:
        """Yield the blocks in order, ``CHUNK_BLOCKS`` at a time."""
        first = 0  # the first coded tensor that the chunk can touch: the walk stays linear in tensors plus chunks
        for low in range(0, self.blocks, CHUNK_BLOCKS):
            high = min(low + CHUNK_BLOCKS, self.blocks)
            segments = []
            for i in range(first, len(self.coded)):
                if self.coded[i].blocks.start >= high:
                    break
                segments.append(self.coded[i].cut(low, high))
                first = i if self.coded[i].blocks.stop > high else i + 1
            yield Chunk(slice(low, high), tuple(segments))

    def small_pieces(self) -> Iterator[tuple[int, slice]]:
        """Yield (index in the table, elements) of all small tensors in order, at most ``PIECE`` elements at a time."""
        for index, spec in self.small:
            for piece in pieces(spec.offset, spec.end):
                yield index, piece

    def tensor_of_block(self) -> Tensor:
        """Return the table index of each block's tensor, int64 (K,)."""
        index = torch.empty(self.blocks, dtype=torch.int64)
        for coded in self.coded:
            index[coded.blocks] = coded.tensor
        return index


def pieces(start: int, stop: int) -> Iterator[slice]:
    """Yield consecutive slices of at most ``PIECE`` elements that cover ``start`` to ``stop``."""
    for low in range(start, stop, PIECE):
        yield slice(low, min(low + PIECE, stop))
