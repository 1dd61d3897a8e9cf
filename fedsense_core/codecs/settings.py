"""The settings of a codec, without torch: each is a field of the codecs that have it."""

from __future__ import annotations

from typing import Literal

from fedsense_core.section import Section

CodecName = Literal["none", "bf16", "eden", "trellis", "sign", "qsgd", "ternary", "topk", "float8", "int8"]
"""Each is the module of this name, and the class in it that names itself so."""


class CodecSection(Section):
    """How a vector is coded."""

    codec: CodecName = "eden"
    """Codec name."""
    bits: Literal[1, 2, 3, 4, 5, 6, 7, 8] = 1
    """Bits per parameter (eden, topk; trellis up to 4, qsgd from 2)."""
    state_bits: Literal[8, 10, 12] = 8
    """trellis: bits of state; each one more halves the speed of encoding."""
    waterfill: bool = False
    """Deal the bits out over the tensors of each vector, where they remove the most error (eden,
    trellis)."""
