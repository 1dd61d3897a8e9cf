"""What holds a client's weights near the others' in every step: FedProx's pull, and MoFedSAM's
global momentum.

Shapes: N as in ``fedsense_core.tensors``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedsense_core.config import Config
from fedsense_core.schedule import learning_rate
from fedsense_core.tensors import TensorTable


class Proximal:
    """The gradient of μ/2 ‖w - w_t‖² (FedProx, arXiv 1812.06127, equation 2), added without a
    graph.

    It reads the weights themselves: where guidance shifts the start, ``origin`` (N,) is w_t +
    shift, so that w - shift is pulled towards w_t.
    """

    def __init__(self, weight: float, parameters: Sequence[nn.Parameter], origin: Tensor, table: TensorTable) -> None:
        self.weight = weight
        pairs = zip(parameters, table.unflatten(origin).values(), strict=True) if weight else ()
        self.pairs = [(parameter, at.to(parameter.device)) for parameter, at in pairs]

    @torch.no_grad()
    def pull(self) -> None:
        """Add μ (w - w_t) to the gradients of the travelling parameters."""
        for parameter, origin in self.pairs:
            away = self.weight * (parameter - origin)
            parameter.grad = away if parameter.grad is None else parameter.grad.add_(away)


class GlobalMomentum:
    """Steps that repeat a share s of the last global update (MoFedSAM, arXiv 2206.02618, algorithm
    2; FedCM).

    The paper steps along (1-s) g + s Δ with Δ = -update / Σ η over the steps of the round before;
    for SGD that is (1-s) of its own step plus s η / Σ η of the update (with a constant rate, s / K
    of it), and so it is done here for every optimiser. In round 1 there is no update, and steps are
    (1-s) of their length, as in the paper. So they are in the first round after a restart of the
    schedule: the rates behind the update before are not known any more.
    """

    def __init__(
        self, config: Config, parameters: Sequence[nn.Parameter], table: TensorTable, update: Tensor, steps_done: int
    ) -> None:
        self.share = config.train.global_momentum
        self.pairs: list[tuple[nn.Parameter, Tensor]] = []
        if self.share and steps_done > config.steps_before and bool(update.any()):
            before = range(steps_done - config.train.local_steps, steps_done)
            path = update / sum(learning_rate(config, step) for step in before)
            views = zip(parameters, table.unflatten(path).values(), strict=True)
            self.pairs = [(parameter, view.to(parameter.device, parameter.dtype)) for parameter, view in views]

    @torch.no_grad()
    def repeat(self, rate: float) -> None:
        """Add s η update / Σ η to the travelling parameters."""
        for parameter, path in self.pairs:
            parameter.add_(path, alpha=self.share * rate)
