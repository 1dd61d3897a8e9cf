"""bfloat16: the upper half of every float32, rounded to nearest, ties to even."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.codecs.codec import Codec, checked_output, checked_payload, checked_vector, pieces
from fedsense_core.codecs.none import check_exponents
from fedsense_core.tensors import TensorTable


@dataclass(frozen=True)
class Bfloat16(Codec):
    """Nearly exact; ``seed`` and ``unbiased`` change nothing."""

    bits: int = 16

    name: ClassVar[str] = "bf16"
    ids: ClassVar[tuple[int, ...]] = (1,)
    widths: ClassVar[tuple[int, ...]] = (16,)

    def payload_bytes(self, table: TensorTable) -> int:
        """Return the exact length of every payload for ``table``."""
        return 2 * table.numel

    def encode(self, vector: Tensor, table: TensorTable, seed: int, *, unbiased: bool = False) -> bytes:
        """Encode ``vector`` (N,); raise ValueError for numbers that bfloat16 cannot hold."""
        source = checked_vector(vector, table, torch.finfo(torch.bfloat16).max)
        stream = BytesIO()
        for piece in pieces(0, table.numel):
            stream.write(upper_half(source[piece].to("cpu", torch.float32).contiguous().numpy()).data)
        return stream.getvalue()

    def decode(self, payload: bytes | memoryview, table: TensorTable, seed: int, out: Tensor | None = None) -> Tensor:
        """Decode into ``out`` (N,), or a new vector; raise FrameError for a wrong length, NaN or
        infinity."""
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
