"""No codec: every number as little-endian float32."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.codecs.codec import Codec, checked_output, checked_payload, checked_vector, pieces
from fedsense_core.errors import FrameError
from fedsense_core.tensors import TensorTable


@dataclass(frozen=True)
class Float32(Codec):
    """Exact for float32 vectors; ``seed`` and ``unbiased`` change nothing."""

    bits: int = 32

    name: ClassVar[str] = "none"
    ids: ClassVar[tuple[int, ...]] = (0,)
    widths: ClassVar[tuple[int, ...]] = (32,)

    def payload_bytes(self, table: TensorTable) -> int:
        """Return the exact length of every payload for ``table``."""
        return 4 * table.numel

    def encode(self, vector: Tensor, table: TensorTable, seed: int, *, unbiased: bool = False) -> bytes:
        """Encode ``vector`` (N,); raise ValueError for numbers that float32 cannot hold."""
        source = checked_vector(vector, table, torch.finfo(torch.float32).max)
        stream = BytesIO()
        for piece in pieces(0, table.numel):
            stream.write(source[piece].to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False).data)
        return stream.getvalue()

    def decode(self, payload: bytes | memoryview, table: TensorTable, seed: int, out: Tensor | None = None) -> Tensor:
        """Decode into ``out`` (N,), or a new vector; raise FrameError for a wrong length, NaN or
        infinity."""
        words = checked_payload(payload, self.payload_bytes(table)).view("<u4")
        check_exponents(words, 0x7F800000)
        vector = checked_output(out, table)
        for piece in pieces(0, table.numel):
            vector[piece] = torch.from_numpy(words[piece].astype(np.uint32).view(np.float32))
        return vector


def check_exponents(words: NDArray[np.unsignedinteger[Any]], full: int) -> None:
    """Raise FrameError if any of ``words`` (N,) has every bit of ``full``, the exponent, set: NaN
    or infinity."""
    for piece in pieces(0, len(words)):
        if bool(((words[piece] & words.dtype.type(full)) == full).any()):
            raise FrameError("the payload holds NaN or infinity")
