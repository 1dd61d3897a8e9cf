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

from fedsense_core.data import Batch, epoch_batches
from fedsense_core.errors import SiteError
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
    """Moves the aggregated model on the public set; also its three controls. SiteError for fewer than 2 chips."""

    def __init__(self, config: Config, public: Sequence[Batch], recipe: Recipe, device: torch.device) -> None:
        self.config = config
        self.settings = config.distillation
        self.public = public
        """The whole public set, P chips in all; one batch for each kind, which differ in their bands."""
        self.count = sum(map(len, public))
        if self.count < 2:
            raise SiteError(
                f"the public imagery (federation.public) gives {self.count} chip, and distillation compares chips with "
                "one another: add imagery, lower data.chip_size, or set distillation.kind = 'none'"
            )
        self.recipe = recipe
        self.device = device

    @property
    def needs_teachers(self) -> bool:
        """True where the clients' encoders are asked; the controls do without."""
        return self.settings.kind == "similarity"

    @torch.no_grad()
    def look(self, model: PretrainingModel, weight: float) -> Teacher:
        """Embed the public set with one teacher: features (P, D)."""
        model.to(self.device).eval()
        pieces = [Batch(pixels, kind.bands) for kind in self.public for pixels in torch.split(kind.pixels, 256)]
        return Teacher(weight, torch.cat([self._features(model, piece) for piece in pieces]).half().cpu())

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
        parts, rows = self._pick(rows)
        generator = torch.Generator().manual_seed(seed)
        if self.settings.kind == "public-ssl":
            return self._ssl(model, parts, generator)
        z_BD = torch.cat([self._features(model, part) for part in parts])
        loss = similarity_loss(z_BD, self._target(teachers, rows), self.settings.student_temperature)
        if self.settings.public_weight:
            loss = loss + self.settings.public_weight * self._ssl(model, parts, generator)
        return loss

    def _pick(self, rows: Tensor) -> tuple[list[Batch], Tensor]:
        """Return the chips of the rows (B,), those of one kind together, and the rows in that order."""
        parts, order, first = [], [], 0
        for kind in self.public:
            mine = rows[(rows >= first) & (rows < first + len(kind))]
            if len(mine):
                parts.append(Batch(kind.pixels[mine - first], kind.bands).to(self.device))
                order.append(mine)
            first += len(kind)
        return parts, torch.cat(order)

    def _ssl(self, model: PretrainingModel, parts: Sequence[Batch], generator: torch.Generator) -> Tensor:
        """Return the self-supervised loss, averaged over chips; 0 where none is left to contrast another with."""
        # Alone of its kind, a chip has nothing but itself to be contrasted with.
        fewest = 1 if self.config.train.recipe == "mae" else 2
        many = [part for part in parts if len(part) >= fewest]
        if not many:
            return torch.zeros((), device=self.device, requires_grad=True)
        total = sum(map(len, many))
        losses = [len(part) / total * self.recipe(model, None, part, generator).ssl for part in many]
        return torch.stack(losses).sum()

    def _features(self, model: PretrainingModel, batch: Batch) -> Tensor:
        """Return the normalised features (B, D) of chips of one kind."""
        model.read_bands(batch.bands)
        return F.normalize(model.embed(self._view(batch.pixels)).float(), dim=1)

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
        return epoch_batches(self.count, min(self.settings.batch_size, self.count), generator)

    def _view(self, batch: Tensor) -> Tensor:
        size = self.config.data.view_size
        return F.interpolate(batch.to(self.device), size=(size, size), mode="bilinear", antialias=True)

    def _rate(self, server_round: int) -> float:
        last_step = server_round * self.config.train.local_steps - 1
        return self.settings.learning_rate_factor * learning_rate(self.config, last_step)
