"""Local training under guidance: K steps from the shifted global model, and the update that goes
back.

This file is the client's half of docs/method.md, section 3; ``server_app/strategy.py`` is the
server's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from client_app.drift import GlobalMomentum, Proximal
from client_app.guidance.direction import global_direction
from client_app.guidance.guidance import Guidance
from client_app.optimiser import inner_optimiser
from client_app.personalisation import PersonalModels, personalised_start, shifted_teacher, unshifted
from fedsense_core.config import Config
from fedsense_core.data.batches.batch import Batch
from fedsense_core.device import full_float32
from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.protocol.replica import Replica
from fedsense_core.schedule import learning_rate
from fedsense_core.seeds import seed_of
from fedsense_core.ssl.recipe import Recipe
from fedsense_core.ssl.sigreg import SigregStatistics
from fedsense_core.ssl.step import StepLoss
from fedsense_core.tensors import TensorTable


@dataclass(frozen=True)
class Start:
    """Where a client's round begins."""

    round: int
    replica: Replica
    radii: Tensor
    """ρ_l (L,)."""
    seed: int
    """Names every random choice of this client in this round."""
    steps_done: int = 0
    """Steps of earlier rounds; places the round on the learning-rate schedule."""
    optimiser: dict[str, Tensor] = field(default_factory=dict)
    personal: PersonalModels = field(default_factory=PersonalModels)


@dataclass(frozen=True)
class Outcome:
    """What a round of local training leaves."""

    delta: Tensor
    """Δ = w - (ŵ + shift), (N,)."""
    optimiser: dict[str, Tensor]
    ssl_loss: float
    alignment_loss: float
    examples: int
    shift_norm: float
    personal: PersonalModels = field(default_factory=PersonalModels)
    personal_share: float = 0.0
    """Share of the client's own model in its start, of the tensors that are personal."""
    sums: SigregStatistics | None = None
    """Over the embeddings of all batches, for the other clients' next round
    (``train.federated_sigreg``)."""


def train_locally(
    config: Config,
    model: PretrainingModel,
    table: TensorTable,
    recipe: Recipe,
    batches: Iterator[Batch | Tensor],
    start: Start,
) -> Outcome:
    """Run K steps of the inner optimiser on L_ssl + μ L_align from ŵ + shift; ``model`` is
    overwritten.

    ``batches`` yields standardised chips on any device; bare tensors (B, C, H, W) do for models of
    fixed bands. Raises FloatingPointError if the loss stops being finite.
    """
    training = _Training(config, model, table, recipe, start)
    device = training.device
    totals = torch.zeros(2, dtype=torch.float64)
    examples = 0
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        full_float32(config.train.precision == "fp32"),
    ):
        for step in range(config.train.local_steps):
            batch = next(batches).to(device)
            totals += torch.tensor(training.step(batch, step), dtype=torch.float64)
            examples += len(batch)
    means = (totals / config.train.local_steps).tolist()
    if not all(map(math.isfinite, means)):
        raise FloatingPointError(
            f"the loss became {means[0]}; lower train.learning_rate (now {config.train.learning_rate})"
        )
    return training.outcome(means[0], means[1], examples)


class _Training:
    """A client's model and all that reads or moves it within a round."""

    def __init__(
        self, config: Config, model: PretrainingModel, table: TensorTable, recipe: Recipe, start: Start
    ) -> None:
        self.config, self.model, self.table, self.recipe, self.start = config, model, table, recipe, start
        self.device = next(model.parameters()).device
        replica = start.replica
        direction = global_direction(
            replica.momentum, table, config.guidance, seed_of("direction", config.run.seed, start.round)
        )
        self.guidance = Guidance.of(config.guidance, table, start.radii, direction, self.device)
        self.offset = self.guidance.offset()
        origin = replica.weights.to(self.offset.dtype) + self.offset
        self.anchor = _anchor(config, model, table, replica.weights, origin)
        table.write(origin, model)
        self.begin = table.read(model)  # what the model really holds, in its own precision
        offsets = table.unflatten(self.offset)
        self.teacher = shifted_teacher(config, model, offsets, start.personal.teacher)
        self.begun = personalised_start(config.personalisation, replica.weights, start.personal, table)
        if self.begun.share:
            table.write(self.begun.weights + self.offset, model)
        self.optimiser = inner_optimiser(model, config.train, offsets)
        self.optimiser.load_state(start.optimiser)
        self.parameters = dict(model.named_parameters())
        travelling = [self.parameters[spec.name] for spec in table.specs]
        self.proximal = Proximal(config.train.proximal, travelling, self.begin, table)
        self.momentum = GlobalMomentum(config, travelling, table, replica.momentum, start.steps_done)
        self.generator = torch.Generator().manual_seed(start.seed)
        self.sums: SigregStatistics | None = None
        model.train()

    def step(self, batch: Batch | Tensor, step: int) -> tuple[float, float]:
        """Move the model by one step and return its two losses."""
        ssl, alignment = self._gradient(batch, step)
        self.proximal.pull()
        rate = learning_rate(self.config, self.start.steps_done + step)
        self.optimiser.step((1 - self.momentum.share) * rate)
        self.momentum.repeat(rate)
        if self.teacher is not None:
            self.teacher.ema_update(self.model)
        return ssl, alignment

    def outcome(self, ssl_loss: float, alignment_loss: float, examples: int) -> Outcome:
        """Return what the round leaves."""
        end = self.table.read(self.model)
        personal = PersonalModels(
            trained=end - self.offset if self.config.personalisation.kind != "none" else None,
            scaler=self.begun.scaler,
            teacher=unshifted(self.teacher, self.table.unflatten(self.offset)),
        )
        return Outcome(
            delta=end - self.begin,
            optimiser=self.optimiser.state(),
            ssl_loss=ssl_loss,
            alignment_loss=alignment_loss,
            examples=examples,
            shift_norm=float(self.offset.norm()),
            personal=personal,
            personal_share=self.begun.share,
            sums=self.sums,
        )

    def _gradient(self, batch: Batch | Tensor, step: int) -> tuple[float, float]:
        """Leave one step's gradient in the parameters and return its two losses."""
        self.model.zero_grad(set_to_none=True)
        draws, dropout_seed = self.generator.get_state(), self.generator.initial_seed() ^ step
        teacher = None if self.teacher is None else self.teacher.model
        bf16 = _uses_bf16(self.config, self.device)
        seen: list[StepLoss] = []

        def loss() -> Tensor:
            # A second look at the step sees the same views and masks; dropout, where a model has
            # it, draws globally.
            self.generator.set_state(draws)
            torch.manual_seed(dropout_seed)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                terms = self.recipe(self.model, self.anchor, batch, self.generator, teacher)
            seen.append(terms)
            return terms.total(self.config.alignment_weight)

        self.guidance.backward(loss, self.parameters, step)
        if (new := seen[0].sums) is not None:
            self.sums = new if self.sums is None else self.sums + new
        return float(seen[0].ssl.detach()), float(seen[0].alignment.detach())


def _anchor(
    config: Config, model: PretrainingModel, table: TensorTable, weights: Tensor, origin: Tensor
) -> PretrainingModel | None:
    """Return the frozen universal encoder, or None where alignment is off."""
    if config.alignment_weight == 0:
        return None
    anchor = deepcopy(model).eval().requires_grad_(False)
    table.write(weights if config.alignment.target == "global" else origin, anchor)
    return anchor


def _uses_bf16(config: Config, device: torch.device) -> bool:
    precision = config.train.precision
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")
