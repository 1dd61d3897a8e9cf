"""Muon: momentum whose matrices are made orthogonal before they are added (Jordan 2024; arXiv
2502.16982).

Our own, because torch's is younger than the torch that we ask for and takes no kernels."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
QUINTIC = (3.4445, -4.7750, 2.0315)
"""a, b, c of x -> a x + b x³ + c x⁵, which moves singular values of (0, 1] towards 1 faster than it
is exact."""
ITERATIONS = 5
RMS = 0.2
"""Of an update's elements per unit of learning rate: that of AdamW, whose rates and decay then fit
(arXiv 2502.16982, section 2.2)."""


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return U p(S) Vᵀ of matrix / ‖matrix‖ = U S Vᵀ (m, n), with the quintic p five times over:
    p(S) is near 1.

    Five steps of Newton and Schulz, without a decomposition. A matrix of zeros stays so.
    """
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T if tall else matrix
    x: Tensor = wide / wide.norm().clamp_min(torch.finfo(wide.dtype).tiny)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """B ← μ B + G;  W ← W - η 0.2 √max(m, n) orthogonalised(G + μ B), a kernel as the matrix (out,
    all else).

    Equation 4 of arXiv 2502.16982 less its decay, with the Nesterov momentum of the reference.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 1.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step along the gradients that there are."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                buffer = state["momentum_buffer"].mul_(MOMENTUM).add_(parameter.grad)
                update = orthogonalised(parameter.grad.add(buffer, alpha=MOMENTUM).flatten(1))
                scale = RMS * math.sqrt(max(update.shape))
                parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * scale)
