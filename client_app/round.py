"""The two things a client does when asked: say what it has, and train a round. Both always end in
an answer."""

from __future__ import annotations

import re
import time

import numpy as np
import torch
from flwr.app import Context
from torch import Tensor

from client_app.identity import Place
from client_app.memory import ClientMemory, Slot
from client_app.personalisation import OwnModels
from client_app.training import Outcome, Start, train_locally
from client_app.uplink.feedback import Uplink, still_owed
from fedsense_core.codecs import codec_of
from fedsense_core.config import Config, resolve
from fedsense_core.data.batches.feeding import Feed, draws
from fedsense_core.device import chosen_device
from fedsense_core.errors import FedSenseError
from fedsense_core.fingerprint import source_digest
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.broadcast import NeedsSnapshot, Stream, receive
from fedsense_core.protocol.frame import FrameHeader, FrameKind, pack
from fedsense_core.protocol.messages import Hello, TrainReply, TrainTask
from fedsense_core.protocol.prediction import prediction
from fedsense_core.protocol.replica import Replica
from fedsense_core.seeds import seed_of
from fedsense_core.ssl import build_recipe
from fedsense_core.ssl.federated import FederatedSigreg, Offset
from fedsense_core.tensors import TensorTable


def introduce(context: Context, run_id: int) -> Hello:
    """Say who this client is, what it can train on and which rounds it remembers; a problem is part
    of the answer."""
    try:
        config = resolve(context.run_config)
        place = Place.of(context, config)
        held = [chips for kinds in place.open(config) for chips in kinds]
        statistics = place.statistics(config)
    except FedSenseError as error:
        return Hello(site="", code=source_digest(), problem=without_folders(str(error)))
    return Hello(
        site=place.name,
        chips=sum(map(len, held)),
        skipped=sum(len(chips.skipped) for chips in held),
        rounds=tuple(ClientMemory(place.state_dir, run_id).rounds()),
        code=source_digest(),
        statistics=statistics,
    )


def train(context: Context, task: TrainTask) -> TrainReply:
    """Train one round and answer with a coded update, or say why not: never a guess, never
    silence."""
    site = "?"
    try:
        config = resolve(context.run_config)
        place = Place.of(context, config)
        site = place.name
        _check_agreement(config, task)
        return Worker(config, place, task).run()
    except NeedsSnapshot:
        return TrainReply(site, "needs-snapshot", "it does not hold what this round builds on and needs a snapshot")
    except (FedSenseError, FloatingPointError, OSError, ValueError, torch.OutOfMemoryError) as error:
        return TrainReply(site, "refused", without_folders(f"{type(error).__name__}: {error}"))


class Worker:
    """One client's round: receive, train, code, remember."""

    def __init__(self, config: Config, place: Place, task: TrainTask) -> None:
        self.config, self.place, self.task = config, place, task
        self.device = chosen_device()
        self.model = build_model(config)
        self.table = TensorTable.of(self.model, config.model.local_parameters)
        self.stream = Stream(task.run_id, config.run.seed, self.table, config.momentum_in_use)
        self.memory = ClientMemory(place.state_dir, task.run_id)
        self.waited_s = 0.0
        """Seconds for which training waited for chips."""

    def run(self) -> TrainReply:
        """Return the reply of this round; what it changes is pending until the server acknowledges
        it."""
        began = time.monotonic()
        slot = self.memory.recall(self.task.acknowledged)
        replica = self._receive(slot)
        outcome = self._train(replica, slot)
        trained = time.monotonic()
        owed, note = still_owed(slot, self.task, self.table, self.config.feedback_in_use)
        frame, residual = self._encode(outcome.delta, replica, owed)
        self._remember(replica, residual, outcome)
        metrics = {
            "num-examples": outcome.examples,
            "ssl-loss": outcome.ssl_loss,
            "alignment-loss": outcome.alignment_loss,
            "shift-norm": outcome.shift_norm,
            "train-seconds": trained - began,
            "data-seconds": self.waited_s,
            "codec-seconds": time.monotonic() - trained,
        }
        if self.config.retention.kind != "none":
            metrics["retained"] = outcome.retained
        sums = outcome.sums.to_bytes() if outcome.sums else b""
        return TrainReply(self.place.name, "trained", metrics=metrics, frame=frame, note=note, sums=sums)

    def _receive(self, slot: Slot | None) -> Replica:
        replica = receive(slot.replica if slot else None, self.task.frames, self.stream)
        if replica.version != self.task.version:
            raise NeedsSnapshot
        return replica

    def _train(self, replica: Replica, slot: Slot | None) -> Outcome:
        if slot and slot.local:
            self.model.load_state_dict(slot.local, strict=False)
        self.model.to(self.device).to(memory_format=torch.channels_last)  # convolutions run faster on it
        start = Start(
            round=self.task.round,
            replica=replica,
            radii=torch.from_numpy(self.task.radii),
            seed=self._seed("steps"),
            steps_done=(self.task.round - 1) * self.config.train.local_steps,
            optimiser=slot.optimiser if slot else {},
            own=slot.own if slot else OwnModels(),
        )
        recipe = build_recipe(self.config, self._federated_sigreg())
        with self._feed() as batches:
            outcome = train_locally(self.config, self.model, self.table, recipe, batches, start)
            self.waited_s = batches.waited_s
        return outcome

    def _federated_sigreg(self) -> FederatedSigreg | None:
        data, directions = self.task.offset, self.config.train.sigreg_directions
        offset = Offset.from_bytes(data, directions) if data else None
        return FederatedSigreg.of(self.config, self.task.round, offset)

    def _feed(self) -> Feed:
        generator = torch.Generator().manual_seed(self._seed("batches"))
        return Feed(draws(self.place.open(self.config), self.config.train.batch_size, generator), self.device)

    def _encode(self, delta: Tensor, replica: Replica, owed: Tensor | None) -> tuple[np.ndarray, Tensor | None]:
        """Return the frame of q = Q_b(Δ + e - γ m̂) and the new residual e'; for full models, the
        frame of w."""
        exact = self.config.sends_models
        link = self.config.uplink
        codec = codec_of(link)
        seed = self.stream.update_seed(self.task.round, self.place.name)
        uplink = Uplink(codec, self.table, seed, self.config.feedback_in_use)
        predicted = prediction(torch.from_numpy(self.task.gammas), replica.momentum, self.table)
        payload, residual = uplink.send(self.table.read(self.model) if exact else delta, owed, predicted)
        header = FrameHeader(
            kind=FrameKind.MODEL if exact else FrameKind.UPDATE,
            run_id=self.task.run_id,
            round=self.task.round,
            base_version=replica.version,
            base_digest=replica.digest(),
            codec_id=codec.id,
            bits=codec.bits,
            elements=self.table.numel,
            table_digest=self.table.digest,
            payload_bytes=len(payload),
        )
        return pack(header, payload), residual

    def _remember(self, replica: Replica, residual: Tensor | None, outcome: Outcome) -> None:
        travelling = {spec.name for spec in self.table.specs}
        local = {name: value for name, value in self.model.state_dict().items() if name not in travelling}
        self.memory.keep(Slot(self.task.round, replica, residual, outcome.optimiser, local, outcome.own))

    def _seed(self, purpose: str) -> int:
        return seed_of(self.config.run.seed, self.place.name, self.task.round, purpose)


def without_folders(text: str) -> str:
    """Return ``text`` with paths cut to their last part: a coordinator need not know an
    institution's disks."""
    return re.sub(r"(?<![\w.])/(?:[^\s/:'\"]+/)+", "", text)


def _check_agreement(config: Config, task: TrainTask) -> None:
    if task.code != source_digest():
        raise FedSenseError(
            f"this client runs other code ({source_digest()}) than the server ({task.code}). In a simulation an old "
            "Flower daemon may serve another folder: stop it and start again from a neutral directory"
        )
    if task.config_digest != config.digest:
        raise FedSenseError(
            f"this client reads another configuration ({config.digest}) than the server ({task.config_digest})"
        )
