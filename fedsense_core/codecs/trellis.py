"""The trellis codec: EDEN's rotation and scale, with codes chosen together along a block instead of
one by one.

    state_t = last L bits of c_1 ... c_t, around the circle        q_t = value of state_t
    codes: the path through the trellis that minimises sum (z_t - q_t)^2        (Viterbi)

Each number is coded in b bits, but what a code stands for depends on the L - b bits before it, so
that the values can lie as dense as L bits allow. Decoding is a look-up in a table of 2^L values. It
comes closer to the limit 2^-2b than any code that treats numbers one by one (Marcellin and Fischer
1990; bit-shift trellis with a look-up table: QTIP, arXiv 2406.11235; docs/method.md, section 5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedsense_core.codecs.block_format import CHUNK_BLOCKS, BlockCodec, Run
from fedsense_core.codecs.kernels import launch
from fedsense_core.codecs.packing import pack_codes, unpack_codes
from fedsense_core.codecs.rotation import BLOCK, rotate, unrotate
from fedsense_core.codecs.trellis_codebooks import STATE_BITS, TRELLIS_BITS, TrellisCodebook, trellis_codebook
from fedsense_core.codecs.viterbi import MAX_CHOICES, best_states

IDS = {8: (3, 13), 10: (4, 14), 12: (5, 15)}
"""Numbers in a frame by state bits, without and with water-filling."""
DISTORTION = {
    8: (1.0, 0.2783, 0.0756, 0.0204, 0.0056),
    10: (1.0, 0.2722, 0.0726, 0.0191, 0.0051),
    12: (1.0, 0.2685, 0.0703, 0.0183, 0.0048),
}
"""Measured normalised squared error by state bits, then by bits
(``docs/experiments/train_trellis.py``)."""


@dataclass(frozen=True)
class Trellis(BlockCodec):
    """1 to 4 bits per parameter through 2^``state_bits`` states."""

    waterfill: bool = False
    """Deal the same number of bits out anew over the tensors of each vector, where they remove the
    most error."""
    state_bits: int = 8
    """L: more states, less error, and a search whose time doubles with each."""

    name: ClassVar[str] = "trellis"
    ids: ClassVar[tuple[int, ...]] = tuple(id for pair in IDS.values() for id in pair)
    widths: ClassVar[tuple[int, ...]] = TRELLIS_BITS
    has_unbiased_scale: ClassVar[bool] = True
    slow_without_numba: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.state_bits not in IDS:
            raise ValueError(f"codec 'trellis' has no {self.state_bits} state bits: use {', '.join(map(str, IDS))}")

    @property
    def id(self) -> int:
        """The number that stands for this form of the codec in a frame."""
        return IDS[self.state_bits][self.waterfill]

    @classmethod
    def forms(cls) -> Iterator[Trellis]:
        """Yield every form of the codec that a frame can name."""
        for waterfill in (False, True):
            yield from (cls(bits, waterfill, states) for states in STATE_BITS for bits in cls.widths)

    def distortion(self) -> tuple[float, ...]:
        """Return the normalised squared error at 0 to 4 bits on normal numbers."""
        return DISTORTION[self.state_bits]

    def encode_run(self, vector: Tensor, run: Run, *, unbiased: bool) -> None:
        """Write the codes (K, 128 bits) and the scales S (K,) of the blocks of ``run``."""
        book = trellis_codebook(self.state_bits, run.bits).on(vector.device)
        if launch.can_run(vector):  # the same to the bit, in machine code
            launch.encode_trellis(vector, run, book, unbiased)
            return
        for chunk in run.chunks(blocks_at_once(book)):
            rotated = rotate(chunk.gather(vector), chunk.signs(run.seed, vector.device))
            states_KB = best_states(rotated.normal(), book.branches_CH)
            scales_K = rotated.scales(book.values(states_KB), unbiased=unbiased)
            run.write(chunk, pack_codes(states_KB & (2**run.bits - 1), run.bits), scales_K)

    def decode_run(self, run: Run, out: Tensor) -> None:
        """Write what the codes and scales of ``run`` stand for to where it lies in ``out`` (N,)."""
        book = trellis_codebook(self.state_bits, run.bits).on(out.device)
        if launch.can_run(out):
            launch.decode_trellis(run, book, out)
            return
        for chunk in run.chunks():
            packed, scales_K = run.read(chunk, out.device)
            q_KB = book.values(windows(unpack_codes(packed, run.bits), run.bits, self.state_bits))
            chunk.scatter(unrotate(q_KB, scales_K, chunk.signs(run.seed, out.device)), out)


def windows(codes_KB: Tensor, bits: int, state_bits: int) -> Tensor:
    """Return the state after each code (K, 1024), int32: the last ``state_bits`` bits of the
    circular code string."""
    states_KB = codes_KB.clone()
    for back in range(1, -(-state_bits // bits)):
        states_KB |= codes_KB.roll(back, 1) << (bits * back)
    return torch.bitwise_and(states_KB, 2**state_bits - 1)


def blocks_at_once(book: TrellisCodebook) -> int:
    """Return how many blocks are searched together: a GPU has the memory for sixteen times as
    many."""
    room = MAX_CHOICES * (16 if book.values_S.device.type == "cuda" else 1)
    return max(1, min(room // (BLOCK * book.branches_CH.shape[1]), CHUNK_BLOCKS * 16))
