"""Server-to-clients guidance, as a client follows it: where the gradient of a step is taken (DESIGN, section 4).

The shift form starts local training at the sharp side of the global model and never looks back: a perturbation that
stays constant over a round equals a shifted start (FedLESAM, arXiv 2405.18890), so it costs no step anything.
Shapes: N, L as in ``fedsense_core.tensors``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fedsense_core.settings import GuidanceSection
from fedsense_core.tensors import TensorTable

Loss = Callable[[], Tensor]


def global_direction(momentum: Tensor, table: TensorTable, guidance: GuidanceSection, seed: int) -> Tensor:
    """Return the unit ascent direction of each tensor, flat (N,): -m̂_l/‖m̂_l‖ times ``sign``, zero where m̂_l is.

    The global loss is taken to fall along m̂, so it rises against it. ``direction = "random"`` draws a Gaussian instead,
    equal for all clients of a round, where m̂_l is not zero.
    """
    direction = torch.zeros_like(momentum)
    generator = torch.Generator().manual_seed(seed)
    for (_, m), (_, d) in zip(table.views(momentum), table.views(direction), strict=True):
        norm = m.norm()
        if norm > 0:
            away = -m
            if guidance.direction == "random":
                away = torch.randn(m.shape, generator=generator, dtype=m.dtype)
            d.copy_(away / away.norm() * guidance.sign)
    return direction


def shift(direction: Tensor, radii: Tensor, table: TensorTable) -> Tensor:
    """Return ρ_l times the unit direction of each tensor, flat (N,)."""
    return direction * table.spread(radii).to(direction.dtype)


class Ascent:
    """Takes the gradient of one step at the point that the guidance names."""

    def __init__(
        self,
        guidance: GuidanceSection,
        parameters: list[tuple[str, torch.nn.Parameter]],
        table: TensorTable,
        radii: Tensor,
        direction: Tensor,
    ) -> None:
        travelling = dict(parameters)
        self.guidance = guidance
        self.parameters = [travelling[spec.name] for spec in table.specs]
        device = self.parameters[0].device if self.parameters else torch.device("cpu")
        self.radii = radii.to(device)
        self.directions = [view.to(device) for view in table.unflatten(direction).values()]
        self.active = bool((radii > 0).any()) and guidance.kind in ("sam", "mixed", "sam-every-k")

    def backward(self, loss: Loss, step: int) -> Tensor:
        """Leave the gradient in ``.grad`` and return the loss at the unperturbed weights.

        ``loss`` must compute the same function each time it is called within one step.
        """
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        if self.active and (self.guidance.kind != "sam-every-k" or step % self.guidance.every == 0):
            with self._perturbed():
                for parameter in self.parameters:
                    parameter.grad = None
                loss().backward()  # type: ignore[no-untyped-call]
        return value.detach()

    @contextmanager
    def _perturbed(self) -> Iterator[None]:
        with torch.no_grad():
            offsets = [
                self._offset(p, d, r) for p, d, r in zip(self.parameters, self.directions, self.radii, strict=True)
            ]
            for parameter, offset in zip(self.parameters, offsets, strict=True):
                parameter.add_(offset)
        yield
        with torch.no_grad():
            for parameter, offset in zip(self.parameters, offsets, strict=True):
                parameter.sub_(offset)

    def _offset(self, parameter: torch.nn.Parameter, direction: Tensor, radius: Tensor) -> Tensor:
        """Return ρ_l ĝ_l (SAM, arXiv 2010.01412), or the normalised mix with the global direction (FedGF)."""
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        ascent = _unit(gradient)
        if self.guidance.kind == "mixed":
            ascent = _unit((1 - self.guidance.mix) * ascent + self.guidance.mix * direction)
        return ascent * radius.to(ascent.dtype)


def _unit(vector: Tensor) -> Tensor:
    norm = vector.norm()
    return vector / norm if norm > 0 else torch.zeros_like(vector)
