"""AdamW whose weight decay does not see the shift.

Guidance perturbs what the loss sees. Weight decay reads the weights themselves, so at a shifted start it must pull
w - shift towards zero, or the shift identity of DESIGN section 4 breaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from fedsense_core.settings import TrainSection
from fedsense_core.tensors import SMALL_NAMES

MOMENTS = ("exp_avg", "exp_avg_sq")


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """Return a copy with the device, type and memory order of a parameter."""
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


class ShiftedAdamW:
    """torch's Adam with decoupled decay (arXiv 1711.05101) towards the shift; its state is a flat dict of tensors."""

    def __init__(self, module: nn.Module, settings: TrainSection, shift: Mapping[str, Tensor]) -> None:
        self.parameters = dict(module.named_parameters())
        self.weight_decay = settings.weight_decay
        self.shift = {
            name: value.to(self.parameters[name].device) for name, value in shift.items() if bool(value.any())
        }
        self.adam = torch.optim.Adam(self.parameters.values(), lr=1.0, eps=settings.epsilon, foreach=True)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Decay matrices and kernels (not scales, biases and tokens), then take Adam's step."""
        for name, parameter in self.parameters.items():
            if not self.weight_decay or parameter.ndim < 2 or any(fnmatchcase(name, p) for p in SMALL_NAMES):
                continue
            parameter.mul_(1 - learning_rate * self.weight_decay)
            if name in self.shift:
                parameter.add_(self.shift[name], alpha=learning_rate * self.weight_decay)
        for group in self.adam.param_groups:
            group["lr"] = learning_rate
        self.adam.step()

    def state(self) -> dict[str, Tensor]:
        """Return moments and step counts by parameter name."""
        flat: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            for key, value in self.adam.state.get(parameter, {}).items():
                flat[f"{key}/{name}"] = value.detach().cpu().clone()
        return flat

    def load_state(self, flat: Mapping[str, Tensor]) -> None:
        """Continue from what ``state`` returned; an empty mapping starts afresh."""
        if not flat:
            return
        for name, parameter in self.parameters.items():
            if f"step/{name}" in flat:
                moments = {key: _like(flat[f"{key}/{name}"], parameter) for key in MOMENTS}
                self.adam.state[parameter] = {"step": flat[f"step/{name}"].clone(), **moments}
