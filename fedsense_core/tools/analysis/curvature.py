"""Extreme eigenvalues of a Hessian that is known by its products with vectors alone.

The Lanczos process (J. Res. Nat. Bur. Standards 45, 1950): both ends of the spectrum come from the
same products, one a step, and only three vectors are held. Power iteration finds the eigenvalue of
largest size alone, which of a loss may be negative, and shifted to find the largest it hardly
moves. Vectors are not orthogonalised anew: rounding may then repeat an eigenvalue that is found
already, but finds no wrong one (Paige, Linear Algebra Appl. 34, 1980). Products are exact
(Pearlmutter, Neural Computation 6, 1994), as in PyHessian (arXiv 1912.07145). Shapes: N parameters,
k steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""v (N,) -> H v (N,)."""


@dataclass(frozen=True)
class Eigenvalue:
    """An eigenvalue as far as the search came."""

    value: float
    residual: float
    """‖Hu - λu‖ of its unit vector u: some eigenvalue lies within this distance of ``value``, since
    H is symmetric."""
    converged: bool
    """Whether the residual fell to the tolerance."""


@dataclass(frozen=True)
class Extremes:
    """Both ends of the spectrum."""

    largest: Eigenvalue
    """Curvature of the steepest wall."""
    smallest: Eigenvalue
    """Below zero the loss falls away on both sides: the point is no minimum."""
    products: int
    """Products with H that were made."""

    @property
    def dominant(self) -> Eigenvalue:
        """The one of larger size, with its sign: what power iteration finds."""
        return max(self.largest, self.smallest, key=lambda one: abs(one.value))


def extreme_eigenvalues(product: Product, start: Tensor, *, tolerance: float, steps: int) -> Extremes:
    """Return both extremes of a symmetric H; ``start`` (N,) is any vector with a part along each,
    such as noise.

    The search ends when the residual of each is at most ``tolerance`` times its size, or after
    ``steps`` products. A converged eigenvalue is known better than that: its error is the residual
    squared over the distance to the next one. Both are NaN where a product is not finite.
    """
    v, before = start / start.norm(), torch.zeros_like(start)
    diagonal: list[float] = []
    beside: list[float] = []
    for done in range(1, steps + 1):
        rest = product(v)
        diagonal.append(float(v @ rest))
        rest = rest - diagonal[-1] * v - (beside[-1] if beside else 0.0) * before
        size = float(rest.norm())
        if not math.isfinite(size):  # where a loss has no second derivative, as at a feature of length 0
            unknown = Eigenvalue(math.nan, math.nan, converged=False)
            return Extremes(unknown, unknown, done)
        smallest, largest = _ends(diagonal, beside, size, tolerance)
        if (smallest.converged and largest.converged) or done == steps:
            break
        beside.append(size)
        before, v = v, rest / size
    return Extremes(largest, smallest, done)


def _ends(diagonal: Sequence[float], beside: Sequence[float], rest: float, tolerance: float) -> list[Eigenvalue]:
    """Return both ends of the spectrum of the tridiagonal matrix (k, k); their residuals are ‖rest‖
    |u_k|."""
    small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        edge = torch.tensor(beside, dtype=torch.float64)
        small += torch.diag(edge, 1) + torch.diag(edge, -1)
    values, vectors = torch.linalg.eigh(small)
    found = [(float(values[end]), rest * abs(float(vectors[-1, end]))) for end in (0, -1)]
    return [Eigenvalue(value, residual, residual <= tolerance * abs(value)) for value, residual in found]
