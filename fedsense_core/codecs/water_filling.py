"""Bits for each tensor by reverse water-filling: more where the energy is, none where it drowns in
the error anyway.

For independent Gaussian parts the least squared error under a budget gives each part the rate that
brings its error down to one common level, and none to parts below the level (Cover and Thomas,
Elements of Information Theory, section 10.3.3). Rates are whole numbers here, so the bits are dealt
out one by one, each to the tensor where it removes the most error.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from fedsense_core.codecs.rotation import row_sums
from fedsense_core.errors import FrameError

if TYPE_CHECKING:  # which deals bits out by this module
    from fedsense_core.codecs.block_format import BlockCodec, BlockLayout
    from fedsense_core.codecs.codec import Bytes


def energies(vector: Tensor, layout: BlockLayout) -> list[float]:
    """Return the squared norm of every tensor of ``vector`` (N,), 0 for those that are not
    coded."""
    found = [0.0] * layout.tensors
    for chunk in layout.chunks():
        rows_KB = chunk.gather(vector).cpu().double()
        sums_K = row_sums(rows_KB * rows_KB)  # one order of additions: the bits dealt out are the same everywhere
        for segment in chunk.segments:
            found[segment.tensor] += math.fsum(sums_K[segment.rows].tolist())
    return found


def allocate(
    energies_L: Sequence[float], layout: BlockLayout, budget: int, distortion: Sequence[float]
) -> tuple[int, ...]:
    """Return the bits of each tensor that together take at most ``budget`` bits times all blocks.

    ``distortion[b]`` is the normalised error of the codec at b bits; its steps must shrink, then
    dealing bits out greedily is optimal up to the last tensor that no longer fits.
    """
    bits, left = [0] * layout.tensors, budget * layout.blocks
    sizes = {coded.tensor: coded.blocks.stop - coded.blocks.start for coded in layout.coded}

    def gain(tensor: int) -> float:
        step = distortion[bits[tensor]] - distortion[bits[tensor] + 1]
        return float(energies_L[tensor] * step / sizes[tensor])

    heap = [(-gain(tensor), tensor) for tensor in sizes]
    heapq.heapify(heap)
    while heap:
        _, tensor = heapq.heappop(heap)
        if sizes[tensor] > left:
            continue  # a smaller one may still fit
        left -= sizes[tensor]
        bits[tensor] += 1
        if bits[tensor] + 1 < len(distortion):
            heapq.heappush(heap, (-gain(tensor), tensor))
    return tuple(bits)


def check_bits(bits_L: Bytes, codes: Bytes, layout: BlockLayout, codec: BlockCodec) -> None:
    """Raise FrameError for bits of tensors, or codes under them, that no encoder can have
    written."""
    if len(bits_L) and int(bits_L.max()) >= len(codec.distortion()):
        raise FrameError(f"the payload gives a tensor {int(bits_L.max())} bits, more than this codec has")
    if np.delete(bits_L, [coded.tensor for coded in layout.coded]).any():
        raise FrameError("the payload gives bits to a tensor that is not coded")
    stretches = layout.stretches(bits_L.tolist())
    needed = sum((blocks.stop - blocks.start) * codec.block_bytes(bits) for blocks, bits in stretches if bits)
    if needed > len(codes):
        raise FrameError(f"the payload's bits need {needed} bytes of codes, there are {len(codes)}")
    if codes[needed:].any():
        raise FrameError("the payload's filling after its codes is not zero")
