"""Inner optimisers whose weight decay does not see the shift: AdamW, SGD and Muon.

Guidance perturbs what the loss sees. Weight decay reads the weights themselves, so at a shifted
start it must pull w - shift towards zero, or the shift identity of docs/method.md, section 4
breaks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import assert_never

import torch
from torch import Tensor, nn

from client_app.muon import Muon
from fedsense_core.config import TrainSection
from fedsense_core.tensors import SMALL_NAMES


class InnerOptimiser:
    """Decoupled decay (arXiv 1711.05101) towards the shift, then the steps of one or more
    optimisers of torch.

    Each of them has some of the parameters; their state is one flat dict of tensors.
    """

    def __init__(
        self,
        module: nn.Module,
        weight_decay: float,
        shift: Mapping[str, Tensor],
        parts: Sequence[torch.optim.Optimizer],
    ) -> None:
        self.parameters = dict(module.named_parameters())
        self.weight_decay = weight_decay
        self.shift = {
            name: value.to(self.parameters[name].device) for name, value in shift.items() if bool(value.any())
        }
        self.parts = parts

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Decay matrices and kernels (not scales, biases and tokens), then take the optimisers'
        steps.

        All of it is proportional to the learning rate.
        """
        for name, parameter in self.parameters.items():
            if not self.weight_decay or not _is_matrix(name, parameter):
                continue
            parameter.mul_(1 - learning_rate * self.weight_decay)
            if name in self.shift:
                parameter.add_(self.shift[name], alpha=learning_rate * self.weight_decay)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def state(self) -> dict[str, Tensor]:
        """Return moments and step counts, each as ``moment/parameter``."""
        flat: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            for part in self.parts:
                for key, value in part.state.get(parameter, {}).items():
                    flat[f"{key}/{name}"] = value.detach().cpu().clone()
        return flat

    def load_state(self, flat: Mapping[str, Tensor]) -> None:
        """Continue from what ``state`` returned; an empty mapping starts afresh."""
        part_of = {p: part for part in self.parts for group in part.param_groups for p in group["params"]}
        for label, value in flat.items():
            key, name = label.split("/", 1)
            parameter = self.parameters[name]
            restored = value.clone() if key == "step" else _like(value, parameter)
            part_of[parameter].state[parameter][key] = restored


def inner_optimiser(module: nn.Module, settings: TrainSection, shift: Mapping[str, Tensor]) -> InnerOptimiser:
    """Return the optimiser that ``settings.optimiser`` names, for all parameters of ``module``.

    ``shift`` names the offset (as the parameter is shaped) from which each parameter starts. SGD
    has no dampening and is not Nesterov's. Muon leaves what is no hidden matrix to AdamW.
    """
    parameters = dict(module.named_parameters())
    hidden: set[str] = set()
    match settings.optimiser:
        case "sgd":
            sgd = torch.optim.SGD(parameters.values(), lr=1.0, momentum=settings.momentum, foreach=True)
            return InnerOptimiser(module, settings.weight_decay, shift, [sgd])
        case "muon":
            hidden = set(hidden_matrices(parameters))
        case "adamw":
            pass
        case _:
            assert_never(settings.optimiser)
    rest = [parameter for name, parameter in parameters.items() if name not in hidden]
    parts: list[torch.optim.Optimizer] = [torch.optim.Adam(rest, lr=1.0, eps=settings.epsilon, foreach=True)]
    if hidden:
        parts.insert(0, Muon(parameter for name, parameter in parameters.items() if name in hidden))
    return InnerOptimiser(module, settings.weight_decay, shift, parts)


def hidden_matrices(parameters: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the matrices and kernels between a model's first layer and its last ones.

    Muon is made for these; its author leaves the layers next to inputs and outputs to AdamW. The
    first is the encoder's first; each head (projector, predictor, decoder) ends in a last one.
    """
    of_part: dict[str, list[str]] = {}
    for name, parameter in parameters.items():
        if _is_matrix(name, parameter):
            of_part.setdefault(name.split(".")[0], []).append(name)
    return [name for part, names in of_part.items() for name in (names[1:] if part == "encoder" else names[:-1])]


def _is_matrix(name: str, parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and not any(fnmatchcase(name, pattern) for pattern in SMALL_NAMES)


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """Return a copy with the device, type and memory order of a parameter."""
    return torch.empty_like(parameter, requires_grad=False).copy_(value)
