"""Which numbers of a flat vector are coded in blocks, which travel in fp16, and how to walk over
both in small pieces.

Blocks never span two tensors: the last block of each coded tensor is filled up with zeros, and all
of it travels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from fedsense_core.codecs.hadamard import BLOCK, signs
from fedsense_core.tensors import TensorSpec, TensorTable

CHUNK_BLOCKS = 256
"""Blocks worked on at once: 1 MiB in float32 fits a core's cache, and bounds memory whatever the
model's size."""
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
        """Return the segment's elements, without the filling, as a one-dimensional view of the
        chunk's rows."""
        first = self.rows.start * BLOCK
        return rows_KB.view(-1)[first : first + self.elements.stop - self.elements.start]


@dataclass(frozen=True)
class Chunk:
    """At most ``CHUNK_BLOCKS`` consecutive blocks."""

    blocks: slice
    """Which blocks of the whole vector."""
    segments: tuple[Segment, ...]

    def within(self, run: Run) -> slice:
        """Return the chunk's blocks, counted from the first block of ``run``."""
        return slice(self.blocks.start - run.blocks.start, self.blocks.stop - run.blocks.start)

    def gather(self, vector: Tensor) -> Tensor:
        """Copy the chunk's elements of ``vector`` (N,) into new float32 rows (K, 1024), the filling
        zero."""
        blocks = self.blocks.stop - self.blocks.start
        rows_KB = torch.zeros(blocks, BLOCK, dtype=torch.float32, device=vector.device)
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
class Run:
    """Consecutive blocks that are coded with the same number of bits."""

    blocks: slice
    bits: int


@dataclass(frozen=True)
class Places:
    """Where each of K blocks lies, as arrays for a compiled loop."""

    starts_K: Tensor
    """First element in the flat vector, int64."""
    counts_K: Tensor
    """Elements of the vector in the block, at most 1024; the rest is filling. int64."""
    rows_K: Tensor
    """Row of ``signs_TB`` that belongs to the block, int64."""
    signs_TB: Tensor
    """Signs of D_s of each tensor that the blocks belong to, float32 (T, 1024)."""


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

    def runs(self, bits: int | Sequence[int]) -> tuple[Run, ...]:
        """Cut the blocks where the bits change: one number for all, or one for each tensor of the
        table.

        Raises ValueError where ``bits`` does not name as many tensors as the table has.
        """
        if isinstance(bits, int):
            return (Run(slice(0, self.blocks), bits),) if self.blocks else ()
        if len(bits) != self.tensors:
            raise ValueError(f"bits are given for {len(bits)} tensors, the table has {self.tensors}")
        found = []
        for width, group in groupby(self.coded, key=lambda coded: bits[coded.tensor]):
            members = list(group)
            found.append(Run(slice(members[0].blocks.start, members[-1].blocks.stop), width))
        return tuple(run for run in found if run.blocks.stop > run.blocks.start)

    def places(self, blocks: slice, seed: int) -> Places:
        """Return where the blocks of a slice lie, and the signs of their tensors under ``seed``."""
        starts: list[Tensor] = []
        counts: list[Tensor] = []
        rows: list[Tensor] = []
        drawn: list[Tensor] = []
        for coded in self.coded:
            low, high = max(blocks.start, coded.blocks.start), min(blocks.stop, coded.blocks.stop)
            if low >= high:
                continue
            first = torch.arange(low - coded.blocks.start, high - coded.blocks.start) * BLOCK
            starts.append(first + coded.spec.offset)
            counts.append((coded.spec.numel - first).clamp_(max=BLOCK))
            rows.append(torch.full((high - low,), len(drawn)))
            drawn.append(signs(seed, coded.tensor))
        return Places(torch.cat(starts), torch.cat(counts), torch.cat(rows), torch.stack(drawn))

    def fill(self, blocks: slice, vector: Tensor, value: float) -> None:
        """Set the elements of a slice of blocks in ``vector`` (N,) to one value."""
        for chunk in self.chunks(blocks):
            for segment in chunk.segments:
                vector[segment.elements] = value

    def chunks(self, blocks: slice | None = None, most: int = CHUNK_BLOCKS) -> Iterator[Chunk]:
        """Yield the blocks of a slice (None: all) in order, at most ``most`` at a time."""
        start, stop = (blocks.start, blocks.stop) if blocks else (0, self.blocks)
        first = 0  # the first coded tensor that the chunk can touch: the walk stays linear in tensors plus chunks
        for low in range(start, stop, most):
            high = min(low + most, stop)
            segments = []
            for i in range(first, len(self.coded)):
                if self.coded[i].blocks.start >= high:
                    break
                if self.coded[i].blocks.stop > low and self.coded[i].blocks.start < self.coded[i].blocks.stop:
                    segments.append(self.coded[i].cut(low, high))
                first = i if self.coded[i].blocks.stop > high else i + 1
            yield Chunk(slice(low, high), tuple(segments))

    def small_pieces(self) -> Iterator[tuple[int, slice]]:
        """Yield (index in the table, elements) of all small tensors in order, at most ``PIECE``
        elements at a time."""
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
