"""QSGD: |x| / |block| rounded at random to one of s = 2^(bits - 1) - 1 levels above 0, unbiased,
and a sign bit.

Alistarh et al., NeurIPS 2017 (arXiv 1610.02132), with Euclidean norm and the block for the bucket.
The paper then codes runs of zeros with Elias codes, whose length varies with the vector; here every
code has ``bits`` bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedsense_core.codecs.reference import LevelCodec, Rows


@dataclass(frozen=True)
class Qsgd(LevelCodec):
    """2 to 8 bits a number, right on average."""

    name: ClassVar[str] = "qsgd"
    ids: ClassVar[tuple[int, ...]] = (7,)
    widths: ClassVar[tuple[int, ...]] = (2, 3, 4, 5, 6, 7, 8)
    feedback_allowed: ClassVar[bool] = False  # below 5 bits the residual diverges

    def choose(self, rows: Rows, bits: int) -> tuple[Tensor, Tensor]:
        """Return sign bit and level (K, 1024), and |x| / s (K,)."""
        unit_KB, steps = rows.unit(), 2 ** (bits - 1) - 1
        norms_K = rows.norms(unit_KB)
        exact_KB = (unit_KB.abs() / torch.where(norms_K > 0, norms_K, torch.inf)[:, None]).mul_(steps)
        lower_KB = exact_KB.floor()
        levels_KB = lower_KB.to(torch.int32).add_(rows.draws() < exact_KB.sub_(lower_KB))
        return levels_KB | ((unit_KB < 0).to(torch.int32) << (bits - 1)), norms_K * rows.peaks_K / steps

    def levels(self, bits: int) -> Tensor:
        """Return 0 to s and then 0 to -s, float32 (2^bits,)."""
        half = torch.arange(2.0 ** (bits - 1))
        return torch.cat([half, 0.0 - half])  # 0.0 - 0.0 is 0.0, where a minus alone would make it -0.0
