"""What the codecs of other methods share: blocks coded as they are, without a rotation.

Shapes: K blocks of B = 1024 numbers. A block is decoded as its scale times what its codes stand
for: one float32 multiplication of exact numbers, so that every CPU decodes the same bits.
"""

from __future__ import annotations

import hashlib
import struct
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedsense_core.codecs.blockwise import BlockwiseCodec, Bytes
from fedsense_core.codecs.hadamard import BLOCK
from fedsense_core.codecs.layout import CHUNK_BLOCKS, BlockLayout, Chunk, Run
from fedsense_core.codecs.rotation import SMALLEST_PEAK, rounded_sqrt, row_sums
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
        """Return u (K, 1024), the codec's random choices: a function of the seed and of the block's
        place alone."""
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
    always for p = 1. SHAKE-128 for the reason that ``signs`` gives, and block by block so that it
    does not matter where a chunk begins.
    """
    keys = (struct.pack("<QQ", seed % 2**64, block) for block in range(first, first + blocks))
    octets = np.frombuffer(b"".join(hashlib.shake_128(key).digest(3 * BLOCK) for key in keys), np.uint8)
    low, middle, high = octets.reshape(-1, 3).astype(np.int32).T
    odd = low | middle << 8 | high << 16 | 1
    return torch.from_numpy(odd.astype(np.float32)).mul_(2.0**-24).view(blocks, BLOCK)


@dataclass(frozen=True)
class UnrotatedCodec(BlockwiseCodec):
    """A blockwise codec that turns rows into codes and back; walking, scales and checks are done
    here."""

    name: ClassVar[str]
    """The name that stands for the codec in a configuration."""
    widths: ClassVar[tuple[int, ...]]
    """Bits per parameter that can be chosen."""

    def __post_init__(self) -> None:
        if self.bits not in self.widths or self.waterfill:
            raise ValueError(f"codec {self.name!r} has {self.widths} bits, not {self.bits}, and no water-filling")

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

    def encode_run(
        self, source: Tensor, layout: BlockLayout, run: Run, seed: int, unbiased: bool, codes: Bytes, scales_K: Tensor
    ) -> None:
        """Write the codes (K, block bytes) and the scales (K,) of the blocks of ``run``."""
        for chunk in layout.chunks(run.blocks):
            part = chunk.within(run)
            written, scales_K[part] = self.encode_rows(Rows.of(chunk, source, seed), run.bits)
            codes[part] = written.numpy()

    def decode_run(self, codes: Bytes, scales_K: Tensor, layout: BlockLayout, run: Run, seed: int, out: Tensor) -> None:
        """Write what codes (K, block bytes) and scales (K,) stand for to the places of the run in
        ``out`` (N,)."""
        for chunk in layout.chunks(run.blocks):
            part = chunk.within(run)
            rows_KB = self.decode_rows(torch.from_numpy(codes[part].copy()), run.bits)
            rows_KB.mul_(scales_K[part, None])
            rows_KB[scales_K[part] == 0] = 0.0  # not -0.0: a zero block must be zero in every bit
            chunk.scatter(rows_KB.to(out.device), out)
