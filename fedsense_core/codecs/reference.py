"""Reference codecs: what other methods do, for comparison. Each stands in a file of its own; this
is what they share.

All are the rules of their papers with a block of 1024 numbers for the bucket, coded as it is,
without a rotation; an fp16 scale for each block; and codes of fixed length. A block is decoded as
its scale times what its codes stand for: one float32 multiplication of exact numbers, so that every
CPU decodes the same bits. What an fp16 scale rounds off, at most 2^-11 of it, is the same for every
number of a block. ``unbiased`` changes nothing: each has one scale.

``sign``, ``topk``, ``float8`` and ``int8`` lose less than the vector itself (contractions), which
is what error feedback needs. ``qsgd`` and ``ternary`` are right on average instead and may lose
many times the vector: they are made for plain means.
"""

from __future__ import annotations

import hashlib
import struct
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsense_core.codecs.block_format import CHUNK_BLOCKS, BlockCodec, Chunk, Run
from fedsense_core.codecs.codec import Bytes
from fedsense_core.codecs.packing import pack_codes, unpack_codes
from fedsense_core.codecs.rotation import BLOCK, SMALLEST_PEAK, rounded_sqrt, row_sums
from fedsense_core.errors import FrameError


@dataclass(frozen=True)
class Rows:
    """The blocks of one chunk as they are, on the CPU."""

    values_KB: Tensor
    """float32, the filling zero."""
    peaks_K: Tensor
    """Largest magnitude of each block; 0 where the block counts as zero."""
    counts_K: Tensor
    """Elements of the vector in each block, float32; the rest is filling."""
    seed: int
    first: int
    """Which block of the whole vector the first row is."""

    @classmethod
    def of(cls, chunk: Chunk, vector: Tensor, seed: int) -> Rows:
        """Copy the chunk's blocks out of ``vector`` (N,)."""
        values_KB = chunk.gather(vector).cpu()
        peaks_K = values_KB.abs().amax(1)
        peaks_K = torch.where(peaks_K < SMALLEST_PEAK, 0.0, peaks_K)
        return cls(values_KB, peaks_K, counts(chunk), seed, chunk.blocks.start)

    def unit(self) -> Tensor:
        """Return y = x / peak (K, 1024), within [-1, 1], whose sums and squares neither overflow
        nor vanish."""
        return self.values_KB / torch.where(self.peaks_K > 0, self.peaks_K, torch.inf)[:, None]

    def norms(self, unit_KB: Tensor) -> Tensor:
        """Return |y| (K,): at least 1, or 0 for a zero block."""
        return rounded_sqrt(row_sums(unit_KB * unit_KB))

    def draws(self) -> Tensor:
        """Return u (K, 1024), the codec's random choices: a function of the seed and of which
        block it is alone."""
        return uniform(self.seed, self.first, len(self.values_KB))


def counts(chunk: Chunk) -> Tensor:
    """Return how many elements of the vector each block of ``chunk`` holds, float32 (K,)."""
    counts_K = torch.full((chunk.blocks.stop - chunk.blocks.start,), float(BLOCK))
    for segment in chunk.segments:
        room = (segment.rows.stop - segment.rows.start) * BLOCK
        counts_K[segment.rows.stop - 1] -= room - (segment.elements.stop - segment.elements.start)
    return counts_K


def uniform(seed: int, first: int, blocks: int) -> Tensor:
    """Return uniform numbers (blocks, 1024) float32 for the blocks from ``first``; ``seed`` is
    taken mod 2^64.

    Each is an odd multiple of 2^-24: u < p has the chance p to within 2^-24, never for p = 0 and
    always for p = 1. SHAKE-128 for the reason that ``signs`` gives.
    """
    # Block by block, so that it does not matter where a chunk begins.
    keys = (struct.pack("<QQ", seed % 2**64, block) for block in range(first, first + blocks))
    octets = np.frombuffer(b"".join(hashlib.shake_128(key).digest(3 * BLOCK) for key in keys), np.uint8)
    low, middle, high = octets.reshape(-1, 3).astype(np.int32).T
    odd = low | middle << 8 | high << 16 | 1
    return torch.from_numpy(odd.astype(np.float32)).mul_(2.0**-24).view(blocks, BLOCK)


@dataclass(frozen=True)
class ReferenceCodec(BlockCodec):
    """Turns rows into codes and back; walking, scales and checks are done here."""

    @abstractmethod
    def encode_rows(self, rows: Rows, bits: int) -> tuple[Tensor, Tensor]:
        """Return the codes, uint8 (K, block bytes), and the scales, float32 (K,)."""

    @abstractmethod
    def decode_rows(self, codes: Tensor, bits: int) -> Tensor:
        """Return what codes, uint8 (K, block bytes), stand for under a scale of 1: a new float32
        (K, 1024)."""

    def are_sound(self, codes: Bytes, bits: int) -> bool:
        """Tell whether an encoder can have sent the codes (K, block bytes)."""
        return True

    def check_codes(self, codes: Bytes, bits: int) -> None:
        """Raise FrameError for codes (K, block bytes) that no encoder can have written."""
        for low in range(0, len(codes), CHUNK_BLOCKS):
            if not self.are_sound(codes[low : low + CHUNK_BLOCKS], bits):
                raise FrameError(f"the payload holds a code that no encoder of {self.name!r} can have written")

    def encode_run(self, vector: Tensor, run: Run, *, unbiased: bool) -> None:
        """Write the codes (K, block bytes) and the scales (K,) of the blocks of ``run``."""
        for chunk in run.chunks():
            run.write(chunk, *self.encode_rows(Rows.of(chunk, vector, run.seed), run.bits))

    def decode_run(self, run: Run, out: Tensor) -> None:
        """Write what the codes and scales of ``run`` stand for to where it lies in ``out`` (N,)."""
        for chunk in run.chunks():
            codes, scales_K = run.read(chunk, torch.device("cpu"))
            rows_KB = self.decode_rows(codes, run.bits).mul_(scales_K[:, None])
            rows_KB[scales_K == 0] = 0.0  # not -0.0: a zero block must be zero in every bit
            chunk.scatter(rows_KB.to(out.device), out)


@dataclass(frozen=True)
class LevelCodec(ReferenceCodec):
    """Codes of ``bits`` bits each, packed without a gap, that stand for levels of a table."""

    @abstractmethod
    def choose(self, rows: Rows, bits: int) -> tuple[Tensor, Tensor]:
        """Return the codes, integers (K, 1024), and the scales, float32 (K,)."""

    @abstractmethod
    def levels(self, bits: int) -> Tensor:
        """Return the level of each code, float32 (2^bits,): finite, at most 448, and exact."""

    def encode_rows(self, rows: Rows, bits: int) -> tuple[Tensor, Tensor]:
        """Return the codes, uint8 (K, 128 bits), and the scales, float32 (K,)."""
        codes_KB, scales_K = self.choose(rows, bits)
        return pack_codes(codes_KB, bits), scales_K

    def decode_rows(self, codes: Tensor, bits: int) -> Tensor:
        """Return the levels of codes, uint8 (K, 128 bits), as float32 (K, 1024)."""
        return self.levels(bits).index_select(0, unpack_codes(codes, bits).view(-1)).view(-1, BLOCK)
