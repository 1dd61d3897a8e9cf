"""Federated averaging on data that fits in memory, through the project's own local training, frames
and mean.

What the anchors of ``anchors.py`` share. A client's data are rows: features, and the target in the
last column. Each round every chosen client runs `client_app.training.train_locally`, what it made
travels as a frame through a file, and `server_app.aggregation.rule.weighted_mean` and
`server_app.outer_optimiser.outer_optimiser.OuterOptimiser` make the next model of it. Only the loss
and the network are not the project's.

Shapes: n rows of one client, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from client_app.training import Start, train_locally
from fedsense_core.codecs.codec import codec_of
from fedsense_core.config import Config, resolve
from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.protocol.broadcast import Stream
from fedsense_core.protocol.frame import FrameHeader, pack
from fedsense_core.protocol.replica import Replica
from fedsense_core.seeds import seed_of
from fedsense_core.ssl.recipe import Recipe
from fedsense_core.ssl.step import StepLoss
from fedsense_core.tensors import TensorTable
from server_app.aggregation.rule import weighted_mean
from server_app.outer_optimiser.outer_optimiser import OuterOptimiser
from server_app.round import Accepted, Expected

ENDLESS = 10**9
"""Rounds of the schedule: its cosine stays at 1, since the published settings keep their learning
rate."""

Loss = Callable[[nn.Module, Tensor], Tensor]
"""From a model and rows (B, F + 1) to a scalar."""


@dataclass(frozen=True)
class Setting:
    """How clients train, in the words of McMahan et al. 2017."""

    learning_rate: float
    epochs: int = 1
    """E: passes over a client's rows in a round."""
    batch_size: int | None = None
    """B; None is all rows at once."""
    proximal: float = 0.0
    """μ of FedProx."""
    preset: str = "fedavg"

    def config(self, rows: int, seed: int) -> Config:
        """Return the settings of a client with ``rows`` rows; SGD without momentum, decay or
        schedule."""
        batch = min(rows, self.batch_size or rows)
        return resolve(
            {
                "preset": self.preset,
                "run.rounds": ENDLESS,
                "run.seed": seed,
                "train.optimiser": "sgd",
                "train.momentum": 0.0,
                "train.weight_decay": 0.0,
                "train.warmup": 0.0,
                "train.precision": "fp32",
                "train.proximal": self.proximal,
                "train.learning_rate": self.learning_rate,
                "train.batch_size": batch,
                "train.local_steps": self.epochs * math.ceil(rows / batch),
            },
            {},
        )


class RowLoss(Recipe):
    """The loss of rows of numbers, without views."""

    name = "rows"

    def __init__(self, config: Config, compute: Loss) -> None:
        super().__init__(config)
        self.compute = compute

    def loss(self, model: nn.Module, anchor: object, rows: Tensor, *_: object) -> StepLoss:
        """Return the loss, and no alignment."""
        return StepLoss(self.compute(model, rows), torch.zeros(()))


class Federation:
    """Clients and a server on one machine; ``weights`` (N,) is the global model."""

    def __init__(
        self, model: nn.Module, loss: Loss, clients: Sequence[Tensor], setting: Setting, seed: int, folder: Path
    ) -> None:
        self.model, self.clients, self.seed, self.folder = model, clients, seed, folder
        configs = {rows: setting.config(rows, seed) for rows in {len(client) for client in clients}}
        self.configs = [configs[len(client)] for client in clients]
        self.config = self.configs[0]
        self.recipe = RowLoss(self.config, loss)
        self.codec = codec_of(self.config.uplink)
        self.outer = OuterOptimiser.of(self.config.outer)
        self.stream = Stream(0, seed, TensorTable.of(model), None)
        self.weights = self.stream.table.read(model)
        self.round = 0

    def run_round(self, chosen: Sequence[int]) -> None:
        """Let the chosen clients train, and move the global model to what their mean makes of
        it."""
        self.round += 1
        replica = Replica(self.round, self.weights, torch.zeros_like(self.weights))
        expected = Expected(self.config, self.stream, self.round, replica, replica.digest())
        accepted = [self._train(client, expected) for client in sorted(chosen)]
        mean = weighted_mean(accepted)
        self.weights = mean if self.config.sends_models else self.outer.step(self.weights, mean)

    def draw(self, count: int) -> list[int]:
        """Return ``count`` clients drawn at random for the next round, without replacement."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.round, "clients"))
        return [int(client) for client in torch.randperm(len(self.clients), generator=generator)[:count]]

    @torch.no_grad()
    def accuracy(self, rows: Tensor) -> float:
        """Return the share of ``rows`` (n, F + 1) that the global model classifies as their last
        column says."""
        self.stream.table.write(self.weights, self.model)
        return float((self.model(rows[:, :-1]).argmax(1) == rows[:, -1]).float().mean())

    def _train(self, client: int, expected: Expected) -> Accepted:
        config, site = self.configs[client], f"client{client:03d}"
        seed = seed_of(self.seed, self.round, site)
        start = Start(self.round, expected.replica, torch.zeros(len(self.stream.table)), seed)
        rows = batches(self.clients[client], config.train.batch_size, torch.Generator().manual_seed(seed))
        model = cast(PretrainingModel, self.model)  # any module does where the recipe knows what to do with it
        outcome = train_locally(config, model, self.stream.table, self.recipe, rows, start)
        value = self.stream.table.read(self.model) if config.sends_models else outcome.delta
        path = self.folder / f"{site}.frame"
        payload = self.codec.encode(value, self.stream.table, self.stream.update_seed(self.round, site))
        pack(self._header(expected, len(payload)), payload).tofile(path)
        return Accepted(site, outcome.examples, float(outcome.delta.norm()), {}, "", expected, path)

    def _header(self, expected: Expected, payload_bytes: int) -> FrameHeader:
        return FrameHeader(
            kind=expected.kind,
            run_id=self.stream.run_id,
            round=self.round,
            base_version=expected.replica.version,
            base_digest=expected.digest,
            codec_id=self.codec.id,
            bits=self.codec.bits,
            elements=self.stream.table.numel,
            table_digest=self.stream.table.digest,
            payload_bytes=payload_bytes,
        )


def batches(rows: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield shuffled batches, pass after pass; the last of a pass may be smaller."""
    while True:
        yield from torch.split(rows[torch.randperm(len(rows), generator=generator)], size)


def cross_entropy(model: nn.Module, rows: Tensor) -> Tensor:
    """Return the mean cross-entropy of the classes in the last column."""
    return F.cross_entropy(model(rows[:, :-1]), rows[:, -1].long())


def half_squares(model: nn.Module, rows: Tensor) -> Tensor:
    """Return half of the mean squared error to the last column."""
    missed: Tensor = model(rows[:, :-1])[:, 0] - rows[:, -1]
    return missed.square().mean() / 2
