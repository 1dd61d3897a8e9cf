"""The two things a client does when asked: answer a handshake, and train a round. Both always end
in an answer."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from logging import WARNING

import numpy as np
import torch
from flwr.app import Context
from flwr.common.logger import log
from safetensors import SafetensorError
from torch import Tensor

from client_app.allowance import allowed
from client_app.identity import Identity
from client_app.memory import ClientMemory, Slot
from client_app.personalisation import PersonalModels
from client_app.training import Outcome, Start, train_locally
from fedsense_core.config import Config, resolve
from fedsense_core.data.batches.feeding import Feed, draws
from fedsense_core.data.chips.sensor_statistics import SharedStatistics
from fedsense_core.data.overlap import OverlapShares, overlap_texts, shares_as_bytes, shares_asked
from fedsense_core.device import chosen_device, peak_memory
from fedsense_core.errors import FedSenseError
from fedsense_core.fingerprint import source_digest
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.broadcast import NeedsSnapshot, Stream, receive
from fedsense_core.protocol.frame import FrameHeader, FrameKind, pack
from fedsense_core.protocol.messages import Handshake, TrainReply, TrainTask
from fedsense_core.protocol.prediction import prediction
from fedsense_core.protocol.replica import Replica
from fedsense_core.protocol.side_channels import Attachments
from fedsense_core.protocol.uplink.pipeline import Uplink
from fedsense_core.seeds import seed_of
from fedsense_core.ssl.federated import FederatedSigreg, reply_attachments
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.tensors import TensorTable

MAX_MISSED = 16
"""Versions of the model after which a residual is stale: as many frames of 4 bits as are smaller
than a snapshot."""

FAULTS = (
    *(FedSenseError, FloatingPointError, OSError, ValueError, MemoryError),
    *(torch.OutOfMemoryError, SafetensorError),
)
"""What a client answers in words: of imagery, disk, memory and settings."""


def handshake(context: Context, run_ids: tuple[int, int], asked: Attachments) -> Handshake:
    """Say who this client is, what it can train on and which rounds it remembers; a problem is part
    of the answer, beside the name where there is one.

    ``run_ids`` are of this run and of the one that it goes on from (0 none), whose memory becomes
    that of this one; ``asked`` is what side channels ask.
    """
    site, (run_id, earlier_run_id) = "", run_ids
    try:
        config = resolve(context.run_config)
        site = Identity.name_of(context, config)
        with allowed(context, config, site) as allowance:
            identity = Identity.of(context, config).under(allowance)
            memory = ClientMemory(identity.state_dir, run_id)
            with identity.naming_full_disk():
                kinds = [chips for kinds in identity.open(config) for chips in kinds]
                statistics = identity.statistics(config)
                shares = shares_asked(kinds, asked)
                warnings = identity.warnings(config)
                if earlier_run_id:
                    memory.inherit(ClientMemory(identity.earlier_state(config), earlier_run_id))
            drawn = drawn_digest(config)
    except FAULTS as error:
        return Handshake(site, code=source_digest(), problem=_told(site, error))
    for text in [*warnings, *(overlap_texts(shares) if not identity.simulated else ())]:
        log(WARNING, "site %s: %s", identity.name, text)
    return Handshake(
        site=identity.name,
        chips=sum(map(len, kinds)),
        warnings=len(warnings),
        skipped=sum(len(chips.skipped) for chips in kinds),
        rounds=tuple(memory.rounds()),
        code=source_digest(),
        drawn=drawn,
        attachments={
            SharedStatistics.name: statistics.to_bytes(),
            OverlapShares.name: shares_as_bytes(shares) if identity.tells_overlap else b"",
        },
    )


def train(context: Context, task: TrainTask) -> TrainReply:
    """Train one round and answer with a coded update, or say why not: never a guess, never
    silence."""
    site = "?"
    try:
        config = resolve(context.run_config)
        site = Identity.name_of(context, config) or site
        _check_agreement(config, task)
        with allowed(context, config, site, task) as allowance:
            identity = Identity.of(context, config).under(allowance)
            allowance.check_disk(identity.state_dir)
            with identity.naming_full_disk():
                return ClientRound(config, identity, task).run()
    except NeedsSnapshot:
        return TrainReply(site, "needs-snapshot", "it does not have what this round builds on and needs a snapshot")
    except FAULTS as error:
        return TrainReply(site, "refused", _told(site, error))


class ClientRound:
    """One client's round: receive, train, code, remember."""

    def __init__(self, config: Config, identity: Identity, task: TrainTask) -> None:
        self.config, self.identity, self.task = config, identity, task
        self.device = chosen_device()
        self.model = build_model(config)
        self.table = TensorTable.of(self.model, config.model.local_parameters)
        self.stream = Stream(task.run_id, config.run.seed, self.table, config.momentum_in_use)
        self.memory = ClientMemory(identity.state_dir, task.run_id)
        self.seconds: dict[str, float] = {}
        """By phase."""

    def run(self) -> TrainReply:
        """Return the reply of this round; what it changes is pending until the server acknowledges
        it."""
        with self._timed("total"):
            with self._timed("state"):
                slot = self.memory.recall(self.task.acknowledged)
            with self._timed("receive"):
                replica = self._receive(slot)
            with self._timed("train"):
                outcome = self._train(replica, slot)
            with self._timed("codec"):
                residual, note = residual_of(slot, self.task, self.table, self.config.feedback_in_use)
                uplink = self._uplink(replica, residual)
                # With full models w travels, else Δ = w - (ŵ + s).
                payload = uplink.send(self.table.read(self.model) if self.config.sends_models else outcome.delta)
                frame = self._frame(uplink, payload, replica)
            with self._timed("state"):
                self._remember(replica, uplink, outcome)
        return TrainReply(
            self.identity.name,
            "trained",
            metrics=self._metrics(outcome),
            frame=frame,
            note=note if self.identity.allowance.policy.sharing.notes else "",
            attachments=reply_attachments(outcome.sums),
        )

    def _receive(self, slot: Slot | None) -> Replica:
        base = slot.replica if slot else None
        replica = receive(base, self.task.frames, self.stream, lambda: self.table.read(self.model).float())
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
            personal=slot.personal if slot else PersonalModels(),
        )
        recipe = build_recipe(self.config, FederatedSigreg.of(self.config, self.task.round, self.task.attachments))
        with self._feed() as batches:
            allowed_batches = self.identity.allowance.over(batches)
            outcome = train_locally(self.config, self.model, self.table, recipe, allowed_batches, start)
            self.seconds["data"] = batches.waited_s  # of the seconds of "train"
        return outcome

    def _feed(self) -> Feed:
        generator = torch.Generator().manual_seed(self._seed("batches"))
        return Feed(draws(self.identity.open(self.config), self.config.train.batch_size, generator), self.device)

    def _uplink(self, replica: Replica, residual: Tensor | None) -> Uplink:
        """Return the stages of q = Q_b(Δ + e - γ m̂)."""
        seed = self.stream.update_seed(self.task.round, self.identity.name)
        predicted = prediction(torch.from_numpy(self.task.gammas), replica.momentum, self.table)
        return Uplink.of(self.config, self.table, seed, predicted, residual)

    def _frame(self, uplink: Uplink, payload: bytes, replica: Replica) -> np.ndarray:
        codec = uplink.encode.codec
        header = FrameHeader(
            kind=FrameKind.MODEL if self.config.sends_models else FrameKind.UPDATE,
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
        return pack(header, payload)

    def _remember(self, replica: Replica, uplink: Uplink, outcome: Outcome) -> None:
        travelling = {spec.name for spec in self.table.specs}
        local = {name: value for name, value in self.model.state_dict().items() if name not in travelling}
        stages = dict(uplink.state_dict())
        self.memory.keep(Slot(self.task.round, replica, stages, outcome.optimiser, local, outcome.personal))

    def _metrics(self, outcome: Outcome) -> dict[str, float]:
        """Return what the client measured: losses are means over its steps."""
        metrics = {
            "num-examples": outcome.examples,
            "ssl-loss": outcome.ssl_loss,
            "alignment-loss": outcome.alignment_loss,
            "shift-norm": outcome.shift_norm,
            **{f"{phase}-seconds": seconds for phase, seconds in self.seconds.items()},
            **{f"{kind}-memory-bytes": peak for kind, peak in peak_memory().items()},
        }
        if self.config.personalisation.kind != "none":
            metrics["personal-share"] = outcome.personal_share
        return metrics

    def _seed(self, purpose: str) -> int:
        return seed_of(self.config.run.seed, self.identity.name, self.task.round, purpose)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - began


def drawn_digest(config: Config) -> str:
    """Return the digest of the first replica as this machine draws it, hex.

    Empty where the run starts from given weights, which only the server has. Raises ConfigError for
    a model that cannot be built.
    """
    if config.model.weights:
        return ""
    model = build_model(config)
    weights = TensorTable.of(model, config.model.local_parameters).read(model).float()
    return Replica.first(weights).digest().hex()


def residual_of(slot: Slot | None, task: TrainTask, table: TensorTable, feedback: bool) -> tuple[Tensor | None, str]:
    """Return e (N,) where it fits what the round builds on, and a note for the coordinator where it
    does not.

    A residual from before a client missed many versions belongs to a model long gone.
    """
    if slot is None:
        what = " and, with it, its error-feedback residual" if feedback else ""
        return None, f"its state of round {task.acknowledged} is gone{what}" if task.acknowledged else ""
    residual = slot.residual
    if not feedback or residual is None:
        return None, ""
    missed = task.version - slot.replica.version
    if missed > MAX_MISSED:
        return None, f"its residual of round {slot.round} was dropped: it missed {missed} versions of the model"
    if residual.shape != (table.numel,):
        return None, f"its residual of round {slot.round} was dropped: {len(residual)} numbers, not {table.numel}"
    return residual, ""


def _told(site: str, error: BaseException) -> str:
    """Return an error in words for the coordinator; the institution's own log has it whole."""
    text = str(error) if isinstance(error, FedSenseError) else f"{type(error).__name__}: {error}"
    log(WARNING, "site %s cannot take part: %s", site or "of this client", text)
    return without_folders(text)


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
