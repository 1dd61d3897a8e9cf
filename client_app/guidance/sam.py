"""``sam``: the gradient of every step is taken uphill of the weights (SAM, arXiv 2010.01412)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from client_app.guidance.guidance import Guidance, Loss


class Sam(Guidance):
    """Two gradients a step: one finds the way up, the other counts.

    ``scale = "update"`` climbs ρ_l ĝ_l in each tensor; ``"absolute"`` has one ρ and one norm for
    all travelling tensors, as in FedSAM (arXiv 2206.02618, algorithm 1).
    """

    name = "sam"

    def backward(self, loss: Loss, parameters: Mapping[str, nn.Parameter], step: int) -> Tensor:
        """Leave the gradient at w + ρ ĝ in ``.grad`` and return the loss at w."""
        value = super().backward(loss, parameters, step)
        if self.climbs(step) and bool((self.radii > 0).any()):
            with self._perturbed([parameters[spec.name] for spec in self.table.specs]):
                for parameter in parameters.values():
                    parameter.grad = None
                loss().backward()  # type: ignore[no-untyped-call]
        return value

    def climbs(self, step: int) -> bool:
        """Return whether the gradient of a step is taken uphill."""
        return True

    def ascent(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return the unit direction in which to climb, by tensor: ĝ (equation 2)."""
        return self.units(gradients)

    def units(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """Return vectors of length 1 in each tensor, or 1 in all; zero where they are."""
        norms = [vector.norm() for vector in vectors]
        if self.settings.scale == "absolute":
            norms = [torch.stack(norms).norm()] * len(norms)
        return [v / norm if norm > 0 else torch.zeros_like(v) for v, norm in zip(vectors, norms, strict=True)]

    @contextmanager
    def _perturbed(self, travelling: Sequence[nn.Parameter]) -> Iterator[None]:
        with torch.no_grad():
            ascent = self.ascent([torch.zeros_like(p) if p.grad is None else p.grad for p in travelling])
            radii = self.radii.to(self.device)
            offsets = [a * radius.to(a.dtype) for a, radius in zip(ascent, radii, strict=True)]
            for parameter, offset in zip(travelling, offsets, strict=True):
                parameter.add_(offset)
        yield
        with torch.no_grad():
            for parameter, offset in zip(travelling, offsets, strict=True):
                parameter.sub_(offset)
