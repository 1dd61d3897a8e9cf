"""The loss whose landscape is measured: one deterministic function of the weights.

The self-supervised loss of the run's own recipe, without alignment, over fixed batches of each
client, every batch with views and masks from a seed of its own, in float32 and without dropout.
Shapes: N travelling parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedsense_core.data.batches.batch import Batch
from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.seeds import seed_of
from fedsense_core.ssl.recipe import Recipe
from fedsense_core.tensors import TensorTable


class Objective:
    """L(w): the mean over clients of the mean loss over each client's batches.

    ``model`` is overwritten; its tensors that do not travel stay as they are. Vectors (N,) are
    float32 on the CPU, wherever the model computes. ``on_pass`` is called after every pass over all
    batches.
    """

    def __init__(
        self,
        model: PretrainingModel,
        table: TensorTable,
        recipe: Recipe,
        batches: Mapping[str, Sequence[Batch]],
        seed: int,
        on_pass: Callable[[], None] = lambda: None,
    ) -> None:
        self.model = model.eval()
        self.table = table
        self.recipe = recipe
        self.batches = batches
        self.seed = seed
        self.on_pass = on_pass
        self.device = next(model.parameters()).device
        self.teacher: PretrainingModel | None = None
        named = dict(model.named_parameters())
        self._parameters = [named[spec.name] for spec in table.specs]

    def teach(self, w: Tensor) -> None:
        """Make ``w`` the teacher of recipes that have one; it is a constant of the loss from then
        on."""
        if self.recipe.needs_teacher:
            self.table.write(w, self.model)
            self.teacher = deepcopy(self.model).requires_grad_(False)

    @torch.no_grad()
    def losses(self, w: Tensor) -> dict[str, float]:
        """Return the mean loss of each client's batches."""
        self.table.write(w, self.model)
        with exact():
            means = {
                name: fmean(float(self._loss(name, index)) for index in range(len(own)))
                for name, own in self.batches.items()
            }
        self.on_pass()
        return means

    def loss(self, w: Tensor) -> float:
        """Return L(w)."""
        return fmean(self.losses(w).values())

    def gradient(self, w: Tensor) -> tuple[float, Tensor]:
        """Return L(w) and its gradient (N,)."""
        self.table.write(w, self.model)
        total, slope = 0.0, torch.zeros(self.table.numel)
        with exact():
            for share, loss in self._terms():
                parts = torch.autograd.grad(loss, self._parameters, allow_unused=True, materialize_grads=True)
                slope.add_(self._flat(parts), alpha=share)
                total += share * float(loss.detach())
        self.on_pass()
        return total, slope

    def curvature(self, w: Tensor, v: Tensor) -> Tensor:
        """Return H v (N,), with the Hessian H of L at ``w``: the gradient of gᵀv, exact but for
        rounding."""
        self.table.write(w, self.model)
        directions = [v[s.offset : s.end].view(s.shape).to(self.device) for s in self.table.specs]
        image = torch.zeros(self.table.numel)
        with exact():
            for share, loss in self._terms():
                slopes = torch.autograd.grad(
                    loss, self._parameters, create_graph=True, allow_unused=True, materialize_grads=True
                )
                along = torch.stack([(g * d).sum() for g, d in zip(slopes, directions, strict=True)]).sum()
                parts = torch.autograd.grad(along, self._parameters, allow_unused=True, materialize_grads=True)
                image.add_(self._flat(parts), alpha=share)
        self.on_pass()
        return image

    def _terms(self) -> Iterator[tuple[float, Tensor]]:
        """Yield every batch's share of L and its loss."""
        for name, own in self.batches.items():
            for index in range(len(own)):
                yield 1 / (len(self.batches) * len(own)), self._loss(name, index)

    def _loss(self, name: str, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed_of("analysis", self.seed, name, index))
        batch = self.batches[name][index].to(self.device)
        return self.recipe(self.model, None, batch, generator, teacher=self.teacher).ssl

    def _flat(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.detach().reshape(-1) for part in parts]).float().cpu()


@contextmanager
def exact() -> Iterator[None]:
    """Compute in float32 proper, the same way each time, with attention that can be differentiated
    twice."""
    with (
        sdpa_kernel(SDPBackend.MATH),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        torch.set_flush_denormal(True)  # gradients of dead units are full of them, and they are slow
        try:
            yield
        finally:
            torch.set_flush_denormal(False)  # codecs count on them
