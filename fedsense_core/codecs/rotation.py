"""Blocks rotated to look normal, and back: the part that every rotated codec shares, in plain torch
on any device.

With r = H D_s x / sqrt(B) a rotated block and q the values that stand for it, the decoder returns
D_s H (S q) / sqrt(B) (Vargaftik et al., EDEN, ICML 2022; DESIGN, section 5). Only additions,
subtractions, multiplications, divisions and square roots in one fixed order: payloads and decoded
vectors have the same bits on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsense_core.codecs.hadamard import BLOCK, SIDE, hadamard_, signs
from fedsense_core.codecs.layout import Chunk

SMALLEST_PEAK = 2.0**-90
"""A block whose largest magnitude is below this counts as zero: dividing by it could overflow."""


@dataclass(frozen=True)
class RotatedRows:
    """Blocks after the rotation, free of their magnitude."""

    rows_KB: Tensor
    """y = H D_s x / peak: sqrt(B) times r / peak."""
    peaks_K: Tensor
    """Largest magnitude of each block before the rotation."""
    energy_K: Tensor
    """|y|^2."""
    rms_K: Tensor
    """Root mean square of y; 0 for an all-zero block."""

    @classmethod
    def of(cls, chunk: Chunk, vector: Tensor, seed: int) -> RotatedRows:
        """Rotate the chunk's blocks of ``vector`` (N,), each divided by its peak so that no square
        overflows."""
        rows_KB = chunk.gather(vector)
        spare_KB = torch.empty_like(rows_KB)
        peaks_K = torch.abs(rows_KB, out=spare_KB).amax(1)
        rows_KB.div_(torch.where(peaks_K < SMALLEST_PEAK, torch.inf, peaks_K)[:, None])
        for segment in chunk.segments:
            rows_KB[segment.rows].mul_(signs(seed, segment.tensor).to(rows_KB.device))
        hadamard_(rows_KB, spare_KB)
        energy_K = row_sums(torch.mul(rows_KB, rows_KB, out=spare_KB))
        return cls(rows_KB, peaks_K, energy_K, rounded_sqrt(energy_K / BLOCK))

    def normal(self) -> Tensor:
        """Return z = y / rms (K, 1024): numbers with mean square 1, which codebooks are made
        for."""
        return self.rows_KB / torch.where(self.rms_K > 0, self.rms_K, torch.inf)[:, None]

    def scales(self, q_KB: Tensor, *, unbiased: bool) -> Tensor:
        """Return S (K,) for the values ``q_KB`` that stand for z; 0 for an all-zero block.
        Overwrites ``q_KB``.

        <q, r> / |q|^2 has the least squared error; |r|^2 / <q, r> decodes to the vector on average
        over seeds.
        """
        product_K = row_sums(q_KB * self.rows_KB)
        ratio_K = self.energy_K / product_K if unbiased else product_K / row_sums(q_KB.mul_(q_KB))
        return torch.where(product_K > 0, ratio_K / SIDE * self.peaks_K, 0.0)


def unrotate(chunk: Chunk, rows_KB: Tensor, scales_K: Tensor, seed: int, vector: Tensor) -> None:
    """Write D_s H (S q) / sqrt(B) of values ``rows_KB`` (K, 1024) to the chunk's places in
    ``vector`` (N,)."""
    hadamard_(rows_KB, torch.empty_like(rows_KB))
    rows_KB.mul_((scales_K / SIDE)[:, None])
    for segment in chunk.segments:
        rows_KB[segment.rows].mul_(signs(seed, segment.tensor).to(rows_KB.device))
    rows_KB[scales_K == 0] = 0.0  # not -0.0: a zero block must be zero in every bit
    chunk.scatter(rows_KB, vector)


def rounded_sqrt(values_K: Tensor) -> Tensor:
    """Return the square roots (K,), rounded as IEEE 754 says: torch's own on a CPU may be off in
    the last bit."""
    if values_K.device.type != "cpu":
        return values_K.sqrt()
    return torch.from_numpy(np.sqrt(values_K.numpy()))


def row_sums(rows_KB: Tensor) -> Tensor:
    """Return the sum of each row (K,), halving the row again and again.

    One fixed order of additions: payloads too have the same bits on every machine, which torch's
    own sum does not give.
    """
    width = rows_KB.shape[1]
    while width > 1:
        width //= 2
        rows_KB = rows_KB[:, :width] + rows_KB[:, width : 2 * width]
    return rows_KB[:, 0]
