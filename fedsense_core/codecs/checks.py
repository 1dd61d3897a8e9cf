"""What every codec demands of the vector it encodes and of the payload it decodes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.errors import FrameError
from fedsense_core.tensors import TensorTable


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
    if not within(source, largest):
        name = next(spec.name for spec, view in table.views(source) if not within(view, largest))
        raise ValueError(f"tensor {name!r} holds NaN, infinity or a number beyond {largest:.3g}: training has diverged")
    return source


def within(vector: Tensor, largest: float) -> bool:
    """Tell whether every number of ``vector`` (M,) is finite and at most ``largest`` in
    magnitude."""
    if not vector.numel():
        return True
    low, high = torch.aminmax(vector)  # NaN shows in both, and no mask as long as the vector is built
    return -largest <= float(low) and float(high) <= largest


def checked_payload(payload: bytes | memoryview, expected_bytes: int) -> NDArray[np.uint8]:
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
