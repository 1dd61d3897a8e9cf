"""Where the global loss rises (docs/method.md, section 4). Shapes: N as in
``fedsense_core.tensors``."""

from __future__ import annotations

import torch
from torch import Tensor

from fedsense_core.config import GuidanceSection
from fedsense_core.tensors import TensorTable, vector_norm


def global_direction(momentum: Tensor, table: TensorTable, guidance: GuidanceSection, seed: int) -> Tensor:
    """Return the ascent direction -m̂/‖m̂‖ times ``sign``, flat (N,): of length 1 in each tensor,
    or 1 in all.

    The global loss is taken to fall along m̂, so it rises against it. ``scale = "update"`` divides
    each tensor by its own norm, ``"absolute"`` all by their common norm: with β = 0, where m̂ is
    w_t - w_{t-1}, that is the direction (w_{t-1} - w_t)/‖w_{t-1} - w_t‖ of FedLESAM (arXiv
    2405.18890). ``direction = "random"`` draws a Gaussian instead, equal for all clients of a
    round. Zero where m̂_l is.
    """
    direction = torch.zeros_like(momentum)
    generator = torch.Generator().manual_seed(seed)
    for (_, m), (_, d) in zip(table.views(momentum), table.views(direction), strict=True):
        norm = m.norm()
        if norm > 0:
            away = -m
            if guidance.direction == "random":
                away = torch.randn(m.shape, generator=generator, dtype=m.dtype)
            d.copy_(away / (1 if guidance.scale == "absolute" else away.norm()) * guidance.sign)
    if guidance.scale == "absolute" and bool(direction.any()):
        direction /= vector_norm(direction)
    return direction
