"""The block randomised Hadamard rotation: it makes any block of numbers look normal to a scalar
codebook.

Shapes: K blocks of B = 1024 numbers. With H the B x B Sylvester-Hadamard matrix (entries +-1,
symmetric, H H = B I) and D_s a diagonal of random signs, a block x is rotated to H D_s x / sqrt(B)
(Vargaftik et al., EDEN, ICML 2022; DESIGN, section 5). Here H is left unscaled: sqrt(B) = 32 is a
power of two, so callers divide by it without rounding.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import torch
from torch import Tensor

SIDE = 32
"""H is applied as two rounds of 32-point butterflies with a transposition after each: long inner
loops."""
BLOCK = SIDE * SIDE
"""B, the numbers rotated together and the smallest unit that is coded."""


def hadamard_(rows_KB: Tensor, spare_KB: Tensor) -> Tensor:
    """Replace each row of ``rows_KB`` (K, 1024) float32 by H times that row, and return it.

    Only sums and differences of two numbers, in one fixed order: the result has the same bits on
    every CPU and for any number of threads. ``spare_KB`` is working memory of the same shape, with
    undefined content afterwards.
    """
    blocks = rows_KB.shape[0]
    source, target = rows_KB, spare_KB
    for _ in range(2):  # 2 x (5 + 1) steps: an even number, so the result lies in rows_KB
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
    ``seed`` (taken mod 2^64).

    SHAKE-128 yields exactly 1024 bits from the two integers, the same on every machine, unlike a
    library's generator.
    """
    key = struct.pack("<QI", seed % 2**64, tensor)
    bits = np.unpackbits(np.frombuffer(hashlib.shake_128(key).digest(BLOCK // 8), np.uint8), bitorder="little")
    return torch.from_numpy(1.0 - 2.0 * bits.astype(np.float32))
