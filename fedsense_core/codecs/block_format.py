"""The payload of a codec that works block by block, and the walk over a vector that fills and reads
it.

A block is 1024 numbers of one tensor. The last block of a tensor is filled up with zeros, and all
of it travels. Tensors that are too small for blocks travel in fp16.

Payload, little-endian, for L tensors, K blocks and M elements of small tensors:

    bits of each tensor    L uint8      with water-filling alone
    codes                  block after block, each eight codes of b bits as b bytes, the first in
                           the highest bits; then zeros where water-filling left bits over
    tensor scales t        L float32
    block scales S / t     K fp16
    small values / t       M fp16

Codec and table alone give its length: it never depends on what is in it. What turns blocks into
codes and one scale each is the codec's own file; ``eden.py`` is the example.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.codecs.codec import PIECE, Bytes, Codec, checked_output, checked_payload, checked_vector, pieces
from fedsense_core.codecs.packing import PLANE_BYTES
from fedsense_core.codecs.rotation import BLOCK, signs
from fedsense_core.codecs.water_filling import allocate, check_bits, energies
from fedsense_core.errors import FrameError
from fedsense_core.tensors import TensorSpec, TensorTable

CHUNK_BLOCKS = PIECE // BLOCK
"""Blocks worked on at once."""
HALF_TOP = 2.0**15
"""The fp16 number that stands for a tensor's largest scale."""
LARGEST_INPUT = 2.0**40
"""Largest magnitude that is accepted: beyond it training has long diverged."""
SMALLEST_TOP = 2.0**-50
"""A tensor whose largest scale is below this (9e-16) travels as zero; error feedback keeps what it
lost."""
LARGEST_TENSOR_SCALE = LARGEST_INPUT * 2.0**6 / HALF_TOP
"""The unbiased scale of a block exceeds its largest magnitude by at most 40."""


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
    """Consecutive blocks that are worked on at once."""

    blocks: slice
    """Which blocks of the whole vector."""
    segments: tuple[Segment, ...]

    def gather(self, vector: Tensor) -> Tensor:
        """Copy the chunk's elements of ``vector`` (N,) into new float32 rows (K, 1024), the filling
        zero."""
        blocks = self.blocks.stop - self.blocks.start
        rows_KB = torch.zeros(blocks, BLOCK, dtype=torch.float32, device=vector.device)
        for segment in self.segments:
            segment.flat(rows_KB).copy_(vector[segment.elements])
        return rows_KB

    def scatter(self, rows_KB: Tensor, vector: Tensor) -> None:
        """Copy rows (K, 1024) to where the chunk lies in ``vector`` (N,), leaving the filling
        out."""
        for segment in self.segments:
            vector[segment.elements] = segment.flat(rows_KB)

    def signs(self, seed: int, device: torch.device) -> Tensor:
        """Return the diagonal of D_s for each block (K, 1024): blocks of one tensor share it."""
        drawn = ((segment, signs(seed, segment.tensor)) for segment in self.segments)
        return torch.cat([row.expand(one.rows.stop - one.rows.start, BLOCK) for one, row in drawn]).to(device)


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

    def stretches(self, bits: int | Sequence[int]) -> Iterator[tuple[slice, int]]:
        """Yield blocks that are coded with the same number of bits, and that number: one for all,
        or one for each tensor of the table."""
        if isinstance(bits, int):
            bits = [bits] * self.tensors
        for width, group in groupby(self.coded, key=lambda coded: bits[coded.tensor]):
            members = list(group)
            yield slice(members[0].blocks.start, members[-1].blocks.stop), width

    def chunks(self, blocks: slice | None = None, most: int = CHUNK_BLOCKS) -> Iterator[Chunk]:
        """Yield the blocks of a slice (None: all) in order, at most ``most`` at a time."""
        start, stop = (blocks.start, blocks.stop) if blocks else (0, self.blocks)
        first = 0  # the first coded tensor that the chunk can touch: the walk stays linear in tensors plus chunks
        for low in range(start, stop, most):
            high = min(low + most, stop)
            while self.coded[first].blocks.stop <= low:
                first += 1
            last = first
            while last < len(self.coded) and self.coded[last].blocks.start < high:
                last += 1
            yield Chunk(slice(low, high), tuple(coded.cut(low, high) for coded in self.coded[first:last]))

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


@dataclass(frozen=True)
class Run:
    """Blocks that are coded with the same number of bits, and where the payload holds what they
    become."""

    layout: BlockLayout
    blocks: slice
    bits: int
    seed: int
    codes: Bytes
    """(K, block bytes), a view of the payload."""
    scales_K: Tensor
    """S, float32."""

    def chunks(self, most: int = CHUNK_BLOCKS) -> Iterator[Chunk]:
        """Yield the blocks in order, at most ``most`` at a time."""
        return self.layout.chunks(self.blocks, most)

    def write(self, chunk: Chunk, codes: Tensor, scales_K: Tensor) -> None:
        """Store the codes, uint8 (K, block bytes), and the scales (K,) of a chunk."""
        part = self._part(chunk)
        self.codes[part], self.scales_K[part] = codes.cpu().numpy(), scales_K.cpu()

    def read(self, chunk: Chunk, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the codes, uint8 (K, block bytes), and the scales (K,) of a chunk."""
        part = self._part(chunk)
        return torch.from_numpy(self.codes[part].copy()).to(device), self.scales_K[part].to(device)

    def _part(self, chunk: Chunk) -> slice:
        return slice(chunk.blocks.start - self.blocks.start, chunk.blocks.stop - self.blocks.start)


def tensor_scales(tops_L: Tensor) -> Tensor:
    """Return the float32 t of tensors with largest scales or magnitudes ``tops_L`` (L,): 0 where
    next to nothing.

    The largest scale of a tensor becomes 2^15 in fp16. Blocks down to 2^-29 of it keep all eleven
    bits, down to 2^-39 they keep some, below they vanish.
    """
    return torch.where(tops_L >= SMALLEST_TOP, tops_L / HALF_TOP, 0.0)


def halves(values: Tensor, scales: Tensor) -> NDArray[np.float16]:
    """Return ``values / scales`` rounded to little-endian fp16, and 0 where a scale is 0. Both are
    float32."""
    quotient = torch.where(scales > 0, values / torch.where(scales > 0, scales, 1.0), 0.0)
    return quotient.numpy().astype("<f2")


def read_tensor_scales(words: Bytes) -> Tensor:
    """Return the (L,) float32 tensor scales in ``words`` (4 L,); raise FrameError for any no
    encoder can send."""
    scales = torch.from_numpy(words.view("<f4").astype(np.float32))
    # Within these bounds every product of a decoder is a normal float32, so that a CPU set to flush
    # subnormal numbers decodes the same bits as one that is not.
    sound = (scales >= SMALLEST_TOP / HALF_TOP) & (scales <= LARGEST_TENSOR_SCALE) | (scales == 0) & ~scales.signbit()
    if not bool(sound.all()):
        raise FrameError("the payload holds a tensor scale that is NaN, negative, infinite or out of bounds")
    return scales


def read_halves(words: Bytes, *, signed: bool) -> Tensor:
    """Return the fp16 numbers in ``words`` (2 M,) as (M,) float32; raise FrameError for NaN or
    beyond 2^15.

    ``signed`` allows negative numbers: values may be negative, scales may not.
    """
    numbers = torch.from_numpy(words.view("<f2").astype(np.float32))
    sound = (numbers >= -HALF_TOP) & (numbers <= HALF_TOP)
    if not signed:
        sound &= ~numbers.signbit()
    if not bool(sound.all()):
        raise FrameError("the payload holds a block scale or fp16 value that is NaN, infinite or out of bounds")
    return numbers


@dataclass(frozen=True)
class Sections:
    """The parts of one payload, as views."""

    bits_L: Bytes
    """Bits of each tensor; empty where all have the same."""
    codes: Bytes
    tensor_words: Bytes
    block_words: Bytes
    small_words: Bytes

    def small(self, layout: BlockLayout) -> Iterator[tuple[int, slice, Bytes]]:
        """Yield (index in the table, elements, fp16 words) of all small tensors, piece by piece."""
        first = 0
        for tensor, piece in layout.small_pieces():
            last = first + 2 * (piece.stop - piece.start)
            yield tensor, piece, self.small_words[first:last]
            first = last


@dataclass(frozen=True)
class BlockCodec(Codec):
    """``bits`` bits per parameter, and 0.016 more for one fp16 scale a block of 1024."""

    @abstractmethod
    def encode_run(self, vector: Tensor, run: Run, *, unbiased: bool) -> None:
        """Write the codes and the scales S of the blocks of ``run``, which lie in ``vector``
        (N,)."""

    @abstractmethod
    def decode_run(self, run: Run, out: Tensor) -> None:
        """Write what the codes and scales of ``run`` stand for to where its blocks lie in ``out``
        (N,)."""

    def block_bytes(self, bits: int) -> int:
        """Return the bytes that the codes of one block take at ``bits`` bits: packed, if a codec
        does not say otherwise."""
        return PLANE_BYTES * bits

    def check_codes(self, codes: Bytes, bits: int) -> None:
        """Raise FrameError for codes (K, block bytes) that no encoder can have written; here there
        are none."""

    def distortion(self) -> tuple[float, ...]:
        """Return the normalised squared error at 0, 1, 2, ... bits on normal numbers, by which bits
        are dealt out."""
        raise NotImplementedError(f"{self.name} gives every tensor the same bits")

    def payload_bytes(self, table: TensorTable) -> int:
        """Return the exact length of every payload for ``table``."""
        layout = BlockLayout.of(table)
        return sum(self._lengths(layout)) + 2 * layout.small_numel

    def scale_bytes(self, table: TensorTable) -> int:
        """Return the bytes of scales of tensors and blocks, and of the bits that tensors have."""
        widths, _, tensors, blocks = self._lengths(BlockLayout.of(table))
        return widths + tensors + blocks

    def encode(self, vector: Tensor, table: TensorTable, seed: int, *, unbiased: bool = False) -> bytes:
        """Encode ``vector`` (N,) with the random choices of ``seed``; raise ValueError for
        magnitudes above 2^40 too."""
        source = checked_vector(vector, table, LARGEST_INPUT)
        if unbiased and self.waterfill:
            raise ValueError("water-filling leaves tensors out: it needs error feedback, not the unbiased scale")
        layout = BlockLayout.of(table)

        def fill(view: Bytes) -> None:
            parts = self._cut(view, layout)
            scales_K = torch.zeros(layout.blocks, dtype=torch.float32)
            if self.waterfill:
                parts.bits_L[:] = allocate(energies(source, layout), layout, self.bits, self.distortion())
            for run in self._runs(parts, layout, seed, scales_K):
                self.encode_run(source, run, unbiased=unbiased)
            tensor_scales_L = tensor_scales(_tops(source, scales_K, layout))
            parts.tensor_words[:] = tensor_scales_L.numpy().astype("<f4", copy=False).view(np.uint8)
            parts.block_words[:] = halves(scales_K, tensor_scales_L[layout.tensor_of_block()]).view(np.uint8)
            for tensor, piece, words in parts.small(layout):
                words[:] = halves(source[piece].to("cpu", torch.float32), tensor_scales_L[tensor]).view(np.uint8)

        return _filled(self.payload_bytes(table), fill)

    def decode(self, payload: bytes | memoryview, table: TensorTable, seed: int, out: Tensor | None = None) -> Tensor:
        """Decode into ``out`` (N,), or a new vector; raise FrameError for a wrong length, unsound
        bits, codes or scales."""
        layout = BlockLayout.of(table)
        parts = self._cut(checked_payload(payload, self.payload_bytes(table)), layout)
        tensor_scales_L = read_tensor_scales(parts.tensor_words)
        scales_K = read_halves(parts.block_words, signed=False).mul_(tensor_scales_L[layout.tensor_of_block()])
        for _, _, words in parts.small(layout):
            read_halves(words, signed=True)  # for its check alone: nothing is written before all is known to be sound
        if self.waterfill:
            check_bits(parts.bits_L, parts.codes, layout, self)
        runs = list(self._runs(parts, layout, seed, scales_K))
        for run in runs:
            self.check_codes(run.codes, run.bits)
        vector = checked_output(out, table)
        for tensor, piece, words in parts.small(layout):
            vector[piece] = (read_halves(words, signed=True) * tensor_scales_L[tensor]).to(vector.device)
        if self.waterfill:  # a tensor without bits has no run
            for coded in layout.coded:
                vector[coded.spec.offset : coded.spec.end] = 0.0
        for run in runs:
            self.decode_run(run, vector)
        return vector

    def _lengths(self, layout: BlockLayout) -> tuple[int, int, int, int]:
        """Return the bytes of each part of a payload but the last."""
        width = layout.tensors if self.waterfill else 0
        return width, layout.blocks * self.block_bytes(self.bits), 4 * layout.tensors, 2 * layout.blocks

    def _cut(self, view: Bytes, layout: BlockLayout) -> Sections:
        return Sections(*np.split(view, np.cumsum(self._lengths(layout))))

    def _runs(self, parts: Sections, layout: BlockLayout, seed: int, scales_K: Tensor) -> Iterator[Run]:
        first = 0
        for blocks, bits in layout.stretches(parts.bits_L.tolist() if self.waterfill else self.bits):
            if bits:
                size = self.block_bytes(bits)
                last = first + (blocks.stop - blocks.start) * size
                yield Run(layout, blocks, bits, seed, parts.codes[first:last].reshape(-1, size), scales_K[blocks])
                first = last


def _filled(size: int, fill: Callable[[Bytes], None]) -> bytes:
    """Return ``size`` bytes that ``fill`` has written in place: a large payload is never copied."""
    stream = BytesIO(bytes(size))
    with stream.getbuffer() as buffer:
        fill(np.frombuffer(buffer, np.uint8))
    return stream.getvalue()


def _tops(vector: Tensor, scales_K: Tensor, layout: BlockLayout) -> Tensor:
    """Return (L,): each coded tensor's largest block scale, each small one's largest magnitude in
    ``vector`` (N,)."""
    tops_L = torch.zeros(layout.tensors, dtype=torch.float32)
    for coded in layout.coded:
        tops_L[coded.tensor] = scales_K[coded.blocks].max()
    for tensor, piece in layout.small_pieces():
        tops_L[tensor] = max(float(tops_L[tensor]), float(vector[piece].abs().amax()))
    return tops_L
