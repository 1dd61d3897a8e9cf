"""How much a loss rises near a point: along the gradient, and on average over random directions.

Shapes: N parameters, L tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsense_core.tensors import TensorTable

Loss = Callable[[Tensor], float]
"""w (N,) -> L(w)."""
Gradient = Callable[[Tensor], tuple[float, Tensor]]
"""w (N,) -> L(w) and its gradient (N,)."""


def sam_sharpness(
    loss: Loss, gradient: Gradient, w: Tensor, at: tuple[float, Tensor], radius: float, steps: int = 1
) -> float:
    """Return max over ‖e‖ <= ρ of L(w + e) - L(w), from below: the largest rise that ``steps``
    ascents find.

    The first ascent is that of SAM, e = ρ g/‖g‖ with the gradient g at w (equation 2 of arXiv
    2010.01412). Each further one goes to the point of the sphere that is farthest along the
    gradient where the last one ended, which never falls where L is convex. ``at`` is
    ``gradient(w)``, known already.
    """
    here, slope = at
    best = -math.inf
    for step in range(steps):
        size = float(slope.norm())
        there = w + slope * (radius / size) if size else w
        if step + 1 < steps:
            value, slope = gradient(there)
        else:
            value = loss(there)
        best = max(best, value)
    return best - here


@dataclass(frozen=True)
class Estimate:
    """A mean over draws."""

    mean: float
    standard_error: float


def noise_sharpness(
    loss: Loss, w: Tensor, here: float, table: TensorTable, sigma: float, draws: int, generator: torch.Generator
) -> Estimate:
    """Return E L(w + e) - L(w) for Gaussian noise whose size is a share of each tensor's: E‖e_l‖² =
    σ²‖w_l‖².

    The average case of section 2 of arXiv 2302.07011, with noise scaled by tensor, so that layers
    whose scale means nothing (before a normalisation) count alike at any scale, as in arXiv
    1712.09913. Noise is drawn in pairs e, -e: the slope of L falls out, and the estimate is still
    unbiased. ``here`` is L(w); needs two draws or more.
    """
    sizes_L = table.norms(w) / torch.tensor([spec.numel for spec in table.specs], dtype=torch.float64).sqrt()
    deviation = table.spread((sigma * sizes_L).to(w.dtype))
    rises = []
    for _ in range(draws):
        e = torch.randn(w.shape, dtype=w.dtype, generator=generator).mul_(deviation)
        rises.append((loss(w + e) + loss(w - e)) / 2 - here)
    values = torch.tensor(rises, dtype=torch.float64)
    return Estimate(float(values.mean()), float(values.std() / math.sqrt(draws)))
