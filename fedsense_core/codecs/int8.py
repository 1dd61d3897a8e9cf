"""Eight-bit integers: x / max |x| of the block, rounded to the nearest of -127 to 127 parts.

Dettmers et al., 8-bit Optimizers via Block-wise Quantization, ICLR 2022 (arXiv 2110.02861), with
linear levels instead of their dynamic ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedsense_core.codecs.codec import Bytes
from fedsense_core.codecs.reference import LevelCodec, Rows


@dataclass(frozen=True)
class Int8(LevelCodec):
    """One integer for each, in steps of 1/127 of the block's largest."""

    bits: int = 8

    name: ClassVar[str] = "int8"
    ids: ClassVar[tuple[int, ...]] = (11,)
    widths: ClassVar[tuple[int, ...]] = (8,)

    def choose(self, rows: Rows, bits: int) -> tuple[Tensor, Tensor]:
        """Return the integers (K, 1024) in two's complement and max |x| / 127 (K,)."""
        top = torch.tensor(127.0)
        return rows.unit().mul_(top).round_().to(torch.int32) & 255, rows.peaks_K / top

    def levels(self, bits: int) -> Tensor:
        """Return the integer that each byte stands for, float32 (256,)."""
        return torch.cat([torch.arange(128.0), torch.arange(-128.0, 0.0)])

    def are_sound(self, codes: Bytes, bits: int) -> bool:
        """Tell whether no byte stands for -128."""
        return not bool((codes == 128).any())
