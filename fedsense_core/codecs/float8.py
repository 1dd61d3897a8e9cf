"""Eight-bit floats (e4m3: 4 bits of exponent, 3 of mantissa) under a scale that maps the block's
largest to 448.

Micikevicius et al. 2022 (arXiv 2209.05433). Rounds to nearest, ties to even.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from fedsense_core.codecs.codec import Bytes
from fedsense_core.codecs.reference import LevelCodec, Rows

LARGEST = 448.0
"""Largest number of e4m3."""


@dataclass(frozen=True)
class Float8(LevelCodec):
    """One e4m3 number for each; every magnitude keeps four bits."""

    bits: int = 8

    name: ClassVar[str] = "float8"
    ids: ClassVar[tuple[int, ...]] = (10,)
    widths: ClassVar[tuple[int, ...]] = (8,)

    def choose(self, rows: Rows, bits: int) -> tuple[Tensor, Tensor]:
        """Return the bytes (K, 1024) and max |x| / 448 (K,)."""
        top = torch.tensor(LARGEST)
        return codes_of(rows.unit().mul_(top)), rows.peaks_K / top

    def levels(self, bits: int) -> Tensor:
        """Return the number that each byte stands for, float32 (256,)."""
        return levels_of_codes()

    def are_sound(self, codes: Bytes, bits: int) -> bool:
        """Tell whether no byte stands for NaN."""
        return not bool(((codes & 0x7F) == 0x7F).any())


def codes_of(values: Tensor) -> Tensor:
    """Return the e4m3 code of each of ``values``, float32 within [-448, 448], as int32.

    By integer arithmetic on exponents and one exact multiplication: no library's conversion
    matters.
    """
    exponents = ((values.abs().view(torch.int32) >> 23) - 127).clamp_(min=-6)
    steps_per_unit = ((130 - exponents) << 23).view(torch.float32)  # 2^(3 - exponent)
    mantissas = (values.abs() * steps_per_unit).round_().to(torch.int32)
    # 8 to 15 with the leading bit, which the exponent's field then counts as one; 16 carries into
    # it as it must.
    return ((exponents + 6) << 3) + mantissas + ((values < 0).to(torch.int32) << 7)


@cache
def levels_of_codes() -> Tensor:
    """Return the number of each e4m3 code, float32 (256,); 0 for the two codes of NaN, which are
    refused before."""
    half = [code * 2.0**-9 if code < 8 else (8 + code % 8) * 2.0 ** (code // 8 - 10) for code in range(127)] + [0.0]
    return torch.tensor(half + [0.0 - level for level in half])
