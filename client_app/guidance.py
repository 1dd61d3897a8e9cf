"""Server-to-clients guidance, as a client follows it: where the gradient of a step is taken
(DESIGN, section 4).

The shift form starts local training at the sharp side of the global model and never looks back: a
perturbation that stays constant over a round equals a shifted start (FedLESAM, arXiv 2405.18890),
so it costs no step anything. Shapes: N, L as in ``fedsense_core.tensors``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fedsense_core.config import GuidanceSection
from fedsense_core.tensors import TensorTable, vector_norm

Loss = Callable[[], Tensor]


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
        named = dict(parameters)
        self.guidance = guidance
        self.everything = list(named.values())
        self.parameters = [named[spec.name] for spec in table.specs]
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
                for parameter in self.everything:
                    parameter.grad = None
                loss().backward()  # type: ignore[no-untyped-call]
        return value.detach()

    @contextmanager
    def _perturbed(self) -> Iterator[None]:
        with torch.no_grad():
            offsets = self._offsets()
            for parameter, offset in zip(self.parameters, offsets, strict=True):
                parameter.add_(offset)
        yield
        with torch.no_grad():
            for parameter, offset in zip(self.parameters, offsets, strict=True):
                parameter.sub_(offset)

    def _offsets(self) -> list[Tensor]:
        """Return ρ ĝ (SAM, arXiv 2010.01412, equation 2), or ρ times its normalised mix with the
        global one (FedGF).

        ``scale = "update"`` takes ρ_l ĝ_l of each tensor; ``"absolute"`` one ρ and one norm of all
        travelling tensors, as in FedSAM (arXiv 2206.02618, algorithm 1).
        """
        ascent = self._units([torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters])
        if self.guidance.kind == "mixed":
            mix = self.guidance.mix
            ascent = self._units([(1 - mix) * a + mix * d for a, d in zip(ascent, self.directions, strict=True)])
        return [a * radius.to(a.dtype) for a, radius in zip(ascent, self.radii, strict=True)]

    def _units(self, vectors: list[Tensor]) -> list[Tensor]:
        norms = [vector.norm() for vector in vectors]
        if self.guidance.scale == "absolute":
            norms = [torch.stack(norms).norm()] * len(norms)
        return [v / norm if norm > 0 else torch.zeros_like(v) for v, norm in zip(vectors, norms, strict=True)]
