"""Codes of b bits packed without a gap: every eight codes become b bytes.

The first code takes the highest bits of the first byte. A row of 1024 codes so becomes one string
of 1024 b bits, which is also the bit string over which a trellis slides its window.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedsense_core.codecs.rotation import BLOCK

GROUP = 8
"""Codes that share b whole bytes."""
PLANE_BYTES = BLOCK // GROUP
"""Bytes that one bit of every code of a block takes."""


def pack_codes(codes_KB: Tensor, bits: int) -> Tensor:
    """Pack (K, 1024) integer codes below 2^bits into (K, 128 bits) uint8, on the device where they
    are."""
    groups = codes_KB.view(-1, PLANE_BYTES, GROUP).to(torch.int64)
    word = groups[:, :, 0]
    for i in range(1, GROUP):
        word = (word << bits) | groups[:, :, i]
    packed = torch.empty(len(groups), PLANE_BYTES, bits, dtype=torch.uint8, device=codes_KB.device)
    for i in range(bits):
        packed[:, :, i] = (word >> (8 * (bits - 1 - i))) & 255
    return packed.view(-1, PLANE_BYTES * bits)


def unpack_codes(packed: Tensor, bits: int) -> Tensor:
    """Return the codes (K, 1024), int32, that `pack_codes` put into ``packed`` (K, 128 bits)
    uint8."""
    octets = packed.view(-1, PLANE_BYTES, bits).to(torch.int64)
    word = octets[:, :, 0]
    for i in range(1, bits):
        word = (word << 8) | octets[:, :, i]
    codes = torch.empty(len(octets), PLANE_BYTES, GROUP, dtype=torch.int32, device=packed.device)
    for i in range(GROUP):
        codes[:, :, i] = (word >> (bits * (GROUP - 1 - i))) & ((1 << bits) - 1)
    return codes.view(-1, BLOCK)
