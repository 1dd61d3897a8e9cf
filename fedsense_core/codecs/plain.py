"""Codecs without loss or almost: float32 as it is, and bfloat16."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.codecs.checks import checked_output, checked_payload, checked_vector
from fedsense_core.codecs.layout import pieces
from fedsense_core.errors import FrameError
from fedsense_core.tensors import TensorTable


@dataclass(frozen=True)
class Float32:
    """Send every number as little-endian float32: exact for float32 vectors."""

    id: ClassVar[int] = 0
    name: ClassVar[str] = "none"
    bits: ClassVar[int] = 32

    def payload_bytes(self, table: TensorTable) -> int:
        """Return the exact length of every payload for ``table``."""
        return 4 * table.numel

    def encode(self, vector: Tensor, table: TensorTable, seed: int, *, unbiased: bool = False) -> bytes:
        """Encode ``vector`` (N,) float32 or float64. ``seed`` and ``unbiased`` change nothing here.

        Raises ValueError for a wrong shape or dtype and for numbers that float32 cannot hold.
        """
        source = checked_vector(vector, table, torch.finfo(torch.float32).max)
        stream = BytesIO()
        for piece in pieces(0, table.numel):
            stream.write(source[piece].to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False).data)
        return stream.getvalue()

    def decode(self, payload: bytes | memoryview, table: TensorTable, seed: int, out: Tensor | None = None) -> Tensor:
        """Decode into ``out`` (N,) float32, or a new vector; raise FrameError for a wrong length or
        NaN or infinity."""
        words = checked_payload(payload, self.payload_bytes(table)).view("<u4")
        check_exponents(words, 0x7F800000)
        vector = checked_output(out, table)
        for piece in pieces(0, table.numel):
            vector[piece] = torch.from_numpy(words[piece].astype(np.uint32).view(np.float32))
        return vector


@dataclass(frozen=True)
class Bfloat16:
    """Send the upper half of every float32, rounded to nearest, ties to even."""

    id: ClassVar[int] = 1
    name: ClassVar[str] = "bf16"
    bits: ClassVar[int] = 16

    def payload_bytes(self, table: TensorTable) -> int:
        """Return the exact length of every payload for ``table``."""
        return 2 * table.numel

    def encode(self, vector: Tensor, table: TensorTable, seed: int, *, unbiased: bool = False) -> bytes:
        """Encode ``vector`` (N,) float32 or float64. ``seed`` and ``unbiased`` change nothing here.

        Raises ValueError for a wrong shape or dtype and for numbers that bfloat16 cannot hold.
        """
        source = checked_vector(vector, table, torch.finfo(torch.bfloat16).max)
        stream = BytesIO()
        for piece in pieces(0, table.numel):
            stream.write(upper_half(source[piece].to("cpu", torch.float32).contiguous().numpy()).data)
        return stream.getvalue()

    def decode(self, payload: bytes | memoryview, table: TensorTable, seed: int, out: Tensor | None = None) -> Tensor:
        """Decode into ``out`` (N,) float32, or a new vector; raise FrameError for a wrong length or
        NaN or infinity."""
        words = checked_payload(payload, self.payload_bytes(table)).view("<u2")
        check_exponents(words, 0x7F80)
        vector = checked_output(out, table)
        for piece in pieces(0, table.numel):
            vector[piece] = torch.from_numpy((words[piece].astype(np.uint32) << np.uint32(16)).view(np.float32))
        return vector


def upper_half(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return finite ``values`` as little-endian bfloat16, by integer arithmetic: no CPU's rounding
    mode matters."""
    words = values.view(np.uint32)
    # Adding just under half of the kept unit, plus one where the kept part is odd, carries exactly
    # when rounding up.
    rounded = words + (np.uint32(0x7FFF) + ((words >> np.uint32(16)) & np.uint32(1)))
    return (rounded >> np.uint32(16)).astype("<u2")


def check_exponents(words: NDArray[np.unsignedinteger[Any]], full: int) -> None:
    """Raise FrameError if any of ``words`` (N,) has every bit of ``full``, the exponent, set: NaN
    or infinity."""
    for piece in pieces(0, len(words)):
        if bool(((words[piece] & words.dtype.type(full)) == full).any()):
            raise FrameError("the payload holds NaN or infinity")
