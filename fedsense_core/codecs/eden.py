"""EDEN: rotate each block, send the nearest level of a normal codebook for every number and one
scale for the block.

    r = H D_s x / sqrt(B)      z = r sqrt(B) / |r|       j = nearest level of z, b bits
    S = <q, r> / |q|^2         q the levels of j; |r|^2 / <q, r> where the scale is to be unbiased
    decode: D_s H (S q) / sqrt(B)

Vargaftik et al., EDEN: Communication-Efficient and Robust Distributed Mean Estimation, ICML 2022
(docs/method.md, section 5). What is not here: the rotation (``rotation.py``), and how a vector is
cut into blocks and a payload filled (``block_format.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from fedsense_core.codecs.block_format import BlockCodec, Run
from fedsense_core.codecs.kernels import launch
from fedsense_core.codecs.packing import pack_codes, unpack_codes
from fedsense_core.codecs.rotation import rotate, unrotate

CELLS_PER_UNIT = 128
"""Search cells in a unit interval: a cell is narrower than the smallest distance of two borders
(.0169 at 8 bits)."""
SEARCH_LIMIT = 8
"""Numbers beyond +-8 share the outermost search cell: no border lies out there."""
DISTORTION = (1.0, 0.3634, 0.1175, 0.03454, 0.009497, 0.002505, 6.442e-4, 1.635e-4, 4.12e-5)
"""Least error of a scalar code on normal numbers (Max 1960), by bits."""


@dataclass(frozen=True)
class Eden(BlockCodec):
    """The nearest of 2^bits levels for every number: the best that a code without memory can do."""

    waterfill: bool = False
    """Deal the same number of bits out anew over the tensors of each vector, where they remove the
    most error."""

    name: ClassVar[str] = "eden"
    ids: ClassVar[tuple[int, ...]] = (2, 12)
    widths: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 5, 6, 7, 8)
    has_unbiased_scale: ClassVar[bool] = True

    @property
    def id(self) -> int:
        """The number that stands for this form of the codec in a frame."""
        return self.ids[self.waterfill]

    @classmethod
    def forms(cls) -> Iterator[Eden]:
        """Yield every form of the codec that a frame can name."""
        yield from (cls(bits, waterfill) for waterfill in (False, True) for bits in cls.widths)

    def distortion(self) -> tuple[float, ...]:
        """Return the normalised squared error at 0 to 8 bits on normal numbers."""
        return DISTORTION

    def encode_run(self, vector: Tensor, run: Run, *, unbiased: bool) -> None:
        """Write the codes (K, 128 bits) and the scales S (K,) of the blocks of ``run``."""
        book = codebook(run.bits).on(vector.device)
        if launch.can_run(vector):  # the same to the bit, in machine code
            launch.encode_eden(vector, run, book, unbiased)
            return
        for chunk in run.chunks():
            rotated = rotate(chunk.gather(vector), chunk.signs(run.seed, vector.device))
            codes_KB = book.nearest(rotated.normal())
            scales_K = rotated.scales(book.values(codes_KB), unbiased=unbiased)
            run.write(chunk, pack_codes(codes_KB, run.bits), scales_K)

    def decode_run(self, run: Run, out: Tensor) -> None:
        """Write what the codes and scales of ``run`` stand for to where it lies in ``out`` (N,)."""
        book = codebook(run.bits).on(out.device)
        if launch.can_run(out):
            launch.decode_eden(run, book, out)
            return
        for chunk in run.chunks():
            packed, scales_K = run.read(chunk, out.device)
            q_KB = book.values(unpack_codes(packed, run.bits))
            chunk.scatter(unrotate(q_KB, scales_K, chunk.signs(run.seed, out.device)), out)


@dataclass(frozen=True)
class Codebook:
    """The levels of one bit width with a look-up table that finds the nearest of them."""

    levels: Tensor
    """(2^b,) float32, ascending: code j stands for ``levels[j]``."""
    borders: Tensor
    """(2^b,) float32, ascending: border j lies between codes j and j + 1; the last one is
    infinite."""
    first_codes: Tensor
    """(cells,) int32: the number of borders in all earlier cells, the lower of at most two codes of
    a cell."""

    def on(self, device: torch.device) -> Codebook:
        """Return the codebook on ``device``."""
        if device == self.levels.device:
            return self
        return Codebook(self.levels.to(device), self.borders.to(device), self.first_codes.to(device))

    def nearest(self, values: Tensor) -> Tensor:
        """Return the code of the nearest level for each of ``values``, float32 of any shape, as
        int32.

        Equals ``searchsorted(borders, values)`` exactly, in a fifth of its time: rounding in
        `cell_of` cannot reorder numbers, so only a border of the value's own cell is left to
        compare with, and a cell holds at most one.
        """
        flat = values.reshape(-1)
        lower = self.first_codes.index_select(0, cell_of(flat))
        return lower.add_(flat > self.borders.index_select(0, lower)).view(values.shape)

    def values(self, codes: Tensor) -> Tensor:
        """Return the level of each of ``codes``, int32 of any shape, as float32."""
        return self.levels.index_select(0, codes.view(-1)).view(codes.shape)


def cell_of(values: Tensor) -> Tensor:
    """Return the search cell of each value (M,) float32 as int32 (M,)."""
    last = 2 * SEARCH_LIMIT * CELLS_PER_UNIT - 1
    return values.mul(CELLS_PER_UNIT).add_(SEARCH_LIMIT * CELLS_PER_UNIT).clamp_(0, last).to(torch.int32)


@cache
def codebook(bits: int) -> Codebook:
    """Return the codebook of ``bits``, one of ``HALF_CODEBOOKS``."""
    half = torch.tensor(HALF_CODEBOOKS[bits], dtype=torch.float32)
    levels = torch.cat([-half.flip(0), half])
    borders = torch.cat([(levels[1:] + levels[:-1]) / 2, levels.new_tensor([torch.inf])])
    cells = torch.arange(2 * SEARCH_LIMIT * CELLS_PER_UNIT, dtype=torch.int32)
    return Codebook(levels, borders, torch.searchsorted(cell_of(borders[:-1]), cells, out_int32=True))


# A codebook is symmetric about zero, so only its positive half stands here. Every level is the mean
# of its own cell and every cell border the midpoint of two levels (Lloyd 1982, Max 1960): no other
# fixed set of levels has a smaller mean squared error on normal numbers. Constants rather than
# computed at import, because both sides must hold the same bits, and `exp` and `erf` differ between
# maths libraries.
# fmt: off
FIVE_BITS = (
    0.0658897, 0.1980518, 0.3313783, 0.4666995, 0.6049336, 0.7471357, 0.8945651, 1.0487833,
    1.2118044, 1.3863403, 1.5762281, 1.7872332, 2.0287284, 2.3177394, 2.6911196, 3.2607325,
)
SIX_BITS = (
    0.0334095, 0.1002783, 0.1672969, 0.2345670, 0.3021928, 0.3702826, 0.4389497, 0.5083138,
    0.5785030, 0.6496556, 0.7219219, 0.7954677, 0.8704766, 0.9471549, 1.0257363, 1.1064882,
    1.1897201, 1.2757945, 1.3651410, 1.4582764, 1.5558312, 1.6585889, 1.7675419, 1.8839772,
    2.0096110, 2.1468102, 2.2989812, 2.4713048, 2.6722738, 2.9174068, 3.2404371, 3.7441013,
)
SEVEN_BITS = (
    0.0168282, 0.0504909, 0.0841726, 0.1178863, 0.1516446, 0.1854607, 0.2193476, 0.2533187,
    0.2873876, 0.3215679, 0.3558740, 0.3903203, 0.4249216, 0.4596934, 0.4946515, 0.5298122,
    0.5651927, 0.6008105, 0.6366843, 0.6728333, 0.7092778, 0.7460391, 0.7831396, 0.8206030,
    0.8584542, 0.8967200, 0.9354285, 0.9746100, 1.0142967, 1.0545232, 1.0953267, 1.1367474,
    1.1788286, 1.2216174, 1.2651651, 1.3095276, 1.3547663, 1.4009486, 1.4481489, 1.4964500,
    1.5459437, 1.5967331, 1.6489339, 1.7026770, 1.7581114, 1.8154077, 1.8747625, 1.9364046,
    2.0006018, 2.0676715, 2.1379934, 2.2120275, 2.2903392, 2.3736343, 2.4628114, 2.5590405,
    2.6638865, 2.7795143, 2.9090471, 3.0572462, 3.2319332, 3.4474303, 3.7349366, 4.1896942,
)
EIGHT_BITS = (
    0.0084462, 0.0253394, 0.0422350, 0.0591346, 0.0760399, 0.0929524, 0.1098737, 0.1268056,
    0.1437496, 0.1607073, 0.1776805, 0.1946707, 0.2116798, 0.2287092, 0.2457608, 0.2628362,
    0.2799372, 0.2970656, 0.3142230, 0.3314114, 0.3486324, 0.3658880, 0.3831800, 0.4005102,
    0.4178806, 0.4352932, 0.4527499, 0.4702527, 0.4878036, 0.5054048, 0.5230583, 0.5407663,
    0.5585310, 0.5763547, 0.5942396, 0.6121881, 0.6302026, 0.6482855, 0.6664394, 0.6846668,
    0.7029703, 0.7213526, 0.7398166, 0.7583650, 0.7770008, 0.7957270, 0.8145467, 0.8334630,
    0.8524793, 0.8715989, 0.8908253, 0.9101621, 0.9296130, 0.9491818, 0.9688726, 0.9886894,
    1.0086364, 1.0287182, 1.0489392, 1.0693042, 1.0898181, 1.1104860, 1.1313133, 1.1523054,
    1.1734682, 1.1948076, 1.2163300, 1.2380418, 1.2599499, 1.2820615, 1.3043840, 1.3269253,
    1.3496937, 1.3726976, 1.3959463, 1.4194493, 1.4432166, 1.4672587, 1.4915870, 1.5162131,
    1.5411497, 1.5664098, 1.5920076, 1.6179578, 1.6442765, 1.6709804, 1.6980875, 1.7256170,
    1.7535894, 1.7820269, 1.8109531, 1.8403933, 1.8703751, 1.9009281, 1.9320842, 1.9638784,
    1.9963485, 2.0295357, 2.0634852, 2.0982465, 2.1338741, 2.1704282, 2.2079755, 2.2465899,
    2.2863545, 2.3273619, 2.3697171, 2.4135387, 2.4589621, 2.5061426, 2.5552594, 2.6065215,
    2.6601740, 2.7165076, 2.7758707, 2.8386858, 2.9054729, 2.9768821, 3.0537420, 3.1371325,
    3.2285002, 3.3298485, 3.4440717, 3.5755880, 3.7316663, 3.9256378, 4.1865954, 4.6035356,
)
# fmt: on

HALF_CODEBOOKS: dict[int, tuple[float, ...]] = {
    1: (0.7978846,),
    2: (0.4527800, 1.5104176),
    3: (0.2450942, 0.7560053, 1.3439093, 2.1519457),
    4: (0.1283950, 0.3880483, 0.6567591, 0.9423405, 1.2562312, 1.6180464, 2.0690172, 2.7325896),
    5: FIVE_BITS,
    6: SIX_BITS,
    7: SEVEN_BITS,
    8: EIGHT_BITS,
}
"""Positive levels by bits. Changing one digit is a new payload format."""
