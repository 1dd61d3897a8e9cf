"""Encode: from numbers to the bytes of a frame, and back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedsense_core.codecs.codec import Codec
from fedsense_core.tensors import TensorTable


@dataclass
class Encode:
    """The last stage, whose output travels: Q_b, rotated by a seed that both ends know."""

    name = "encode"
    codec: Codec
    table: TensorTable
    seed: int
    unbiased: bool = False
    """Client only: scale for the mean over rounds, where no residual carries over what is lost."""

    def forward(self, x: Tensor) -> bytes:
        """Return the payload of ``x`` (N,)."""
        return self.codec.encode(x, self.table, self.seed, unbiased=self.unbiased)

    def inverse(self, payload: memoryview | bytes, out: Tensor | None = None) -> Tensor:
        """Return the decoded numbers (N,), in ``out`` where it is given. Raises FrameError."""
        return self.codec.decode(payload, self.table, self.seed, out)
