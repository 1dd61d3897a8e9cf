"""Scaled sign: mean |x| of the block with the sign of x.

Karimireddy et al., EF-SignSGD, ICML 2019 (arXiv 1901.09847); block by block: Zheng et al. 2019
(arXiv 1905.10936). Both carry a residual; without one, sign descent need not converge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedsense_core.codecs.reference import LevelCodec, Rows
from fedsense_core.codecs.rotation import row_sums


@dataclass(frozen=True)
class Sign(LevelCodec):
    """One bit a number, always biased."""

    bits: int = 1

    name: ClassVar[str] = "sign"
    ids: ClassVar[tuple[int, ...]] = (6,)
    widths: ClassVar[tuple[int, ...]] = (1,)

    def choose(self, rows: Rows, bits: int) -> tuple[Tensor, Tensor]:
        """Return 1 (K, 1024) where x >= 0, and |x|_1 / d (K,), the filling not counted."""
        return rows.values_KB >= 0, row_sums(rows.unit().abs_()) / rows.counts_K * rows.peaks_K

    def levels(self, bits: int) -> Tensor:
        """Return what 0 and 1 stand for, float32 (2,)."""
        return torch.tensor([-1.0, 1.0])
