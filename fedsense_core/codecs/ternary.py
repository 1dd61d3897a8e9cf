"""TernGrad: the sign of x times the block's largest magnitude with the chance |x| / max |x|, else
0; unbiased.

Wen et al., NeurIPS 2017 (arXiv 1705.07878), with the block for the layer and without their
clipping.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from fedsense_core.codecs.codec import Bytes
from fedsense_core.codecs.reference import ReferenceCodec, Rows
from fedsense_core.codecs.rotation import BLOCK

TRITS = 5
"""Trits in a byte: 3^5 = 243 of 256 values."""
TRIT_BYTES = -(-BLOCK // TRITS)
"""205 bytes for 1024 trits and one that is always 0: 1.602 bits per parameter, where log2(3) is
1.585."""


@dataclass(frozen=True)
class Ternary(ReferenceCodec):
    """Five trits travel in a byte: 1.602 bits per parameter, which ``bits`` rounds up."""

    bits: int = 2

    name: ClassVar[str] = "ternary"
    ids: ClassVar[tuple[int, ...]] = (8,)
    widths: ClassVar[tuple[int, ...]] = (2,)
    feedback_allowed: ClassVar[bool] = False  # the residual grows to ten times an update

    def block_bytes(self, bits: int) -> int:
        """Return the bytes that the codes of one block take; none at 0 bits."""
        return TRIT_BYTES if bits else 0

    def encode_rows(self, rows: Rows, bits: int) -> tuple[Tensor, Tensor]:
        """Return the bytes, uint8 (K, 205), and max |x|, float32 (K,)."""
        unit_KB = rows.unit()
        kept_KB = rows.draws() < unit_KB.abs()
        digits = torch.zeros(len(unit_KB), TRIT_BYTES * TRITS, dtype=torch.uint8)
        digits[:, :BLOCK] = torch.where(unit_KB < 0, 2, 1) * kept_KB
        octets = torch.zeros(len(unit_KB), TRIT_BYTES, dtype=torch.uint8)
        for i, column in enumerate(digits.view(-1, TRIT_BYTES, TRITS).unbind(2)):
            octets += column * 3**i
        return octets, rows.peaks_K

    def decode_rows(self, codes: Tensor, bits: int) -> Tensor:
        """Return what the bytes, uint8 (K, 205), stand for, float32 (K, 1024)."""
        trits = trits_of_bytes().index_select(0, codes.view(-1).to(torch.int32))
        return trits.view(-1, TRIT_BYTES * TRITS)[:, :BLOCK].contiguous()

    def are_sound(self, codes: Bytes, bits: int) -> bool:
        """Tell whether every byte holds five trits."""
        return not bool((codes >= 3**TRITS).any())


@cache
def trits_of_bytes() -> Tensor:
    """Return the five numbers that each byte stands for, float32 (243, 5): digits 0, 1, 2 for 0, 1,
    -1."""
    digits = torch.arange(3**TRITS)[:, None] // 3 ** torch.arange(TRITS) % 3
    return torch.tensor([0.0, 1.0, -1.0])[digits]
