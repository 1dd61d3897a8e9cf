"""Clients-to-server guidance: the clients' similarity structure on public imagery, distilled into the mean model.

DESIGN section 6. Only relations between images are matched, so a client's encoder may be rotated against the others'.
Shapes: P public chips, B batch, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsense_core.data import epoch_batches
from fedsense_core.models import PretrainingModel
from fedsense_core.schedule import learning_rate
from fedsense_core.seeds import seed_of
from fedsense_core.settings import Config
from fedsense_core.ssl import Recipe
from fedsense_core.tensors import TensorTable


@dataclass(frozen=True)
class Teacher:
    """One client's view of the public imagery."""

    weight: float
    """a_i, the client's share."""
    features: Tensor
    """Normalised encoder features (P, D), half precision."""


def similarities(z_BD: Tensor, temperature: float) -> Tensor:
    """Return the logits z zᵀ/τ of normalised features with the diagonal masked (B, B)."""
    logits = z_BD @ z_BD.T / temperature
    return logits.masked_fill(torch.eye(len(z_BD), dtype=torch.bool, device=z_BD.device), float("-inf"))


def similarity_loss(z_BD: Tensor, target_BB: Tensor, temperature: float) -> Tensor:
    """Return KL(Ā ‖ rowsoftmax(Z Zᵀ/τ_S)), averaged over rows (arXiv 2107.01152 distils the same relations)."""
    log_student = similarities(z_BD, temperature).log_softmax(dim=1)
    entropy = torch.xlogy(target_BB, target_BB).sum(dim=1)
    cross = torch.where(target_BB > 0, target_BB * log_student, 0.0).sum(dim=1)
    return (entropy - cross).mean()


class Distiller:
    """Moves the aggregated model on the public set; also its three controls."""

    def __init__(self, config: Config, public_PCHW: Tensor, recipe: Recipe, device: torch.device) -> None:
        self.config = config
        self.settings = config.distillation
        self.public = public_PCHW
        self.recipe = recipe
        self.device = device

    @property
    def needs_teachers(self) -> bool:
        """True where the clients' encoders are asked; the controls do without."""
        return self.settings.kind == "similarity"

    @torch.no_grad()
    def look(self, model: PretrainingModel, weight: float) -> Teacher:
        """Embed the public set with one teacher (P, C, H, W) -> (P, D)."""
        model.to(self.device).eval()
        batches = torch.split(self.public, 256)
        features = [F.normalize(model.embed(self._view(batch)).float(), dim=1) for batch in batches]
        return Teacher(weight, torch.cat(features).half().cpu())

    def distil(
        self, model: PretrainingModel, table: TensorTable, teachers: Sequence[Teacher], server_round: int
    ) -> tuple[Tensor, float]:
        """Train ``model`` (the mean) for a few steps; return its new flat weights (N,) and the mean loss."""
        teachers = [self.look(model, 1.0)] if self.settings.kind == "self" else teachers
        model.to(self.device).train()
        optimiser = torch.optim.Adam(model.parameters(), lr=self._rate(server_round))
        total = 0.0
        for step, rows in zip(range(self.settings.steps), self._rows(server_round), strict=False):
            optimiser.zero_grad(set_to_none=True)
            loss = self._loss(model, teachers, rows, seed_of(self.config.run.seed, "distil", server_round, step))
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += float(loss.detach())
        return table.read(model).float(), total / self.settings.steps

    def _loss(self, model: PretrainingModel, teachers: Sequence[Teacher], rows: Tensor, seed: int) -> Tensor:
        batch = self.public[rows].to(self.device)
        generator = torch.Generator().manual_seed(seed)
        if self.settings.kind == "public-ssl":
            return self.recipe(model, None, batch, generator).ssl
        z_BD = F.normalize(model.embed(self._view(batch)).float(), dim=1)
        loss = similarity_loss(z_BD, self._target(teachers, rows), self.settings.student_temperature)
        if self.settings.public_weight:
            loss = loss + self.settings.public_weight * self.recipe(model, None, batch, generator).ssl
        return loss

    def _target(self, teachers: Sequence[Teacher], rows: Tensor) -> Tensor:
        """Return Ā = Σ a_i rowsoftmax(Z_i Z_iᵀ/τ_T) (B, B)."""
        total = sum(teacher.weight for teacher in teachers)
        mean = torch.zeros(len(rows), len(rows), device=self.device)
        for teacher in teachers:
            z_BD = teacher.features[rows].to(self.device).float()
            logits = similarities(z_BD, self.settings.teacher_temperature)
            mean += teacher.weight / total * logits.softmax(dim=1)
        return mean

    def _rows(self, server_round: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed_of(self.config.run.seed, "public", server_round))
        return epoch_batches(len(self.public), min(self.settings.batch_size, len(self.public)), generator)

    def _view(self, batch: Tensor) -> Tensor:
        size = self.config.data.view_size
        return F.interpolate(batch.to(self.device), size=(size, size), mode="bilinear", antialias=True)

    def _rate(self, server_round: int) -> float:
        last_step = server_round * self.config.train.local_steps - 1
        return self.settings.learning_rate_factor * learning_rate(self.config, last_step)
