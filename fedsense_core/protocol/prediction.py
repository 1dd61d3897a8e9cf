"""What both ends expect of an update before it is sent: γ_l m̂_l, so that codes carry only the rest
(docs/method.md, section 3).

Client updates and the momentum of the global model point partly the same way. Both ends hold m̂ in
equal bits, so the common part costs nothing but γ_l, one float32 a tensor. Shapes: N, L as in
``fedsense_core.tensors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedsense_core.config import Config
from fedsense_core.protocol.replica import Replica
from fedsense_core.state import State
from fedsense_core.tensors import TensorTable


def momentum_weight(beta: float, version: int) -> float:
    """Return 1 - β^(version-1), the sum of the weights of all changes in m̂ (Adam's bias, arXiv
    1412.6980).

    m̂ starts from zero, so m̂ divided by this is the mean change; 0 for the first version, which
    holds no change yet.
    """
    return 1.0 - beta ** (version - 1)


def coefficients(mean_update: Tensor, momentum: Tensor, weight: float, table: TensorTable) -> Tensor:
    """Return clip(<Δ̄_l, m_l> / ‖m_l‖², 0, 1) of m = m̂ / ``weight``, as float32 (L,); 0 where m̂_l
    is."""
    shares = torch.zeros(len(table))
    for index, ((_, update), (_, m)) in enumerate(zip(table.views(mean_update), table.views(momentum), strict=True)):
        energy = float(m.double() @ m.double())
        if energy > 0:
            shares[index] = min(1.0, max(0.0, weight * float(update.double() @ m.double()) / energy))
    return shares


def prediction(gammas: Tensor, momentum: Tensor, table: TensorTable) -> Tensor | None:
    """Return γ_l m̂_l, flat (N,), or None where every γ_l is 0.

    One multiplication for each element, so both ends get equal bits. Raises ValueError unless there
    is one finite γ for each tensor.
    """
    if gammas.shape != (len(table),) or not bool(gammas.isfinite().all()):
        raise ValueError(f"the task carries {tuple(gammas.shape)} coefficients, expected {len(table)} finite numbers")
    if not bool(gammas.any()):
        return None
    predicted = torch.empty_like(momentum)
    for (_, out), (_, m), gamma in zip(table.views(predicted), table.views(momentum), gammas, strict=True):
        torch.mul(m, gamma, out=out)
    return predicted


class UpdatePrediction:
    """The server's γ_l: how much of m̂ the last aggregated update held."""

    def __init__(self, config: Config, table: TensorTable) -> None:
        self.table = table
        self.beta = config.guidance.momentum
        self.in_use = config.prediction_in_use
        self.shares: Tensor | None = None
        """a_l of the last aggregated round, float32 (L,): γ_l before it is fitted to the next
        m̂."""

    def gammas(self, replica: Replica) -> Tensor:
        """Return γ_l = a_l / b_t, float32 (L,), for m̂ as it is now; zero before there is an
        a_l."""
        if self.shares is None:
            return torch.zeros(len(self.table))
        return self.shares / momentum_weight(self.beta, replica.version)

    def observe(self, mean_update: Tensor, replica: Replica) -> None:
        """Estimate a_l from Δ̄ (N,) and the m̂ that clients held when they made it."""
        if self.in_use:
            weight = momentum_weight(self.beta, replica.version)
            self.shares = coefficients(mean_update, replica.momentum, weight, self.table)

    def state_dict(self) -> State:
        """Return a_l."""
        return {} if self.shares is None else {"shares": self.shares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a_l."""
        self.shares = state.get("shares")
