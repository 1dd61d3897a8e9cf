"""Which replies count. Anything else becomes a ``Rejected``: logged, shown, and without any effect
on the round.

Flower's own FedAvg, measured: of 14 hostile replies 7 corrupt the model silently and 5 end the run.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from flwr.app import Message
from torch import Tensor

from fedsense_core.codecs.codec import Codec
from fedsense_core.config import Config
from fedsense_core.errors import FrameError, Rejected
from fedsense_core.protocol.broadcast import Stream
from fedsense_core.protocol.frame import FrameHeader, FrameKind, unpack
from fedsense_core.protocol.messages import TrainReply, printable
from fedsense_core.protocol.prediction import restore
from fedsense_core.protocol.replica import Replica
from fedsense_core.run_folder.paths import safe_name
from fedsense_core.ssl.sigreg import SigregStatistics
from fedsense_core.tensors import vector_norm


@dataclass(frozen=True)
class Expected:
    """What every reply of a round must match."""

    stream: Stream
    round: int
    replica: Replica
    digest: bytes
    kind: FrameKind
    codec: Codec
    predicted: Tensor | None = None
    """γ m̂ (N,), made once for all clients of the round; None for zero."""

    def decode(self, site: str, payload: memoryview | bytes, out: Tensor | None = None) -> Tensor:
        """Return Δ̂ = γ m̂ + decode(q) of one site, in ``out`` (N,) where it is given; for full
        models, the model."""
        decoded = self.codec.decode(payload, self.stream.table, self.stream.update_seed(self.round, site), out)
        return restore(decoded, self.predicted)


@dataclass(frozen=True)
class Accepted:
    """One reply that counts: its frame waits on disk, encoded, until it is needed."""

    site: str
    examples: float
    norm: float
    """‖Δ̂‖."""
    metrics: Mapping[str, float]
    note: str
    """The client's own words, or nothing."""
    expected: Expected = field(repr=False)
    path: Path = field(repr=False)
    sums: SigregStatistics | None = field(default=None, repr=False)
    """Over the client's embeddings (``train.federated_sigreg``)."""

    def value(self) -> Tensor:
        """Decode Δ̂ (N,); for full models, the model."""
        _, payload = unpack(np.fromfile(self.path, np.uint8))
        return self.expected.decode(self.site, payload)

    def update(self) -> Tensor:
        """Decode Δ̂ (N,), whatever travelled."""
        value = self.value()
        return value - self.expected.replica.weights if self.expected.kind == FrameKind.MODEL else value


class Admission:
    """Checks replies of one run; remembers the norms it accepted."""

    def __init__(self, config: Config, spool: Path, norms: list[float] | None = None) -> None:
        self.settings = config.admission
        self.train = config.train
        # A count is a weight: nobody can have seen more than the round asks for.
        self.most_examples = min(config.admission.max_examples, config.train.local_steps * config.train.batch_size)
        self.spool = spool
        self.norms = norms or []
        self._scratch: Tensor | None = None
        """What every reply is judged in (N,): a frame never makes the server allocate a vector."""

    def admit(self, message: Message, site: str, expected: Expected, seen: set[str]) -> Accepted | Rejected:
        """Judge one reply to the round's task for ``site``; ``seen`` holds the sites already
        accepted."""
        try:
            reply = TrainReply.from_message(message)
            if reply.status != "trained":
                return Rejected(site, reply.reason, "needs-snapshot" if reply.status == "needs-snapshot" else "bad")
            if reply.site != site:
                return Rejected(site, printable(f"the reply names site {reply.site!r}"), "other-site")
            return self._accept(reply, site, expected, seen)
        except (FrameError, ValueError) as error:
            return Rejected(site, printable(str(error)))

    def remember(self, accepted: list[Accepted]) -> None:
        """Take the norms of an aggregated round as the measure of later ones."""
        self.norms += [one.norm for one in accepted]

    def norm_limit(self) -> tuple[float, str]:
        """Return the largest admissible norm and where it comes from."""
        if not self.norms:
            return self.settings.first_round_max_norm, "admission.first_round_max_norm"
        limit = self.settings.norm_factor * statistics.median(self.norms)
        return limit, f"{self.settings.norm_factor:g} times the median of earlier rounds"

    def _accept(self, reply: TrainReply, site: str, expected: Expected, seen: set[str]) -> Accepted:
        if reply.frame is None:
            raise FrameError("the reply has no frame")
        if site in seen:
            raise FrameError("a second reply to the same round")
        self._check_examples(reply.examples)
        sums = self._sums(reply)
        header, payload = unpack(reply.frame)
        _check_header(header, expected)
        if self._scratch is None or len(self._scratch) != expected.stream.table.numel:
            self._scratch = torch.empty(expected.stream.table.numel)
        norm = self._check_norm(expected.decode(site, payload, self._scratch), expected)
        self.spool.mkdir(parents=True, exist_ok=True)
        path = self.spool / f"{safe_name(site)}-{len(seen)}.frame"
        reply.frame.tofile(path)
        return Accepted(site, reply.examples, norm, reply.metrics, reply.note, expected, path, sums)

    def _check_examples(self, examples: float) -> None:
        if not 0 < examples <= self.most_examples:
            most = self.most_examples
            raise FrameError(f"claims {examples:g} examples, must be above 0 and at most {most}, what a round can use")

    def _sums(self, reply: TrainReply) -> SigregStatistics | None:
        """Return the sums of embeddings that a reply must have where the run asks for them: of all
        views it made."""
        if not self.train.federated_sigreg:
            return None
        sums = SigregStatistics.from_bytes(reply.sums, self.train.sigreg_directions)
        views = reply.examples * self.train.views
        if sums.count != views:
            raise FrameError(f"sums of embeddings are of {sums.count} samples, its examples have {views:g} views")
        return sums

    def _check_norm(self, value: Tensor, expected: Expected) -> float:
        update = value.sub_(expected.replica.weights) if expected.kind == FrameKind.MODEL else value
        norm = vector_norm(update)
        limit, source = self.norm_limit()
        if not norm <= limit:  # also true for NaN
            raise FrameError(f"update norm {norm:.4g} is above {limit:.4g} ({source})")
        return norm


def _check_header(header: FrameHeader, expected: Expected) -> None:
    replica, codec, table = expected.replica, expected.codec, expected.stream.table
    wanted = {
        "kind": (header.kind, expected.kind),
        "run id": (header.run_id, expected.stream.run_id),
        "round": (header.round, expected.round),
        "base version": (header.base_version, replica.version),
        "base digest": (header.base_digest, expected.digest),
        "codec": (header.codec_id, codec.id),
        "bits": (header.bits, codec.bits),
        "element count": (header.elements, table.numel),
        "tensor table": (header.table_digest, table.digest),
        "payload length": (header.payload_bytes, codec.payload_bytes(table)),
    }
    for name, (got, want) in wanted.items():
        if got != want:
            raise FrameError(f"{name} is {_show(got)}, expected {_show(want)}")


def _show(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
