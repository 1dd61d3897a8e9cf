"""What every codec is, and how one is found: by its name in the settings, or by its id in a frame.

The codec ``qsgd`` is the class in ``qsgd.py`` with ``name = "qsgd"``. To add one, write its file
and enter its name in ``fedsense_core.codecs.settings.CodecName``: nothing else lists codecs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.codecs.settings import CodecName, CodecSection
from fedsense_core.errors import ConfigError, FrameError, nearest
from fedsense_core.registry import implementation
from fedsense_core.tensors import TensorTable

Bytes = NDArray[np.uint8]
PIECE = 2**18
"""Numbers worked on at once: 1 MiB in float32 fits a core's cache, and bounds memory whatever the
model's size."""


@dataclass(frozen=True)
class Codec(ABC):
    """Turns a flat vector into bytes and back. Both directions are functions of their arguments
    alone.

    A field is a setting of the same name; the class attributes are what the rest of FedSense asks
    about a codec.
    """

    bits: int
    """Bits per parameter, scales not counted."""

    name: ClassVar[str]
    """The name of the codec in the settings, and of its module."""
    ids: ClassVar[tuple[int, ...]]
    """The numbers that stand for the codec in a frame; none is ever given twice."""
    widths: ClassVar[tuple[int, ...]]
    """The bits per parameter that it has; where there is one alone, ``bits`` is no choice."""
    feedback_allowed: ClassVar[bool] = True
    """Whether what it loses may be carried over. Not where the error may exceed what is coded: the
    residual would then grow without end (Karimireddy et al. 2019)."""
    has_unbiased_scale: ClassVar[bool] = False
    """Whether ``unbiased`` changes anything: a second scale, for where nothing carries over what is
    lost."""
    slow_without_numba: ClassVar[bool] = False
    """Whether a run should be warned that numba is not installed."""

    def __post_init__(self) -> None:
        if self.bits not in self.widths:
            choice = ", ".join(map(str, self.widths))
            raise ValueError(f"codec {self.name!r} has no {self.bits}-bit form: set bits to one of {choice}")

    @property
    def id(self) -> int:
        """The number that stands for this form of the codec in a frame."""
        return self.ids[0]

    @property
    def waterfill(self) -> bool:
        """Whether the bits are dealt out over the tensors; a codec that can do so has the field."""
        return False

    @classmethod
    def forms(cls) -> Iterator[Codec]:
        """Yield every form of the codec that a frame can name."""
        yield from (cls(bits) for bits in cls.widths)

    @abstractmethod
    def payload_bytes(self, table: TensorTable) -> int:
        """Return the exact length of every payload for ``table``."""

    def scale_bytes(self, table: TensorTable) -> int:
        """Return how many bytes of a payload say how large the coded numbers are."""
        return 0

    @abstractmethod
    def encode(self, vector: Tensor, table: TensorTable, seed: int, *, unbiased: bool = False) -> bytes:
        """Encode ``vector`` (N,) float32 or float64, on any device, with the random choices of
        ``seed``.

        ``unbiased`` asks for a vector that is right on average over seeds; the default has the
        least squared error and needs error feedback. Raises ValueError for a wrong shape or dtype,
        and for numbers that are not finite or that the codec cannot hold.
        """

    @abstractmethod
    def decode(self, payload: bytes | memoryview, table: TensorTable, seed: int, out: Tensor | None = None) -> Tensor:
        """Decode into ``out`` (N,) float32 on any device, or a new vector on the CPU, and return
        it, with the same bits everywhere.

        Raises FrameError for bytes that no encoder can have written, before the vector is allocated
        or written.
        """


def codec_of(settings: CodecSection) -> Codec:
    """Return the codec that one direction of a configuration asks for; or ConfigError."""
    return _configured(settings.codec, settings.model_dump())


def get_codec(name: str, bits: int, state_bits: int = 8, *, waterfill: bool = False) -> Codec:
    """Return the codec called ``name``; a setting that it does not have, it ignores.

    Raises ConfigError for an unknown name, or bits or water-filling that the codec does not have.
    """
    return _configured(name, {"bits": bits, "state_bits": state_bits, "waterfill": waterfill})


def _configured(name: str, settings: dict[str, Any]) -> Codec:
    kind = codec_class(name)
    own = {field.name: settings[field.name] for field in fields(kind)}
    if settings["waterfill"] and "waterfill" not in own:
        raise ConfigError(
            f"codec {name!r} gives every tensor the same bits: set waterfill to false, or use eden or trellis"
        )
    if len(kind.widths) == 1:
        own["bits"] = kind.widths[0]
    try:
        return kind(**own)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def codec_class(name: str) -> type[Codec]:
    """Return the class of the codec called ``name``, with its traits; raise ConfigError if there is
    none."""
    names = get_args(CodecName)
    if name not in names:
        raise ConfigError(f"codec {name!r} is unknown: choose one of {', '.join(names)}.{nearest(name, list(names))}")
    return implementation("fedsense_core.codecs", name, Codec)


def every_codec() -> tuple[Codec, ...]:
    """Return every form of every codec."""
    return tuple(form for name in get_args(CodecName) for form in codec_class(name).forms())


@cache
def _forms_by_id() -> dict[tuple[int, int], Codec]:
    return {(codec.id, codec.bits): codec for codec in every_codec()}


def codec_by_id(id: int, bits: int) -> Codec:
    """Return the codec that a frame names; raise FrameError when there is none."""
    try:
        return _forms_by_id()[id, bits]
    except KeyError:
        raise FrameError(
            f"the frame names codec {id} at {bits} bits, which this version of FedSense does not know"
        ) from None


def checked_vector(vector: Tensor, table: TensorTable, largest: float) -> Tensor:
    """Return ``vector`` detached if it is float32 or float64, of the table's length, and nowhere
    beyond ``largest``.

    Raises ValueError for any other, naming the first tensor with NaN, infinity or too large a
    number.
    """
    if vector.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"a codec takes a float32 or float64 vector, not {vector.dtype}: convert it first")
    if vector.shape != (table.numel,):
        raise ValueError(f"the tensor table describes a vector of shape ({table.numel},), not {tuple(vector.shape)}")
    source = vector.detach()
    if not _within(source, largest):
        name = next(spec.name for spec, view in table.views(source) if not _within(view, largest))
        raise ValueError(f"tensor {name!r} holds NaN, infinity or a number beyond {largest:.3g}: training has diverged")
    return source


def _within(vector: Tensor, largest: float) -> bool:
    if not vector.numel():
        return True
    low, high = torch.aminmax(vector)  # NaN shows in both, and no mask as long as the vector is built
    return -largest <= float(low) and float(high) <= largest


def checked_payload(payload: bytes | memoryview, expected_bytes: int) -> Bytes:
    """Return ``payload`` as bytes without copying it; raise FrameError unless it has exactly the
    expected length."""
    view = np.frombuffer(payload, np.uint8)
    if view.size != expected_bytes:
        raise FrameError(f"the payload has {view.size} bytes, but this codec and tensor table need {expected_bytes}")
    return view


def checked_output(out: Tensor | None, table: TensorTable) -> Tensor:
    """Return ``out`` if a codec can decode into it, or a new float32 vector (N,) on the CPU if it
    is None.

    Raises ValueError for any other dtype, shape or memory order.
    """
    if out is None:
        return torch.empty(table.numel, dtype=torch.float32)
    if out.dtype != torch.float32 or out.shape != (table.numel,) or not out.is_contiguous():
        raise ValueError(
            f"a codec decodes into a contiguous float32 vector of {table.numel}, not {out.dtype} {out.shape}"
        )
    return out


def pieces(start: int, stop: int) -> Iterator[slice]:
    """Yield consecutive slices of at most ``PIECE`` elements that cover ``start`` to ``stop``."""
    for low in range(start, stop, PIECE):
        yield slice(low, min(low + PIECE, stop))
