"""Scales that neither overflow nor underflow: half precision times one float32 per tensor.

The largest scale s of a tensor is mapped to 2^15: t = s / 2^15 is the tensor's float32 and s_k / t
each block's fp16. Blocks down to 2^-29 of the largest keep all eleven bits of fp16, down to 2^-39
they keep some, below they vanish. The fp16 tensors use the same rule with their largest magnitude.
The limits leave every product of a decoder a normal float32, so that a CPU set to flush subnormal
numbers decodes the same bits as one that is not.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.errors import FrameError

HALF_TOP = 2.0**15
"""The fp16 number that stands for a tensor's largest scale."""
LARGEST_INPUT = 2.0**40
"""Largest magnitude that a scaled codec accepts: beyond it training has long diverged."""
SMALLEST_TOP = 2.0**-50
"""A tensor whose largest scale is below this (9e-16) travels as zero; error feedback keeps what it
lost."""
LARGEST_TENSOR_SCALE = LARGEST_INPUT * 2.0**6 / HALF_TOP
"""The unbiased scale of a block exceeds its largest magnitude by at most 40."""


def tensor_scales(tops_L: Tensor) -> Tensor:
    """Return the float32 t of tensors with largest scales or magnitudes ``tops_L`` (L,): 0 where
    next to nothing."""
    return torch.where(tops_L >= SMALLEST_TOP, tops_L / HALF_TOP, 0.0)


def halves(values: Tensor, scales: Tensor) -> NDArray[np.float16]:
    """Return ``values / scales`` rounded to little-endian fp16, and 0 where a scale is 0. Both are
    float32."""
    quotient = torch.where(scales > 0, values / torch.where(scales > 0, scales, 1.0), 0.0)
    return quotient.numpy().astype("<f2")


def read_tensor_scales(words: NDArray[np.uint8]) -> Tensor:
    """Return the (L,) float32 tensor scales in ``words`` (4 L,); raise FrameError for any no
    encoder can send."""
    scales = torch.from_numpy(words.view("<f4").astype(np.float32))
    sound = (scales >= SMALLEST_TOP / HALF_TOP) & (scales <= LARGEST_TENSOR_SCALE) | (scales == 0) & ~scales.signbit()
    if not bool(sound.all()):
        raise FrameError("the payload holds a tensor scale that is NaN, negative, infinite or out of bounds")
    return scales


def read_halves(words: NDArray[np.uint8], *, signed: bool) -> Tensor:
    """Return the fp16 numbers in ``words`` (2 M,) as (M,) float32; raise FrameError for NaN or
    beyond 2^15.

    ``signed`` allows negative numbers: values may be negative, scales may not.
    """
    numbers = torch.from_numpy(words.view("<f2").astype(np.float32))
    sound = (numbers >= -HALF_TOP) & (numbers <= HALF_TOP)
    if not signed:
        sound &= ~numbers.signbit()
    if not bool(sound.all()):
        raise FrameError("the payload holds a block scale or fp16 value that is NaN, infinite or out of bounds")
    return numbers
