"""The block randomised Hadamard rotation: it makes any block of numbers look normal, and back.

Shapes: K blocks of B = 1024 numbers. With H the B x B Sylvester-Hadamard matrix (entries +-1,
symmetric, H H = B I) and D_s a diagonal of random signs, a block x becomes r = H D_s x / sqrt(B).
Values q that stand for r decode to D_s H (S q) / sqrt(B) (Vargaftik et al., EDEN, ICML 2022;
docs/method.md, section 5).

In plain torch, on any device. Only additions, subtractions, multiplications, divisions and square
roots in one fixed order: payloads and decoded vectors have the same bits on every machine.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SIDE = 32
"""sqrt(B), a power of two: H is left unscaled, and dividing by this later does not round."""
BLOCK = SIDE * SIDE
"""B, the numbers rotated together and the smallest unit that is coded."""
SMALLEST_PEAK = 2.0**-90
"""A block whose largest magnitude is below this counts as zero: dividing by it could overflow."""


@dataclass(frozen=True)
class Rotated:
    """Blocks after the rotation, free of their magnitude."""

    y_KB: Tensor
    """y = H D_s x / peak: sqrt(B) times r / peak."""
    peaks_K: Tensor
    """Largest magnitude of each block before the rotation."""
    energy_K: Tensor
    """|y|^2."""
    rms_K: Tensor
    """Root mean square of y; 0 for an all-zero block."""

    def normal(self) -> Tensor:
        """Return z = r sqrt(B) / |r| (K, 1024): numbers with mean square 1, which codebooks are
        made for."""
        return self.y_KB / torch.where(self.rms_K > 0, self.rms_K, torch.inf)[:, None]

    def scales(self, q_KB: Tensor, *, unbiased: bool) -> Tensor:
        """Return S (K,) for the values ``q_KB`` that stand for z; 0 for an all-zero block.
        Overwrites ``q_KB``.

        <q, r> / |q|^2 has the least squared error; |r|^2 / <q, r> decodes to the vector on average
        over seeds.
        """
        product_K = row_sums(q_KB * self.y_KB)
        ratio_K = self.energy_K / product_K if unbiased else product_K / row_sums(q_KB.mul_(q_KB))
        return torch.where(product_K > 0, ratio_K / SIDE * self.peaks_K, 0.0)


def rotate(x_KB: Tensor, signs_KB: Tensor) -> Rotated:
    """Rotate blocks ``x_KB`` (K, 1024) float32 in place; ``signs_KB`` holds the diagonal of D_s for
    each."""
    spare_KB = torch.empty_like(x_KB)
    peaks_K = torch.abs(x_KB, out=spare_KB).amax(1)
    x_KB.div_(torch.where(peaks_K < SMALLEST_PEAK, torch.inf, peaks_K)[:, None])  # so that no square overflows
    y_KB = hadamard_(x_KB.mul_(signs_KB), spare_KB)
    energy_K = row_sums(torch.mul(y_KB, y_KB, out=spare_KB))
    return Rotated(y_KB, peaks_K, energy_K, rounded_sqrt(energy_K / BLOCK))


def unrotate(q_KB: Tensor, scales_K: Tensor, signs_KB: Tensor) -> Tensor:
    """Replace values ``q_KB`` (K, 1024) by D_s H (S q) / sqrt(B), and return them."""
    hadamard_(q_KB, torch.empty_like(q_KB)).mul_((scales_K / SIDE)[:, None]).mul_(signs_KB)
    q_KB[scales_K == 0] = 0.0  # not -0.0: a zero block must be zero in every bit
    return q_KB


def hadamard_(rows_KB: Tensor, spare_KB: Tensor) -> Tensor:
    """Replace each row of ``rows_KB`` (K, 1024) float32 by H times that row, and return it.

    Only sums and differences of two numbers, in one fixed order: the result has the same bits on
    every CPU and for any number of threads. ``spare_KB`` is working memory of the same shape, with
    undefined content afterwards.
    """
    blocks = rows_KB.shape[0]
    source, target = rows_KB, spare_KB
    # Two rounds of 32-point butterflies with a transposition after each: long inner loops. 2 x (5 +
    # 1) steps are an even number, so the result lies in rows_KB.
    for _ in range(2):
        for gap in (1, 2, 4, 8, 16):
            pairs, out = (t.view(blocks, SIDE // (2 * gap), 2, gap * SIDE) for t in (source, target))
            torch.add(pairs[:, :, 0], pairs[:, :, 1], out=out[:, :, 0])
            torch.sub(pairs[:, :, 0], pairs[:, :, 1], out=out[:, :, 1])
            source, target = target, source
        target.view(blocks, SIDE, SIDE).copy_(source.view(blocks, SIDE, SIDE).transpose(1, 2))
        source, target = target, source
    return rows_KB


def signs(seed: int, tensor: int) -> Tensor:
    """Return the (1024,) float32 signs of D_s for the ``tensor``-th tensor of a table under
    ``seed`` (taken mod 2^64)."""
    key = struct.pack("<QI", seed % 2**64, tensor)
    # SHAKE-128 yields exactly 1024 bits from the two integers, the same on every machine, unlike a
    # library's generator.
    bits = np.unpackbits(np.frombuffer(hashlib.shake_128(key).digest(BLOCK // 8), np.uint8), bitorder="little")
    return torch.from_numpy(1.0 - 2.0 * bits.astype(np.float32))


def rounded_sqrt(values_K: Tensor) -> Tensor:
    """Return the square roots (K,), rounded as IEEE 754 says."""
    if values_K.device.type != "cpu":
        return values_K.sqrt()
    return torch.from_numpy(np.sqrt(values_K.numpy()))  # torch's own on a CPU may be off in the last bit


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
