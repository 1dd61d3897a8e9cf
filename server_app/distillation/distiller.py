"""Clients-to-server guidance: what the clients make of public imagery, distilled into the
aggregated model.

DESIGN section 6. ``similarity`` and ``ensemble`` match only relations between images, so a client's
encoder may be rotated against the others'. Shapes: P public chips, B batch, D features, n clients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
from fedsense_core.ssl import Recipe
from fedsense_core.ssl.teacher import MovingTeacher
from fedsense_core.tensors import TensorTable

KEY_DECAY = 0.999
"""Decay of the moving average that makes FLESD's keys: the default of its public code, and of
MoCo."""


@dataclass(frozen=True)
class Teacher:
    """One client's view of the public imagery."""

    weight: float
    """a_i, the client's share."""
    features: Tensor
    """Normalised features (P, D), half precision: the encoder's, or projections where heads are
    distilled."""


@dataclass(frozen=True)
class Student:
    """The model that learns, and the moving averages of it that its losses look at; all new in
    every round."""

    model: PretrainingModel
    target: MovingTeacher | None
    """What the recipe learns from (byol)."""
    keys: MovingTeacher | None
    """What a batch is compared with (ensemble)."""

    def follow(self) -> None:
        """Move the averages towards the model."""
        for average in (self.target, self.keys):
            if average is not None:
                average.follow(self.model)


def similarities(z_BD: Tensor, temperature: float) -> Tensor:
    """Return the logits z zᵀ/τ of normalised features with the diagonal masked (B, B)."""
    logits = z_BD @ z_BD.T / temperature
    return logits.masked_fill(torch.eye(len(z_BD), dtype=torch.bool, device=z_BD.device), float("-inf"))


def similarity_loss(z_BD: Tensor, target_BB: Tensor, temperature: float) -> Tensor:
    """Return KL(Ā ‖ rowsoftmax(Z Zᵀ/τ_S)), averaged over rows (arXiv 2107.01152 distils the same
    relations)."""
    return row_divergence(target_BB, similarities(z_BD, temperature))


def row_divergence(target_BB: Tensor, logits_BB: Tensor) -> Tensor:
    """Return KL(target ‖ rowsoftmax(logits)), averaged over rows; logits may be -inf where the
    target is 0."""
    log_student = logits_BB.log_softmax(dim=1)
    entropy = torch.xlogy(target_BB, target_BB).sum(dim=1)
    cross = torch.where(target_BB > 0, target_BB * log_student, 0.0).sum(dim=1)
    return (entropy - cross).mean()


def ensemble_target(teachers_nBD: Tensor, temperature: float) -> Tensor:
    """Return FLESD's rows (B, B): the mean over clients of exp((M_i - row maximum)/τ_T), then
    normalised.

    M_i = R_i R_iᵀ of normalised features (Shi et al. 2021, arXiv 2109.14611, ensemble and
    sharpening; its public code). The row maximum is the chip's similarity to itself, 1 for every
    client. Rows are normalised after the mean: a client that finds a chip unlike all others says
    less about it, where ``similarity`` gives every client an equal say.
    """
    similar_nBB = teachers_nBD @ teachers_nBD.mT
    sharp_BB = ((similar_nBB - similar_nBB.amax(dim=2, keepdim=True)) / temperature).exp().mean(dim=0)
    return sharp_BB / sharp_BB.sum(dim=1, keepdim=True)


def attention(z_BD: Tensor, teachers_nBD: Tensor, temperature: float) -> Tensor:
    """Return the weight of each client for each chip (B, n): softmax over clients of <z, R_i>/τ_T.

    The adaptive knowledge integration of FedMKD (Li et al. 2024,
    openreview.net/forum?id=Of4iNAIUSe), whose code maps z and R_i by learned layers first; here
    they are compared as they are. Constant: no gradient.
    """
    return (torch.einsum("bd,nbd->bn", z_BD.detach(), teachers_nBD) / temperature).softmax(dim=1)


def integrated(weights_Bn: Tensor, teachers_nBD: Tensor) -> Tensor:
    """Return the clients' joint features, normalised Σ_i a_i R_i (B, D)."""
    return F.normalize(torch.einsum("bn,nbd->bd", weights_Bn, teachers_nBD), dim=1)


def contrast(z_BD: Tensor, target_BD: Tensor, temperature: float) -> Tensor:
    """Return the cross entropy of each chip finding its own target among those of the batch
    (InfoNCE)."""
    return F.cross_entropy(z_BD @ target_BD.T / temperature, torch.arange(len(z_BD), device=z_BD.device))


class Distiller:
    """Moves the aggregated model on the public set; also its three controls. SiteError for fewer
    than 2 chips."""

    def __init__(self, config: Config, public: Sequence[Batch], recipe: Recipe, device: torch.device) -> None:
        self.config = config
        self.settings = config.distillation
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
    def needs_teachers(self) -> bool:
        """True where the clients' encoders are asked; the controls do without."""
        return self.settings.asks_clients

    @property
    def projects(self) -> bool:
        """True where projections are compared, so that heads learn too: without averaging nothing
        else moves them.

        FLESD and FedMKD compare the outputs of their heads. Masked images train no projector.
        """
        return self.settings.kind in ("ensemble", "multi-teacher") and self.config.train.recipe != "mae"

    @torch.no_grad()
    def look(self, model: PretrainingModel, weight: float) -> Teacher:
        """Embed the public set with one teacher: features (P, D)."""
        model.to(self.device).eval()
        pieces = [Batch(pixels, kind.bands) for kind in self.public for pixels in torch.split(kind.pixels, 256)]
        return Teacher(weight, self._normalised(self._represent(model, pieces)).half().cpu())

    def distil(
        self, model: PretrainingModel, table: TensorTable, teachers: Sequence[Teacher], server_round: int
    ) -> tuple[Tensor, float]:
        """Train ``model`` (the aggregated one) for a few steps; return its new flat weights (N,)
        and the mean loss.

        What does not travel stays as it was drawn: no checkpoint holds it, so a continued run would
        begin with other values than the run that it continues.
        """
        teachers = [self.look(model, 1.0)] if self.settings.kind == "self" else teachers
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
                student.follow()
                total += float(loss.detach())
        return table.read(model).float(), total / self.settings.steps

    def _student(self, model: PretrainingModel) -> Student:
        trains = self.settings.kind == "public-ssl" or self.settings.public_weight > 0
        follows = trains and self.config.needs_teacher
        target = MovingTeacher(model, self.config.train.teacher_decay) if follows else None
        keys = MovingTeacher(model, KEY_DECAY) if self.settings.kind == "ensemble" else None
        return Student(model, target, keys)

    def _loss(self, student: Student, teachers: Sequence[Teacher], rows: Tensor, seed: int) -> Tensor:
        parts, rows = self._pick(rows)
        generator = torch.Generator().manual_seed(seed)
        if self.settings.kind == "public-ssl":
            return self._ssl(student, parts, generator)
        loss = self._taught(student, teachers, parts, rows, generator)
        if self.settings.public_weight:
            loss = loss + self.settings.public_weight * self._ssl(student, parts, generator)
        return loss

    def _taught(
        self,
        student: Student,
        teachers: Sequence[Teacher],
        parts: Sequence[Batch],
        rows: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Return the distance of the student to what the teachers make of the chips of the rows
        (B,)."""
        tau_s, tau_t = self.settings.student_temperature, self.settings.teacher_temperature
        if student.keys is not None:
            queries, others = (self._augmented(parts, generator) for _ in range(2))
            q_BD = self._normalised(self._represent(student.model, queries))
            with torch.no_grad():
                k_BD = self._normalised(self._represent(student.keys.model, others))
            return row_divergence(ensemble_target(self._stack(teachers, rows), tau_t), q_BD @ k_BD.T / tau_s)
        z_BD = self._represent(student.model, parts)
        if self.settings.kind == "multi-teacher":
            predictor = student.model.predictor if self.projects else None
            z_BD = self._normalised(z_BD if predictor is None else predictor(z_BD))
            teachers_nBD = self._stack(teachers, rows)
            return contrast(z_BD, integrated(attention(z_BD, teachers_nBD, tau_t), teachers_nBD), tau_s)
        return similarity_loss(self._normalised(z_BD), self._target(teachers, rows), tau_s)

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
        fewest = 1 if self.config.train.recipe == "mae" else 2
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

    @staticmethod
    def _normalised(z_BD: Tensor) -> Tensor:
        return F.normalize(z_BD.float(), dim=1)

    def _augmented(self, parts: Sequence[Batch], generator: torch.Generator) -> list[Batch]:
        return [Batch(augment(part.pixels, self.recipe.policy, generator), part.bands) for part in parts]

    def _stack(self, teachers: Sequence[Teacher], rows: Tensor) -> Tensor:
        """Return the teachers' features of the rows, (n, B, D)."""
        return torch.stack([teacher.features[rows] for teacher in teachers]).to(self.device).float()

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
