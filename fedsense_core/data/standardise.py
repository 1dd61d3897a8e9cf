"""Pixels in deviations from the mean: the one scale on which imagery of all sensors meets."""

from __future__ import annotations

import torch
from torch import Tensor

LIMIT = 6.0
"""Standardised values beyond six deviations are glint, clouds or faults; they would rule a
batch."""


def standardise(x: Tensor, mean: Tensor, std: Tensor, limit: float = LIMIT) -> Tensor:
    """Return (x - mean) / std of ``x`` (..., C, H, W), clamped to ±``limit``; never changes ``x``.

    ``mean`` and ``std`` are one number a band (C,), or one a chip and band (B, C). Integers and
    half-precision numbers come back as float32.
    """
    mean, std = (values.to(x.device)[..., None, None] for values in (mean, std))
    whole = x.to(torch.promote_types(x.dtype, mean.dtype), copy=True)
    return whole.sub_(mean).div_(std).clamp_(-limit, limit)
