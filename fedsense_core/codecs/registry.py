"""Codecs by name (from a configuration) and by number (from a frame)."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from fedsense_core.codecs.codebooks import HALF_CODEBOOKS
from fedsense_core.codecs.eden import Eden
from fedsense_core.codecs.plain import Bfloat16, Float32
from fedsense_core.errors import ConfigError, FrameError, nearest
from fedsense_core.tensors import TensorTable


class Codec(Protocol):
    """Turns a flat vector into bytes and back. Both directions are functions of their arguments alone."""

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
        """Encode ``vector`` (N,) float32 or float64; raise ValueError if it is not finite or of another shape."""

    def decode(self, payload: bytes | memoryview, table: TensorTable, seed: int) -> Tensor:
        """Decode into a new (N,) float32 vector, bit for bit the same on every CPU; raise FrameError if unsound."""


CODECS: dict[str, tuple[Codec, ...]] = {
    Float32.name: (Float32(),),
    Bfloat16.name: (Bfloat16(),),
    Eden.name: tuple(Eden(bits) for bits in HALF_CODEBOOKS),
}
"""Every codec by name; several where the number of bits can be chosen."""


def get_codec(name: str, bits: int) -> Codec:
    """Return the codec called ``name`` at ``bits`` bits, which count only where there is a choice; or ConfigError."""
    if name not in CODECS:
        raise ConfigError(f"codec {name!r} is unknown: choose one of {', '.join(CODECS)}.{nearest(name, list(CODECS))}")
    variants = {codec.bits: codec for codec in CODECS[name]}
    if len(variants) == 1:
        return CODECS[name][0]
    if bits not in variants:
        raise ConfigError(f"codec {name!r} has no {bits}-bit form: set bits to one of {', '.join(map(str, variants))}")
    return variants[bits]


def codec_by_id(id: int, bits: int) -> Codec:
    """Return the codec that a frame names; raise FrameError when there is none."""
    for variants in CODECS.values():
        for codec in variants:
            if (codec.id, codec.bits) == (id, bits):
                return codec
    raise FrameError(f"the frame names codec {id} at {bits} bits, which this version of FedSense does not know")
