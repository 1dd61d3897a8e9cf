"""Clients-to-server guidance: what the clients make of public imagery, distilled into the
aggregated model (docs/method.md, section 6).

Shapes: P public chips, B batch, D features, n clients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsense_core.config import Config
from fedsense_core.data.batches.augment import augment
from fedsense_core.data.batches.batch import Batch, epoch_batches
from fedsense_core.errors import SiteError
from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.schedule import learning_rate
from fedsense_core.seeds import seed_of
from fedsense_core.ssl.recipe import Recipe
from fedsense_core.ssl.teacher import MovingTeacher
from fedsense_core.tensors import TensorTable
from server_app.aggregation.rule import weights_of
from server_app.distillation.objective import Objective, Step, Student, Teacher, normalised
from server_app.round import Accepted


class Distiller:
    """Moves the aggregated model on the public set. SiteError for fewer than 2 chips."""

    def __init__(self, config: Config, public: Sequence[Batch], recipe: Recipe, device: torch.device) -> None:
        self.config = config
        self.settings = config.distillation
        self.objective = Objective.of(config.distillation)
        self.public = public
        """The whole public set, P chips in all; one batch for each kind, which differ in their
        bands."""
        self.count = sum(map(len, public))
        if self.count < 2:
            raise SiteError(
                f"the public imagery (federation.public) gives {self.count} chip, and distillation compares chips with "
                "one another: add imagery, lower data.chip_size, or set distillation.kind = 'none'"
            )
        self.recipe = recipe
        self.device = device

    @property
    def asks_clients(self) -> bool:
        """True where the clients' encoders are teachers; the controls do without."""
        return self.objective.teachers == "clients"

    @property
    def public_weight(self) -> float:
        """λ_pub; 1 where nobody teaches."""
        return 1.0 if self.objective.teachers == "nobody" else self.settings.public_weight

    @property
    def projects(self) -> bool:
        """True where projections are compared. Masked images train no projector."""
        return self.objective.compares_heads and not self.config.train.traits.masks

    def teachers(self, accepted: Sequence[Accepted], model: PretrainingModel, table: TensorTable) -> list[Teacher]:
        """Return what each client's encoder makes of the public set; ``model`` is overwritten."""
        found = []
        for one, weight in zip(accepted, weights_of(accepted), strict=True) if self.asks_clients else ():
            table.write(one.model(), model)
            found.append(self.teacher(model, weight))
        return found

    @torch.no_grad()
    def teacher(self, model: PretrainingModel, weight: float) -> Teacher:
        """Embed the public set with one teacher: features (P, D)."""
        model.to(self.device).eval()
        pieces = [Batch(pixels, kind.bands) for kind in self.public for pixels in torch.split(kind.pixels, 256)]
        return Teacher(weight, normalised(self._represent(model, pieces)).half().cpu())

    def distil(
        self, model: PretrainingModel, table: TensorTable, teachers: Sequence[Teacher], server_round: int
    ) -> tuple[Tensor, float]:
        """Train ``model`` (the aggregated one) for a few steps; return its new flat weights (N,)
        and the mean loss.

        What does not travel stays as it was drawn: no checkpoint holds it, so a continued run would
        begin with other values than the run that it continues.
        """
        if self.objective.teachers == "student":
            teachers = [self.teacher(model, 1.0)]
        student = self._student(model.to(self.device).train())
        named = dict(model.named_parameters())
        optimiser = torch.optim.Adam([named[spec.name] for spec in table.specs], lr=self._rate(server_round))
        total = 0.0
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            for step, rows in zip(range(self.settings.steps), self._rows(server_round), strict=False):
                seed = seed_of(self.config.run.seed, "distil", server_round, step)
                torch.manual_seed(seed)  # dropout, where a model has it, draws globally
                model.zero_grad(set_to_none=True)
                loss = self._loss(student, teachers, rows, seed)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                student.ema_update()
                total += float(loss.detach())
        return table.read(model).float(), total / self.settings.steps

    def _student(self, model: PretrainingModel) -> Student:
        target = keys = None
        if self.public_weight and self.config.needs_teacher:
            target = MovingTeacher(model, self.config.train.teacher_decay)
        if self.objective.key_decay is not None:
            keys = MovingTeacher(model, self.objective.key_decay)
        return Student(model, target, keys)

    def _loss(self, student: Student, teachers: Sequence[Teacher], rows: Tensor, seed: int) -> Tensor:
        """Return the distance to the teachers + λ_pub L_ssl of the chips of the rows (B,)."""
        step, generator = self._step(student, teachers, rows, seed)
        if self.objective.teachers == "nobody":
            return self._ssl(student, step.parts, generator)
        loss = self.objective.distance(step)
        if self.public_weight:
            loss = loss + self.public_weight * self._ssl(student, step.parts, generator)
        return loss

    def _step(
        self, student: Student, teachers: Sequence[Teacher], rows: Tensor, seed: int
    ) -> tuple[Step, torch.Generator]:
        parts, rows = self._pick(rows)
        generator = torch.Generator().manual_seed(seed)

        def views() -> list[Batch]:
            return [Batch(augment(part.pixels, self.recipe.policy, generator), part.bands) for part in parts]

        return Step(student, teachers, parts, rows, self._represent, views, self.projects), generator

    def _pick(self, rows: Tensor) -> tuple[list[Batch], Tensor]:
        """Return the chips of the rows (B,), those of one kind together, and the rows in that
        order."""
        parts, order, first = [], [], 0
        for kind in self.public:
            mine = rows[(rows >= first) & (rows < first + len(kind))]
            if len(mine):
                parts.append(Batch(kind.pixels[mine - first], kind.bands).to(self.device))
                order.append(mine)
            first += len(kind)
        return parts, torch.cat(order)

    def _ssl(self, student: Student, parts: Sequence[Batch], generator: torch.Generator) -> Tensor:
        """Return the self-supervised loss, averaged over chips; 0 where none is left to contrast
        another with."""
        # Alone of its kind, a chip has nothing but itself to be contrasted with.
        fewest = self.config.train.traits.fewest_chips
        many = [part for part in parts if len(part) >= fewest]
        if not many:
            return torch.zeros((), device=self.device, requires_grad=True)
        total, teacher = sum(map(len, many)), student.target.model if student.target else None
        losses = [len(one) / total * self.recipe(student.model, None, one, generator, teacher).ssl for one in many]
        return torch.stack(losses).sum()

    def _represent(self, model: PretrainingModel, parts: Sequence[Batch]) -> Tensor:
        """Return encoder features or projections (B, D) of chips, each part of one kind."""
        pieces = []
        for part in parts:
            model.read_bands(part.bands)
            pieces.append(model.embed(self._view(part.pixels)))
        z_BD = torch.cat(pieces)
        # All kinds together: the projector normalises by its batch, and a chip may be alone of its
        # kind.
        return model.projector(z_BD) if self.projects else z_BD

    def _rows(self, server_round: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed_of(self.config.run.seed, "public", server_round))
        return epoch_batches(self.count, min(self.settings.batch_size, self.count), generator)

    def _view(self, batch: Tensor) -> Tensor:
        size = self.config.data.view_size
        return F.interpolate(batch.to(self.device), size=(size, size), mode="bilinear", antialias=True)

    def _rate(self, server_round: int) -> float:
        last_step = server_round * self.config.train.local_steps - 1
        return self.settings.learning_rate_factor * learning_rate(self.config, last_step)
