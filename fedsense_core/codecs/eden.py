"""EDEN: rotate each block, send the nearest level of a normal codebook for every number and one scale for the block.

Vargaftik et al., EDEN: Communication-Efficient and Robust Distributed Mean Estimation, ICML 2022 (DESIGN, section 5).
With r = H D_s x / sqrt(B) the rotated block and q its levels, the decoder returns D_s H (S q) / sqrt(B).

Payload, little-endian, for L tensors, K blocks, M elements of small tensors and b bits:
codes (K x 128 b bytes), tensor scales (L float32), block scales (K fp16), small tensors' values (M fp16). Codes come
first because they are known first, so that a payload is written in one go and never copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.codecs.checks import checked_payload, checked_vector
from fedsense_core.codecs.codebooks import Codebook, codebook
from fedsense_core.codecs.hadamard import BLOCK, SIDE, hadamard_, signs
from fedsense_core.codecs.layout import BlockLayout, Chunk
from fedsense_core.codecs.packing import PLANE_BYTES, pack_codes, unpack_codes
from fedsense_core.codecs.scales import LARGEST_INPUT, halves, read_halves, read_tensor_scales, tensor_scales
from fedsense_core.tensors import TensorTable

SMALLEST_PEAK = 2.0**-90
"""A block whose largest magnitude is below this counts as zero: dividing by it could overflow."""


@dataclass(frozen=True)
class Eden:
    """``bits`` bits per parameter and 0.016 more for the scales."""

    id: ClassVar[int] = 2
    name: ClassVar[str] = "eden"
    bits: int

    def payload_bytes(self, table: TensorTable) -> int:
        """Return the exact length of every payload for ``table``."""
        layout = BlockLayout.of(table)
        return 4 * layout.tensors + (2 + self.bits * PLANE_BYTES) * layout.blocks + 2 * layout.small_numel

    def encode(self, vector: Tensor, table: TensorTable, seed: int, *, unbiased: bool = False) -> bytes:
        """Encode ``vector`` (N,) float32 or float64 under the rotation of ``seed``.

        ``unbiased`` sends S = |r|^2 / <q, r>, which decodes to the vector on average over seeds; the default
        S = <q, r> / |q|^2 has the least squared error and needs error feedback. Raises ValueError for a wrong shape or
        dtype, and for NaN, infinity or magnitudes above 2^40.
        """
        source = checked_vector(vector, table, LARGEST_INPUT)
        layout = BlockLayout.of(table)
        stream = BytesIO()
        scales_K = torch.empty(layout.blocks, dtype=torch.float32)
        for chunk in layout.chunks():
            codes_KB, scales_K[chunk.blocks] = quantize(rotate(chunk, source, seed), codebook(self.bits), unbiased)
            stream.write(pack_codes(codes_KB, self.bits).data)
        tensor_scales_L = tensor_scales(tops(source, scales_K, layout))
        stream.write(tensor_scales_L.numpy().astype("<f4", copy=False).data)
        stream.write(halves(scales_K, tensor_scales_L[layout.tensor_of_block()]).data)
        for tensor, piece in layout.small_pieces():
            stream.write(halves(source[piece].to("cpu", torch.float32), tensor_scales_L[tensor]).data)
        return stream.getvalue()

    def decode(self, payload: bytes | memoryview, table: TensorTable, seed: int) -> Tensor:
        """Decode into a new (N,) float32 vector; raise FrameError for a wrong length or unsound scales."""
        view = checked_payload(payload, self.payload_bytes(table))
        layout = BlockLayout.of(table)
        ends = np.cumsum([self.bits * PLANE_BYTES * layout.blocks, 4 * layout.tensors, 2 * layout.blocks])
        codes, tensor_words, block_words, small_words = np.split(view, ends)
        tensor_scales_L = read_tensor_scales(tensor_words)
        scales_K = read_halves(block_words, signed=False) * tensor_scales_L[layout.tensor_of_block()]
        vector = torch.empty(table.numel, dtype=torch.float32)
        read_small(small_words, layout, tensor_scales_L, vector)
        packed = codes.reshape(layout.blocks, self.bits * PLANE_BYTES)
        for chunk in layout.chunks():
            codes_KB = torch.from_numpy(unpack_codes(packed[chunk.blocks], self.bits))
            levels_KB = codebook(self.bits).values(codes_KB.view(-1).to(torch.int32)).view(-1, BLOCK)
            unrotate(chunk, levels_KB, scales_K[chunk.blocks], seed, vector)
        return vector


@dataclass(frozen=True)
class RotatedRows:
    """Blocks after the rotation, free of their magnitude."""

    rows_KB: Tensor
    """H D_s x / peak: sqrt(B) times r / peak."""
    peaks_K: Tensor
    """Largest magnitude of each block before the rotation."""


def rotate(chunk: Chunk, vector: Tensor, seed: int) -> RotatedRows:
    """Rotate the chunk's blocks of ``vector`` (N,), each divided by its peak so that no square over- or underflows."""
    rows_KB = chunk.gather(vector)
    spare_KB = torch.empty_like(rows_KB)
    peaks_K = torch.abs(rows_KB, out=spare_KB).amax(1)
    rows_KB.div_(torch.where(peaks_K < SMALLEST_PEAK, torch.inf, peaks_K)[:, None])
    for segment in chunk.segments:
        rows_KB[segment.rows].mul_(signs(seed, segment.tensor))
    return RotatedRows(hadamard_(rows_KB, spare_KB), peaks_K)


def unrotate(chunk: Chunk, rows_KB: Tensor, scales_K: Tensor, seed: int, vector: Tensor) -> None:
    """Write D_s H (S q) / sqrt(B) of levels ``rows_KB`` (K, 1024) to the chunk's places in ``vector`` (N,)."""
    hadamard_(rows_KB, torch.empty_like(rows_KB))
    rows_KB.mul_((scales_K / SIDE)[:, None])
    for segment in chunk.segments:
        rows_KB[segment.rows].mul_(signs(seed, segment.tensor))
    rows_KB[scales_K == 0] = 0.0  # not -0.0: a zero block must be zero in every bit
    chunk.scatter(rows_KB, vector)


def quantize(rotated: RotatedRows, book: Codebook, unbiased: bool) -> tuple[NDArray[np.uint8], Tensor]:
    """Return the codes (K, 1024) and the scales S (K,) of rotated blocks; S of an all-zero block is 0."""
    y_KB = rotated.rows_KB  # y = sqrt(B) r / peak
    energy_K = row_sums(y_KB * y_KB)
    rms_K = (energy_K / BLOCK).sqrt_()
    codes = book.nearest((y_KB / torch.where(rms_K > 0, rms_K, torch.inf)[:, None]).view(-1))
    q_KB = book.values(codes).view(-1, BLOCK)
    product_K = row_sums(q_KB * y_KB)
    ratio_K = energy_K / product_K if unbiased else product_K / row_sums(q_KB.mul_(q_KB))
    scales_K = torch.where(rms_K > 0, ratio_K / SIDE * rotated.peaks_K, 0.0)
    return codes.to(torch.uint8).view(-1, BLOCK).numpy(), scales_K


def row_sums(rows_KB: Tensor) -> Tensor:
    """Return the sum of each row (K,), halving the row again and again.

    One fixed order of additions: payloads too have the same bits on every machine, which torch's own sum does not give.
    """
    width = rows_KB.shape[1]
    while width > 1:
        width //= 2
        rows_KB = rows_KB[:, :width] + rows_KB[:, width : 2 * width]
    return rows_KB[:, 0]


def tops(vector: Tensor, scales_K: Tensor, layout: BlockLayout) -> Tensor:
    """Return (L,): each coded tensor's largest block scale, each small one's largest magnitude in ``vector`` (N,)."""
    tops_L = torch.zeros(layout.tensors, dtype=torch.float32)
    for coded in layout.coded:
        tops_L[coded.tensor] = scales_K[coded.blocks].max()
    for tensor, piece in layout.small_pieces():
        tops_L[tensor] = max(float(tops_L[tensor]), float(vector[piece].abs().amax()))
    return tops_L


def read_small(words: NDArray[np.uint8], layout: BlockLayout, tensor_scales_L: Tensor, vector: Tensor) -> None:
    """Write the small tensors in ``words`` (2 M,) to their places in ``vector`` (N,)."""
    first = 0
    for tensor, piece in layout.small_pieces():
        last = first + piece.stop - piece.start
        values = read_halves(words[2 * first : 2 * last], signed=True)
        torch.mul(values, tensor_scales_L[tensor], out=vector[piece])
        first = last
