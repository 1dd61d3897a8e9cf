"""Local training under guidance: K steps from the shifted global model, and the update that goes back.

This file is the client's half of DESIGN section 3; ``server_app/strategy.py`` is the server's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from client_app.guidance import Ascent, global_direction, shift
from client_app.optimiser import ShiftedAdamW
from fedsense_core.data import Batch
from fedsense_core.models import PretrainingModel
from fedsense_core.protocol.replica import Replica
from fedsense_core.schedule import learning_rate
from fedsense_core.seeds import seed_of
from fedsense_core.settings import Config
from fedsense_core.ssl import Recipe, StepLoss
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


def train_locally(
    config: Config,
    model: PretrainingModel,
    table: TensorTable,
    recipe: Recipe,
    batches: Iterator[Batch | Tensor],
    start: Start,
) -> Outcome:
    """Run K steps of AdamW on L_ssl + μ L_align from ŵ + shift; ``model`` is overwritten.

    ``batches`` yields standardised chips on any device; bare tensors (B, C, H, W) do for models of fixed bands.
    Raises FloatingPointError if the loss stops being finite.
    """
    device = next(model.parameters()).device
    direction = global_direction(
        start.replica.momentum, table, config.guidance, seed_of("direction", config.run.seed, start.round)
    )
    offset = shift(direction, start.radii, table) if config.guidance.kind == "shift" else torch.zeros_like(direction)
    origin = start.replica.weights.to(offset.dtype) + offset
    anchor = _anchor(config, model, table, start.replica.weights, origin)
    table.write(origin, model)
    begin = table.read(model)  # what the model really holds, in its own precision
    optimiser = ShiftedAdamW(model, config.train, table.unflatten(offset))
    optimiser.load_state(start.optimiser)
    ascent = Ascent(config.guidance, list(model.named_parameters()), table, start.radii, direction)
    generator = torch.Generator().manual_seed(start.seed)
    model.train()
    totals = torch.zeros(2, dtype=torch.float64)
    examples = 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for step in range(config.train.local_steps):
            batch = next(batches).to(device)
            losses = _step(config, model, anchor, recipe, batch, device, generator, ascent, step)
            optimiser.step(learning_rate(config, start.steps_done + step))
            totals += torch.tensor(losses, dtype=torch.float64)
            examples += len(batch)
    means = (totals / config.train.local_steps).tolist()
    if not all(map(math.isfinite, means)):
        raise FloatingPointError(
            f"the loss became {means[0]}; lower train.learning_rate (now {config.train.learning_rate})"
        )
    return Outcome(table.read(model) - begin, optimiser.state(), means[0], means[1], examples, float(offset.norm()))


def _step(
    config: Config,
    model: PretrainingModel,
    anchor: PretrainingModel | None,
    recipe: Recipe,
    batch: Batch | Tensor,
    device: torch.device,
    generator: torch.Generator,
    ascent: Ascent,
    step: int,
) -> tuple[float, float]:
    """Leave one step's gradient in the parameters and return its two losses."""
    model.zero_grad(set_to_none=True)
    draws, dropout_seed = generator.get_state(), generator.initial_seed() ^ step
    seen: list[StepLoss] = []

    def loss() -> Tensor:
        # A second look at the step sees the same views and masks; dropout, where a model has it, draws globally.
        generator.set_state(draws)
        torch.manual_seed(dropout_seed)
        with torch.autocast(device.type, torch.bfloat16, enabled=_uses_bf16(config, device)):
            terms = recipe(model, anchor, batch, generator)
        seen.append(terms)
        return terms.total(config.alignment_weight)

    ascent.backward(loss, step)
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
