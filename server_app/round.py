"""A round as a value: what is asked, expected, accepted, rejected and measured."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from logging import DEBUG, WARNING
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MessageType
from flwr.common.logger import log
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.codecs.codec import Codec, codec_of
from fedsense_core.config import Config
from fedsense_core.errors import Rejected
from fedsense_core.fingerprint import source_digest
from fedsense_core.protocol.broadcast import Stream, coded_bytes
from fedsense_core.protocol.frame import FrameKind, unpack
from fedsense_core.protocol.messages import TrainTask, broadcast_record, new_nonce
from fedsense_core.protocol.replica import Replica
from fedsense_core.protocol.side_channels import Attachments
from fedsense_core.protocol.uplink.pipeline import Uplink
from fedsense_core.schedule import learning_rate
from server_app.radius import ramp


@dataclass(frozen=True)
class Expected:
    """What every reply of a round must match."""

    config: Config
    stream: Stream
    round: int
    replica: Replica
    digest: bytes
    predicted: Tensor | None = None
    """γ m̂ (N,), made once for all clients of the round; None for zero."""

    @property
    def kind(self) -> FrameKind:
        """Whether updates travel, or whole models."""
        return FrameKind.MODEL if self.config.sends_models else FrameKind.UPDATE

    @property
    def codec(self) -> Codec:
        """In which updates travel."""
        return codec_of(self.config.uplink)

    def uplink(self, site: str) -> Uplink:
        """Return the way back through the stages of one site's uplink."""
        seed = self.stream.update_seed(self.round, site)
        return Uplink.of(self.config, self.stream.table, seed, self.predicted)


@dataclass(frozen=True)
class Accepted:
    """One reply that counts: its frame waits on disk, encoded, until it is needed."""

    site: str
    examples: float
    norm: float
    """‖Δ̂‖ as it came, before any clip."""
    metrics: Mapping[str, float]
    note: str
    """The client's own words, or nothing."""
    expected: Expected = field(repr=False)
    path: Path = field(repr=False)
    said: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What side channels made of its attachments, by name."""
    factor: float = 1.0
    """What `aggregation.weights` makes of the chips that the site says it has."""
    scale: float = 1.0
    """What `aggregation.clip` multiplies Δ̂ by, wherever it counts."""

    def value(self) -> Tensor:
        """Decode what travelled (N,), clipped: Δ̂, or the model."""
        _, payload = unpack(np.fromfile(self.path, np.uint8))
        value = self.expected.uplink(self.site).receive(payload)
        if self.scale == 1:
            return value
        if self.expected.kind == FrameKind.MODEL:
            return torch.lerp(self.expected.replica.weights, value, self.scale, out=value)
        return value.mul_(self.scale)

    def update(self) -> Tensor:
        """Decode Δ̂ (N,), whatever travelled."""
        value = self.value()
        return value - self.expected.replica.weights if self.expected.kind == FrameKind.MODEL else value

    def model(self) -> Tensor:
        """Decode w_i (N,): the replica moved by Δ̂, or what was sent whole."""
        value = self.value()
        return value if self.expected.kind == FrameKind.MODEL else self.expected.replica.weights + value


@dataclass
class Round:
    """One round, filled while it goes on."""

    number: int
    expected: Expected
    radii: Tensor = field(repr=False)
    """ρ_l, float32 (L,)."""
    gammas: Tensor = field(repr=False)
    """γ_l, float32 (L,)."""
    clients: int = 0
    """How many clients the round asks, as it tells each of them."""
    tasks: list[Message] = field(default_factory=list, repr=False)
    """Still to be sent."""
    asked: dict[int, str] = field(default_factory=dict)
    """Node -> site, of those that were sent a task."""
    nonces: dict[int, bytes] = field(default_factory=dict, repr=False)
    """By node: the secret that its reply must repeat."""
    _broadcasts: dict[int, tuple[NDArray[np.uint8], ArrayRecord]] = field(default_factory=dict, repr=False)
    """By the identity of frames, which live as long as the record made of them."""
    silent: set[int] = field(default_factory=set)
    """Nodes that have not answered yet."""
    late: dict[int, str] = field(default_factory=dict)
    """By node: why the round does not wait for it any longer, where that is not its deadline."""
    accepted: list[Accepted] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    notes: list[dict[str, str]] = field(default_factory=list)
    """``site`` and ``note``: what changed in silence otherwise, such as a residual that was
    dropped."""
    measured: dict[str, Any] = field(default_factory=dict)
    """Further entries of the round's line in metrics.jsonl, by their names there."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By phase; ``total`` once the round is written down."""
    began: float = field(default_factory=time.monotonic)
    """On the monotonic clock."""

    def __post_init__(self) -> None:
        config, predicted = self.expected.config, self.expected.predicted
        # An absolute radius is one for all tensors together, sent with each of them.
        radius = self.radii.max() if config.guidance.scale == "absolute" else self.radii.norm()
        self.measured |= {
            "radius": float(radius),
            "ramp": ramp(config, self.number),
            "momentum_norm": float(self.expected.replica.momentum.norm()),
            "prediction_norm": 0.0 if predicted is None else float(predicted.norm()),
            "learning_rate": learning_rate(config, (self.number - 1) * config.train.local_steps),
        }

    def ask(self, node: int, site: str, acknowledged: int, frames: NDArray[np.uint8], attachments: Attachments) -> None:
        """Address the round's task to a site: with the last round of it that counted (0 none), the
        frames that lead from what it has to the round's replica, and what side channels say to it.
        One whose reply was accepted before the server was interrupted has been sent it."""
        expected, nonce = self.expected, new_nonce()
        task = TrainTask(
            run_id=expected.stream.run_id,
            round=self.number,
            version=expected.replica.version,
            acknowledged=acknowledged,
            code=source_digest(),
            config_digest=expected.config.digest,
            radii=self.radii.numpy(),
            gammas=self.gammas.numpy(),
            frames=frames,
            attachments=attachments,
            nonce=nonce,
            clients=self.clients,
        )
        ttl = expected.config.federation.deadline_s  # late work is worthless: do not let it delay the next task
        self.asked[node] = site
        if site not in self.sites:
            content = task.to_records(self._broadcast(frames))
            self.tasks.append(Message(content, node, MessageType.TRAIN, group_id=str(self.number), ttl=ttl))
            self.nonces[node] = nonce
            self.silent.add(node)
        self.count("bytes_down", task.bytes_down)
        self._count_parts("bytes_down_parts", coded_bytes(frames, expected.stream.table))

    def _broadcast(self, frames: NDArray[np.uint8]) -> ArrayRecord:
        """Return the record of some frames, one for all clients that are sent the same: Flower
        copies an Array when it is made, and keeps it with each message."""
        if id(frames) not in self._broadcasts:
            self._broadcasts[id(frames)] = (frames, broadcast_record(frames))
        return self._broadcasts[id(frames)][1]

    def take(self, judged: Accepted | Rejected) -> None:
        """Enter what admission made of a reply."""
        if isinstance(judged, Accepted):
            self.accepted.append(judged)
        else:
            self.reject(judged)

    def _count_parts(self, name: str, parts: Mapping[str, int]) -> None:
        before = self.measured.get(name, {})
        self.measured[name] = {part: before.get(part, 0) + count for part, count in parts.items()}

    def reject(self, rejected: Rejected) -> None:
        """Leave a reply out."""
        log(DEBUG, "%s is left out of the round: %s", rejected.node, rejected.reason)
        self.rejected.append(rejected)

    def note(self, site: str, note: str) -> None:
        """Note what a person should know of a site, though the round goes on."""
        log(WARNING, "site %s: %s", site, note)
        if (one := {"site": site, "note": note}) not in self.notes:
            self.notes.append(one)

    def reject_silent(self, awaited: Collection[int] = ()) -> None:
        """Reject who has not answered, but for nodes that the round still waits for."""
        for node in sorted(self.silent - {*awaited}):
            deadline = f"no answer within {self.expected.config.federation.deadline_s:g} s (federation.deadline_s)"
            self.reject(Rejected(self.site(node), self.late.pop(node, deadline)))
            self.silent.discard(node)

    def forgive(self) -> list[Rejected]:
        """Return the rejections of clients that were asked, which are asked again, and leave of
        them a note."""
        asked = {*self.asked.values()}
        again = [one for one in self.rejected if one.node in asked]
        self.rejected = [one for one in self.rejected if one.node not in asked]
        for one in again:
            self.note(one.node, f"asked again: {one.reason}")
        return again

    def close(self) -> None:
        """Reject who has not answered, and put the accepted in the order of their names: that in
        which they came changes nothing."""
        self.reject_silent()
        self.accepted.sort(key=lambda one: one.site)
        codec, table = self.expected.codec, self.expected.stream.table
        scales, count = codec.scale_bytes(table), len(self.accepted)
        if count:
            parts = {"codes": count * (codec.payload_bytes(table) - scales), "scales": count * scales}
            self._count_parts("bytes_up_parts", parts)
        if not self.counts:
            log(WARNING, "%s: nothing changes", self.shortage)

    @property
    def counts(self) -> bool:
        """Whether enough replies were accepted, of clients that were needed."""
        config = self.expected.config
        return not config.asks_clients or len(self.accepted) >= config.federation.quorum

    @property
    def shortage(self) -> str:
        """How many replies were accepted, of how many that are needed."""
        quorum = self.expected.config.federation.quorum
        return f"round {self.number}: {len(self.accepted)} accepted, federation.quorum asks for {quorum}"

    def count(self, name: str, more: int) -> None:
        """Add to a number of `measured`."""
        self.measured[name] = self.measured.get(name, 0) + more

    def site(self, node: int) -> str:
        """Return the site that was asked under a node id."""
        return self.asked.get(node, f"node {node}")

    @property
    def sites(self) -> set[str]:
        """The sites whose replies were accepted."""
        return {one.site for one in self.accepted}

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the seconds of a block to a phase."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - began
