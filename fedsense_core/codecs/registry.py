"""Codecs by name (from a configuration) and by number (from a frame)."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from torch import Tensor

from fedsense_core.codecs.baselines import Float8, Int8, Qsgd, Sign, Ternary
from fedsense_core.codecs.codebooks import HALF_CODEBOOKS
from fedsense_core.codecs.eden import Eden
from fedsense_core.codecs.plain import Bfloat16, Float32
from fedsense_core.codecs.topk import TopK
from fedsense_core.codecs.trellis import Trellis
from fedsense_core.codecs.trellis_books import STATE_BITS, TRELLIS_BITS
from fedsense_core.config import CodecSection
from fedsense_core.errors import ConfigError, FrameError, nearest
from fedsense_core.tensors import TensorTable


class Codec(Protocol):
    """Turns a flat vector into bytes and back. Both directions are functions of their arguments
    alone."""

    @property
    def id(self) -> int:
        """The number that stands for the codec in a frame."""

    @property
    def name(self) -> str:
        """The name that stands for it in a configuration."""

    @property
    def bits(self) -> int:
        """Bits per parameter, scales not counted."""

    def payload_bytes(self, table: TensorTable) -> int:
        """Return the exact length of every payload for ``table``."""

    def encode(self, vector: Tensor, table: TensorTable, seed: int, *, unbiased: bool = False) -> bytes:
        """Encode ``vector`` (N,) float32 or float64; raise ValueError if it is not finite or of
        another shape."""

    def decode(self, payload: bytes | memoryview, table: TensorTable, seed: int, out: Tensor | None = None) -> Tensor:
        """Decode into ``out`` (N,) float32 or a new vector, with the same bits everywhere; raise
        FrameError if unsound."""


CODECS: dict[str, tuple[Codec, ...]] = {
    Float32.name: (Float32(),),
    Bfloat16.name: (Bfloat16(),),
    Eden.name: tuple(Eden(bits) for bits in HALF_CODEBOOKS),
    Trellis.name: tuple(Trellis(bits, state_bits=states) for states in STATE_BITS for bits in TRELLIS_BITS),
    Sign.name: (Sign(),),
    Qsgd.name: tuple(Qsgd(bits) for bits in Qsgd.widths),
    Ternary.name: (Ternary(),),
    TopK.name: tuple(TopK(bits) for bits in TopK.widths),
    Float8.name: (Float8(),),
    Int8.name: (Int8(),),
}
"""Every codec by name; several where the number of bits, or of state bits, can be chosen."""


WATERFILLED: tuple[Codec, ...] = tuple(
    replace(codec, waterfill=True)
    for name in (Eden.name, Trellis.name)
    for codec in CODECS[name]
    if isinstance(codec, Eden | Trellis)
)
"""The codecs that can deal their bits out over tensors, doing so."""


def get_codec(name: str, bits: int, state_bits: int = STATE_BITS[0], *, waterfill: bool = False) -> Codec:
    """Return the codec called ``name``; ``bits`` and ``state_bits`` count where there is a choice.

    Raises ConfigError for an unknown name, or bits or water-filling that the codec does not have.
    """
    if name not in CODECS:
        raise ConfigError(f"codec {name!r} is unknown: choose one of {', '.join(CODECS)}.{nearest(name, list(CODECS))}")
    if waterfill and name not in (Eden.name, Trellis.name):
        raise ConfigError(
            f"codec {name!r} gives every tensor the same bits: set waterfill to false, or use eden or trellis"
        )
    choice = WATERFILLED if waterfill else CODECS[name]
    named = [codec for codec in choice if codec.name == name]
    variants = {codec.bits: codec for codec in named if getattr(codec, "state_bits", state_bits) == state_bits}
    if not variants:
        raise ConfigError(f"codec {name!r} has no {state_bits} state bits: use {', '.join(map(str, STATE_BITS))}")
    if len(variants) == 1:
        return next(iter(variants.values()))
    if bits not in variants:
        raise ConfigError(f"codec {name!r} has no {bits}-bit form: set bits to one of {', '.join(map(str, variants))}")
    return variants[bits]


def codec_of(link: CodecSection) -> Codec:
    """Return the codec that one direction of a configuration asks for; or ConfigError."""
    return get_codec(link.codec, link.bits, link.state_bits, waterfill=link.waterfill)


def codec_by_id(id: int, bits: int) -> Codec:
    """Return the codec that a frame names; raise FrameError when there is none."""
    for variants in (*CODECS.values(), WATERFILLED):
        for codec in variants:
            if (codec.id, codec.bits) == (id, bits):
                return codec
    raise FrameError(f"the frame names codec {id} at {bits} bits, which this version of FedSense does not know")
