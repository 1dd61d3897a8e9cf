"""EDEN: rotate each block, send the nearest level of a normal codebook for every number and one
scale for the block.

Vargaftik et al., EDEN: Communication-Efficient and Robust Distributed Mean Estimation, ICML 2022
(DESIGN, section 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedsense_core.codecs import compiled
from fedsense_core.codecs.blockwise import BlockwiseCodec, Bytes
from fedsense_core.codecs.codebooks import HALF_CODEBOOKS, codebook
from fedsense_core.codecs.hadamard import BLOCK
from fedsense_core.codecs.layout import BlockLayout, Run
from fedsense_core.codecs.packing import PLANE_BYTES, pack_codes, unpack_codes
from fedsense_core.codecs.rotation import RotatedRows, unrotate

DISTORTION = (1.0, 0.3634, 0.1175, 0.03454, 0.009497, 0.002505, 6.442e-4, 1.635e-4, 4.12e-5)
"""Least error of a scalar code on normal numbers (Max 1960), by bits."""


@dataclass(frozen=True)
class Eden(BlockwiseCodec):
    """The nearest of 2^bits levels for every number: the best that a code without memory can do."""

    name: ClassVar[str] = "eden"

    def __post_init__(self) -> None:
        if self.bits not in HALF_CODEBOOKS:
            raise ValueError(f"eden has 1 to 8 bits, not {self.bits}")

    @property
    def id(self) -> int:
        """The number that stands for the codec in a frame."""
        return 12 if self.waterfill else 2

    def block_bytes(self, bits: int) -> int:
        """Return the bytes that the codes of one block take at ``bits`` bits."""
        return PLANE_BYTES * bits

    def distortion(self) -> tuple[float, ...]:
        """Return the normalised squared error at 0 to 8 bits on normal numbers."""
        return DISTORTION

    def encode_run(
        self, source: Tensor, layout: BlockLayout, run: Run, seed: int, unbiased: bool, codes: Bytes, scales_K: Tensor
    ) -> None:
        """Write the codes (K, 128 bits) and the scales S (K,) of the blocks of ``run``."""
        book = codebook(run.bits)
        if compiled.can_encode(source):
            compiled.encode_eden(source, layout.places(run.blocks, seed), book, unbiased, codes, scales_K)
            return
        for chunk in layout.chunks(run.blocks):
            rotated = RotatedRows.of(chunk, source, seed)
            here = book.on(source.device)
            codes_KB = here.nearest(rotated.normal().view(-1))
            scales = rotated.scales(here.values(codes_KB).view(-1, BLOCK), unbiased=unbiased)
            part = chunk.within(run)
            codes[part] = pack_codes(codes_KB, run.bits).cpu().numpy()
            scales_K[part] = scales.cpu()

    def decode_run(self, codes: Bytes, scales_K: Tensor, layout: BlockLayout, run: Run, seed: int, out: Tensor) -> None:
        """Write what codes (K, 128 bits) and scales (K,) stand for to the places of the run in
        ``out`` (N,)."""
        book = codebook(run.bits)
        if compiled.can_decode(out):
            compiled.decode_eden(codes, scales_K, layout.places(run.blocks, seed), book, out)
            return
        for chunk in layout.chunks(run.blocks):
            part = chunk.within(run)
            codes_KB = unpack_codes(torch.from_numpy(codes[part].copy()).to(out.device), run.bits)
            levels_KB = book.on(out.device).values(codes_KB.view(-1)).view(-1, BLOCK)
            unrotate(chunk, levels_KB, scales_K[part].to(out.device), seed, out)
