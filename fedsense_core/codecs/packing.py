"""Codes of b bits packed without a gap: bit plane after bit plane within each block.

A block of 1024 codes takes b planes of 128 bytes, lowest bit first; in a plane, code i is bit i mod 8 of byte i // 8.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsense_core.codecs.hadamard import BLOCK

PLANE_BYTES = BLOCK // 8
"""Bytes that one bit of every code of a block takes."""


def pack_codes(codes_KB: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Pack (K, 1024) codes below 2^bits into (K, 128 bits) bytes."""
    planes = [np.packbits(codes_KB & np.uint8(1 << p), axis=1, bitorder="little") for p in range(bits)]
    return np.concatenate(planes, axis=1)


def unpack_codes(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return the (K, 1024) codes that `pack_codes` put into ``packed`` (K, 128 bits)."""
    codes_KB = np.unpackbits(packed[:, :PLANE_BYTES], axis=1, bitorder="little")
    for p in range(1, bits):
        plane = np.unpackbits(packed[:, p * PLANE_BYTES : (p + 1) * PLANE_BYTES], axis=1, bitorder="little")
        codes_KB |= plane << np.uint8(p)
    return codes_KB
