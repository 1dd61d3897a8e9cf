"""The payload of every codec that works block by block, and the walk over a vector that fills and
reads it.

Payload, little-endian, for L tensors, K blocks and M elements of small tensors: codes (block after
block), tensor scales (L float32), block scales (K fp16), small tensors' values (M fp16). With
water-filling the bits of each tensor (L uint8) stand before the codes, and zeros fill the codes up
to the length that equal bits would take: the length of a payload never depends on what is in it. A
codec says how many bytes the codes of one block take, and turns blocks into codes and one scale
each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.codecs.allocation import allocate, energies
from fedsense_core.codecs.checks import checked_output, checked_payload, checked_vector
from fedsense_core.codecs.layout import BlockLayout, Run
from fedsense_core.codecs.scales import LARGEST_INPUT, halves, read_halves, read_tensor_scales, tensor_scales
from fedsense_core.errors import FrameError
from fedsense_core.tensors import TensorTable

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Sections:
    """The parts of one payload, as views."""

    bits_L: Bytes
    """Bits of each tensor; empty where all have the same."""
    codes: Bytes
    tensor_words: Bytes
    block_words: Bytes
    small_words: Bytes

    @classmethod
    def of(cls, view: Bytes, width_bytes: int, code_bytes: int, layout: BlockLayout) -> Sections:
        """Cut ``view`` where its parts meet: ``width_bytes`` of bits, ``code_bytes`` of codes, and
        the rest."""
        return cls(*np.split(view, np.cumsum([width_bytes, code_bytes, 4 * layout.tensors, 2 * layout.blocks])))


@dataclass(frozen=True)
class BlockwiseCodec(ABC):
    """``bits`` bits per parameter, and 0.016 more for one fp16 scale a block of 1024."""

    bits: int
    waterfill: bool = False
    """Deal the same number of bits out anew over the tensors of each vector, where they remove the
    most error."""

    @abstractmethod
    def block_bytes(self, bits: int) -> int:
        """Return the bytes that the codes of one block take at ``bits`` bits."""

    def distortion(self) -> tuple[float, ...]:
        """Return the normalised squared error at 0, 1, 2, ... bits on normal numbers, by which bits
        are dealt out."""
        raise TypeError(f"{type(self).__name__} gives every tensor the same bits")

    def check_codes(self, codes: Bytes, bits: int) -> None:  # noqa: B027 - most codecs have nothing to check
        """Raise FrameError for codes (K, block bytes) that no encoder can have written; here there
        are none."""

    @abstractmethod
    def encode_run(
        self, source: Tensor, layout: BlockLayout, run: Run, seed: int, unbiased: bool, codes: Bytes, scales_K: Tensor
    ) -> None:
        """Write the codes (K, block bytes) and the scales S (K,) of the blocks of ``run``."""

    @abstractmethod
    def decode_run(self, codes: Bytes, scales_K: Tensor, layout: BlockLayout, run: Run, seed: int, out: Tensor) -> None:
        """Write what codes (K, block bytes) and scales (K,) stand for to the places of the run in
        ``out`` (N,)."""

    def payload_bytes(self, table: TensorTable) -> int:
        """Return the exact length of every payload for ``table``."""
        layout = BlockLayout.of(table)
        rest = 4 * layout.tensors + 2 * layout.blocks + 2 * layout.small_numel
        return self._width_bytes(layout) + layout.blocks * self.block_bytes(self.bits) + rest

    def encode(self, vector: Tensor, table: TensorTable, seed: int, *, unbiased: bool = False) -> bytes:
        """Encode ``vector`` (N,) float32 or float64, on any device, with the random choices of
        ``seed``.

        ``unbiased`` asks for a scale that decodes to the vector on average over seeds; the default
        has the least squared error and needs error feedback. Raises ValueError for a wrong shape or
        dtype, and for NaN, infinity or magnitudes above 2^40.
        """
        source = checked_vector(vector, table, LARGEST_INPUT)
        if unbiased and self.waterfill:
            raise ValueError("water-filling leaves tensors out: it needs error feedback, not the unbiased scale")
        layout = BlockLayout.of(table)

        def fill(view: Bytes) -> None:
            parts = self._cut(view, layout)
            scales_K = torch.zeros(layout.blocks, dtype=torch.float32)
            if self.waterfill:
                parts.bits_L[:] = allocate(energies(source, layout), layout, self.bits, self.distortion())
            for run, codes in self._runs(parts, layout):
                self.encode_run(source, layout, run, seed, unbiased, codes, scales_K[run.blocks])
            tensor_scales_L = tensor_scales(tops(source, scales_K, layout))
            parts.tensor_words[:] = tensor_scales_L.numpy().astype("<f4", copy=False).view(np.uint8)
            parts.block_words[:] = halves(scales_K, tensor_scales_L[layout.tensor_of_block()]).view(np.uint8)
            write_small(source, layout, tensor_scales_L, parts.small_words)

        return filled(self.payload_bytes(table), fill)

    def decode(self, payload: bytes | memoryview, table: TensorTable, seed: int, out: Tensor | None = None) -> Tensor:
        """Decode into ``out`` (N,) float32 on any device, or a new vector on the CPU, and return
        it.

        Raises FrameError for a wrong length, unsound bits, codes or scales, before the vector is
        allocated or written.
        """
        layout = BlockLayout.of(table)
        parts = self._cut(checked_payload(payload, self.payload_bytes(table)), layout)
        tensor_scales_L = read_tensor_scales(parts.tensor_words)
        scales_K = read_halves(parts.block_words, signed=False).mul_(tensor_scales_L[layout.tensor_of_block()])
        check_small(parts.small_words, layout)
        self._check_bits(parts, layout)
        runs = list(self._runs(parts, layout))
        for run, codes in runs:
            self.check_codes(codes, run.bits)
        vector = checked_output(out, table)
        read_small(parts.small_words, layout, tensor_scales_L, vector)
        if self.waterfill:
            layout.fill(slice(0, layout.blocks), vector, 0.0)
        for run, codes in runs:
            self.decode_run(codes, scales_K[run.blocks], layout, run, seed, vector)
        return vector

    def _width_bytes(self, layout: BlockLayout) -> int:
        return layout.tensors if self.waterfill else 0

    def _cut(self, view: Bytes, layout: BlockLayout) -> Sections:
        return Sections.of(view, self._width_bytes(layout), layout.blocks * self.block_bytes(self.bits), layout)

    def _runs(self, parts: Sections, layout: BlockLayout) -> Iterator[tuple[Run, Bytes]]:
        """Yield the runs that have bits at all, each with its codes (K, block bytes)."""
        first = 0
        for run in layout.runs(parts.bits_L.tolist() if self.waterfill else self.bits):
            if run.bits:
                size = self.block_bytes(run.bits)
                last = first + (run.blocks.stop - run.blocks.start) * size
                yield run, parts.codes[first:last].reshape(-1, size)
                first = last

    def _check_bits(self, parts: Sections, layout: BlockLayout) -> None:
        if not self.waterfill:
            return
        if len(parts.bits_L) and int(parts.bits_L.max()) >= len(self.distortion()):
            raise FrameError(f"the payload gives a tensor {int(parts.bits_L.max())} bits, more than this codec has")
        coded = [one.tensor for one in layout.coded if one.blocks.stop > one.blocks.start]
        if np.delete(parts.bits_L, coded).any():
            raise FrameError("the payload gives bits to a tensor that is not coded")
        runs = layout.runs(parts.bits_L.tolist())
        needed = sum((run.blocks.stop - run.blocks.start) * self.block_bytes(run.bits) for run in runs if run.bits)
        if needed > len(parts.codes):
            raise FrameError(f"the payload's bits need {needed} bytes of codes, there are {len(parts.codes)}")
        if parts.codes[needed:].any():
            raise FrameError("the payload's filling after its codes is not zero")


def filled(size: int, fill: Callable[[Bytes], None]) -> bytes:
    """Return ``size`` bytes that ``fill`` has written in place: a large payload is never copied."""
    stream = BytesIO(bytes(size))
    with stream.getbuffer() as buffer:
        fill(np.frombuffer(buffer, np.uint8))
    return stream.getvalue()


def tops(vector: Tensor, scales_K: Tensor, layout: BlockLayout) -> Tensor:
    """Return (L,): each coded tensor's largest block scale, each small one's largest magnitude in
    ``vector`` (N,)."""
    tops_L = torch.zeros(layout.tensors, dtype=torch.float32)
    for coded in layout.coded:
        tops_L[coded.tensor] = scales_K[coded.blocks].max()
    for tensor, piece in layout.small_pieces():
        tops_L[tensor] = max(float(tops_L[tensor]), float(vector[piece].abs().amax()))
    return tops_L


def write_small(vector: Tensor, layout: BlockLayout, tensor_scales_L: Tensor, words: Bytes) -> None:
    """Write the small tensors of ``vector`` (N,) in fp16 to ``words`` (2 M,)."""
    first = 0
    for tensor, piece in layout.small_pieces():
        last = first + 2 * (piece.stop - piece.start)
        words[first:last] = halves(vector[piece].to("cpu", torch.float32), tensor_scales_L[tensor]).view(np.uint8)
        first = last


def check_small(words: Bytes, layout: BlockLayout) -> None:
    """Raise FrameError for any fp16 number in ``words`` (2 M,) that no encoder can send."""
    first = 0
    for _, piece in layout.small_pieces():
        last = first + 2 * (piece.stop - piece.start)
        read_halves(words[first:last], signed=True)
        first = last


def read_small(words: Bytes, layout: BlockLayout, tensor_scales_L: Tensor, vector: Tensor) -> None:
    """Write the small tensors in ``words`` (2 M,) to their places in ``vector`` (N,)."""
    first = 0
    for tensor, piece in layout.small_pieces():
        last = first + 2 * (piece.stop - piece.start)
        vector[piece] = (read_halves(words[first:last], signed=True) * tensor_scales_L[tensor]).to(vector.device)
        first = last
