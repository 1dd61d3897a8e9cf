"""Codecs of other methods, for comparison: one code for every number, and what it stands for times
the block's scale.

All are the published rules with a block of 1024 numbers for the bucket, an fp16 scale for each
block, and codes of fixed length. What an fp16 scale rounds off, at most 2^-11 of it, is the same
for every number of a block.

``sign``, ``float8`` and ``int8`` lose less than the vector itself (contractions), which is what
error feedback needs. ``qsgd`` and ``ternary`` are right on average instead and may lose many times
the vector: they are made for plain means. With error feedback, ``qsgd`` below 5 bits diverges, and
``ternary`` keeps ten times an update as its residual.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from fedsense_core.codecs.blockwise import Bytes
from fedsense_core.codecs.hadamard import BLOCK
from fedsense_core.codecs.packing import PLANE_BYTES, pack_codes, unpack_codes
from fedsense_core.codecs.rotation import row_sums
from fedsense_core.codecs.unrotated import Rows, UnrotatedCodec

TRITS = 5
"""Trits in a byte: 3^5 = 243 of 256 values."""
TRIT_BYTES = -(-BLOCK // TRITS)
"""205 bytes for 1024 trits and one that is always 0: 1.602 bits per parameter, where log2(3) is
1.585."""
FLOAT8_TOP = 448.0
"""Largest number of e4m3."""


@dataclass(frozen=True)
class LevelCodec(UnrotatedCodec):
    """Codes of ``bits`` bits each, packed without a gap, that stand for levels of a table."""

    @abstractmethod
    def choose(self, rows: Rows, bits: int) -> tuple[Tensor, Tensor]:
        """Return the codes, integers (K, 1024), and the scales, float32 (K,)."""

    @abstractmethod
    def levels(self, bits: int) -> Tensor:
        """Return the level of each code, float32 (2^bits,): finite, at most 448, and exact."""

    def block_bytes(self, bits: int) -> int:
        """Return the bytes that the codes of one block take at ``bits`` bits."""
        return PLANE_BYTES * bits

    def encode_rows(self, rows: Rows, bits: int) -> tuple[Tensor, Tensor]:
        """Return the codes, uint8 (K, 128 bits), and the scales, float32 (K,)."""
        codes_KB, scales_K = self.choose(rows, bits)
        return pack_codes(codes_KB, bits), scales_K

    def decode_rows(self, codes: Tensor, bits: int) -> Tensor:
        """Return the levels of codes, uint8 (K, 128 bits), as float32 (K, 1024)."""
        return self.levels(bits).index_select(0, unpack_codes(codes, bits).view(-1)).view(-1, BLOCK)


@dataclass(frozen=True)
class Sign(LevelCodec):
    """Scaled sign: mean |x| of the block with the sign of x. ``unbiased`` changes nothing: it is
    always biased.

    Karimireddy et al., EF-SignSGD, ICML 2019 (arXiv 1901.09847); block by block: Zheng et al. 2019
    (arXiv 1905.10936). Both carry a residual; without one, sign descent need not converge.
    """

    bits: int = 1

    id: ClassVar[int] = 6
    name: ClassVar[str] = "sign"
    widths: ClassVar[tuple[int, ...]] = (1,)

    def choose(self, rows: Rows, bits: int) -> tuple[Tensor, Tensor]:
        """Return 1 (K, 1024) where x >= 0, and |x|_1 / d (K,), the filling not counted."""
        return rows.values_KB >= 0, row_sums(rows.unit().abs_()) / rows.counts_K * rows.peaks_K

    def levels(self, bits: int) -> Tensor:
        """Return what 0 and 1 stand for, float32 (2,)."""
        return torch.tensor([-1.0, 1.0])


@dataclass(frozen=True)
class Qsgd(LevelCodec):
    """QSGD: |x| / |block| rounded at random to one of s = 2^(bits - 1) - 1 levels above 0,
    unbiased, and a sign bit.

    Alistarh et al., NeurIPS 2017 (arXiv 1610.02132), with Euclidean norm and the block for the
    bucket. The paper then codes runs of zeros with Elias codes, whose length varies with the
    vector; here every code has ``bits`` bits. ``unbiased`` changes nothing: it is always unbiased.
    """

    id: ClassVar[int] = 7
    name: ClassVar[str] = "qsgd"
    widths: ClassVar[tuple[int, ...]] = (2, 3, 4, 5, 6, 7, 8)

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


@dataclass(frozen=True)
class Ternary(UnrotatedCodec):
    """TernGrad: the sign of x times the block's largest magnitude with the chance |x| / max |x|,
    else 0; unbiased.

    Wen et al., NeurIPS 2017 (arXiv 1705.07878), with the block for the layer and without their
    clipping. Five trits travel in a byte: 1.602 bits per parameter, which ``bits`` rounds up.
    ``unbiased`` changes nothing.
    """

    bits: int = 2

    id: ClassVar[int] = 8
    name: ClassVar[str] = "ternary"
    widths: ClassVar[tuple[int, ...]] = (2,)

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


@dataclass(frozen=True)
class Float8(LevelCodec):
    """Eight-bit floats (e4m3: 4 bits of exponent, 3 of mantissa) under a scale that maps the
    block's largest to 448.

    Micikevicius et al. 2022 (arXiv 2209.05433). Rounds to nearest, ties to even. ``unbiased``
    changes nothing.
    """

    bits: int = 8

    id: ClassVar[int] = 10
    name: ClassVar[str] = "float8"
    widths: ClassVar[tuple[int, ...]] = (8,)

    def choose(self, rows: Rows, bits: int) -> tuple[Tensor, Tensor]:
        """Return the bytes (K, 1024) and max |x| / 448 (K,)."""
        top = torch.tensor(FLOAT8_TOP)
        return float8_codes(rows.unit().mul_(top)), rows.peaks_K / top

    def levels(self, bits: int) -> Tensor:
        """Return the number that each byte stands for, float32 (256,)."""
        return float8_levels()

    def are_sound(self, codes: Bytes, bits: int) -> bool:
        """Tell whether no byte stands for NaN."""
        return not bool(((codes & 0x7F) == 0x7F).any())


def float8_codes(values: Tensor) -> Tensor:
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
def float8_levels() -> Tensor:
    """Return the number of each e4m3 code, float32 (256,); 0 for the two codes of NaN, which are
    refused before."""
    half = [code * 2.0**-9 if code < 8 else (8 + code % 8) * 2.0 ** (code // 8 - 10) for code in range(127)] + [0.0]
    return torch.tensor(half + [0.0 - level for level in half])


@dataclass(frozen=True)
class Int8(LevelCodec):
    """Eight-bit integers: x / max |x| of the block, rounded to the nearest of -127 to 127 parts.

    Dettmers et al., 8-bit Optimizers via Block-wise Quantization, ICLR 2022 (arXiv 2110.02861),
    with linear levels instead of their dynamic ones. ``unbiased`` changes nothing.
    """

    bits: int = 8

    id: ClassVar[int] = 11
    name: ClassVar[str] = "int8"
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
