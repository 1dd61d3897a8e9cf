"""The trellis codec: EDEN's rotation and scale, with codes chosen together along a block instead of
one by one.

Each number is coded in b bits, but what a code stands for depends on the L - b bits before it, so
that the values can lie as dense as L bits allow and the Viterbi search picks the path that fits
best. Decoding is a look-up in a table of 2^L values. It comes closer to the limit 2^-2b than any
code that treats numbers one by one (Marcellin and Fischer 1990; bit-shift trellis with a look-up
table: QTIP, arXiv 2406.11235; DESIGN, section 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedsense_core.codecs import compiled
from fedsense_core.codecs.blockwise import BlockwiseCodec, Bytes
from fedsense_core.codecs.hadamard import BLOCK
from fedsense_core.codecs.layout import CHUNK_BLOCKS, BlockLayout, Run
from fedsense_core.codecs.packing import PLANE_BYTES, pack_codes, unpack_codes
from fedsense_core.codecs.rotation import RotatedRows, unrotate
from fedsense_core.codecs.trellis_books import HALF_BOOKS, TrellisBook, trellis_book
from fedsense_core.codecs.viterbi import MAX_CHOICES, best_states

IDS = {8: (3, 13), 10: (4, 14), 12: (5, 15)}
"""Codec numbers in a frame by state bits, without and with water-filling: both are part of the
format."""
DISTORTION = {
    8: (1.0, 0.2783, 0.0756, 0.0204, 0.0056),
    10: (1.0, 0.2722, 0.0726, 0.0191, 0.0051),
    12: (1.0, 0.2685, 0.0703, 0.0183, 0.0048),
}
"""Measured normalised squared error by state bits, then by bits
(``docs/experiments/train_trellis.py``)."""


@dataclass(frozen=True)
class Trellis(BlockwiseCodec):
    """1 to 4 bits per parameter through 2^``state_bits`` states."""

    state_bits: int = 8
    """L: more states, less error, and a search whose time doubles with each."""

    name: ClassVar[str] = "trellis"

    def __post_init__(self) -> None:
        if (self.state_bits, self.bits) not in HALF_BOOKS:
            raise ValueError(f"trellis has no table for {self.bits} bits and {self.state_bits} state bits")

    @property
    def id(self) -> int:
        """The number that stands for the codec in a frame."""
        return IDS[self.state_bits][self.waterfill]

    def block_bytes(self, bits: int) -> int:
        """Return the bytes that the codes of one block take at ``bits`` bits."""
        return PLANE_BYTES * bits

    def distortion(self) -> tuple[float, ...]:
        """Return the normalised squared error at 0 to 4 bits on normal numbers."""
        return DISTORTION[self.state_bits]

    def encode_run(
        self, source: Tensor, layout: BlockLayout, run: Run, seed: int, unbiased: bool, codes: Bytes, scales_K: Tensor
    ) -> None:
        """Write the codes (K, 128 bits) and the scales S (K,) of the blocks of ``run``."""
        book = trellis_book(self.state_bits, run.bits)
        if compiled.can_encode(source):
            compiled.encode_trellis(source, layout.places(run.blocks, seed), book, unbiased, codes, scales_K)
            return
        book = book.on(source.device)
        for chunk in layout.chunks(run.blocks, blocks_at_once(book)):
            rotated = RotatedRows.of(chunk, source, seed)
            states_KB = best_states(rotated.normal(), book.branches_CH)
            scales = rotated.scales(book.values(states_KB), unbiased=unbiased)
            part = chunk.within(run)
            codes[part] = pack_codes(states_KB & (2**run.bits - 1), run.bits).cpu().numpy()
            scales_K[part] = scales.cpu()

    def decode_run(self, codes: Bytes, scales_K: Tensor, layout: BlockLayout, run: Run, seed: int, out: Tensor) -> None:
        """Write what codes (K, 128 bits) and scales (K,) stand for to the places of the run in
        ``out`` (N,)."""
        book = trellis_book(self.state_bits, run.bits)
        if compiled.can_decode(out):
            compiled.decode_trellis(codes, scales_K, layout.places(run.blocks, seed), book, out)
            return
        book = book.on(out.device)
        for chunk in layout.chunks(run.blocks):
            part = chunk.within(run)
            codes_KB = unpack_codes(torch.from_numpy(codes[part].copy()).to(out.device), run.bits)
            values_KB = book.values(windows(codes_KB, run.bits, self.state_bits))
            unrotate(chunk, values_KB, scales_K[part].to(out.device), seed, out)


def windows(codes_KB: Tensor, bits: int, state_bits: int) -> Tensor:
    """Return the state after each code (K, 1024), int32: the last ``state_bits`` bits of the
    circular code string."""
    states_KB = codes_KB.clone()
    for back in range(1, -(-state_bits // bits)):
        states_KB |= codes_KB.roll(back, 1) << (bits * back)
    return torch.bitwise_and(states_KB, 2**state_bits - 1)


def blocks_at_once(book: TrellisBook) -> int:
    """Return how many blocks are searched together: a GPU has the memory for sixteen times as
    many."""
    room = MAX_CHOICES * (16 if book.values_S.device.type == "cuda" else 1)
    return max(1, min(room // (BLOCK * book.branches_CH.shape[1]), CHUNK_BLOCKS * 16))
