"""Which replies count. Anything else becomes a ``Rejected``: logged, shown, and without any effect
on the round.

Flower's own FedAvg, measured: of 14 hostile replies 7 corrupt the model silently and 5 end the run.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

import torch
from flwr.common.logger import log
from torch import Tensor

from fedsense_core.codecs.codec import codec_of
from fedsense_core.config import Config
from fedsense_core.errors import FrameError, Rejected
from fedsense_core.protocol.frame import FrameHeader, FrameKind, unpack
from fedsense_core.protocol.messages import TrainReply, bytes_up, check_sender, printable
from fedsense_core.protocol.side_channels import SideChannel, judge_all
from fedsense_core.state import State
from fedsense_core.tensors import TensorTable, vector_norm
from server_app.clients import Clients
from server_app.reply_limits import Limits, limits_of_round
from server_app.round import Accepted, Expected, Round
from server_app.spool import Spool
from server_app.transport import Answer


class Admission:
    """Checks replies of one run; remembers the norms of its last rounds."""

    def __init__(
        self,
        config: Config,
        spool: Path,
        channels: tuple[SideChannel, ...] = (),
        clients: Clients | None = None,
    ) -> None:
        self.settings, self.aggregation = config.admission, config.aggregation
        self.codec = codec_of(config.uplink)
        # A count is a weight: nobody can have seen more than the round asks for.
        self.most_examples = min(config.admission.max_examples, config.train.local_steps * config.train.batch_size)
        self.spool = Spool(spool)
        self.channels = channels
        self.clients = clients or Clients()
        self.norms: list[list[float]] = []
        """‖Δ̂‖ of what counted in the last aggregated rounds."""
        # What every reply is judged in (N,): a frame never makes the server allocate a vector.
        self._scratch: Tensor | None = None

    def limits(self, table: TensorTable) -> Limits:
        """Return how large a reply to a task may be; a larger one is not even pulled."""
        return limits_of_round(self.codec, table, self.channels)

    def admit(self, answer: Answer, site: str, round: Round) -> Accepted | Rejected:
        """Judge what came of the round's task for ``site``."""
        if answer.message is None:
            return Rejected(site, answer.problem)
        size = bytes_up(answer.message)
        round.count("bytes_up", size)
        try:
            reply = TrainReply.from_message(answer.message)
            check_sender(answer.message, answer.node, reply.nonce, round.nonces.get(answer.node, b""))
            if reply.status != "trained":
                return Rejected(site, reply.reason, "needs-snapshot" if reply.status == "needs-snapshot" else "bad")
            if reply.site != site:
                return Rejected(site, printable(f"the reply names site {reply.site!r}"), "other-site")
            accepted = self._accept(reply, site, round)
        except (FrameError, ValueError) as error:
            return Rejected(site, printable(str(error)))
        return replace(accepted, path=self.spool.keep(reply, round.expected, size, accepted.factor))

    def restore(self, round: Round) -> None:
        """Take what was accepted in this round before the server was interrupted, judged once
        more: nobody is asked twice for work that is here."""
        for kept in self.spool.kept(round.expected):
            try:
                accepted = self._accept(kept.reply, kept.reply.site, round)
            except (FrameError, ValueError) as error:
                log(WARNING, "site %s is asked again: its kept reply is refused (%s)", kept.reply.site, error)
                self.spool.drop(kept.path)
                continue
            round.count("bytes_up", kept.bytes_up)
            round.take(replace(accepted, path=kept.path, factor=kept.factor))
        if round.sites:
            text = "round %d: accepted before the interruption, and not asked again: %s"
            log(INFO, text, round.number, ", ".join(sorted(round.sites)))

    def compare(self, round: Round) -> None:
        """Reject what is too large beside the other replies of its round, once all have come: the
        first round has no earlier one to go by, and in the last ones updates shrink."""
        if not round.accepted:
            return
        limit = self.settings.norm_factor * statistics.median(one.norm for one in round.accepted)
        for one in [one for one in round.accepted if one.norm > limit]:
            round.accepted.remove(one)
            round.reject(Rejected(one.site, _too_large(one.norm, limit, self._times("its round"))))
            self.spool.drop(one.path)

    def remember(self, accepted: list[Accepted]) -> None:
        """Take the norms of an aggregated round as the measure of those to come."""
        self.norms = [*self.norms, [one.norm for one in accepted]][-self.settings.norm_rounds :]

    def norm_limit(self) -> tuple[float, str]:
        """Return the largest norm that is admissible at once, and where it comes from."""
        recent = [norm for norms in self.norms for norm in norms]
        if not recent:
            return self.settings.first_round_max_norm, "admission.first_round_max_norm"
        return self.settings.norm_factor * statistics.median(recent), self._times("the last rounds")

    def _times(self, what: str) -> str:
        return f"{self.settings.norm_factor:g} times the median of {what}"

    def state_dict(self) -> State:
        """Return the norms of the last rounds."""
        return {"norms": [list(norms) for norms in self.norms]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the norms of a checkpoint."""
        self.norms = [[float(norm) for norm in norms] for norms in state["norms"]]

    def _accept(self, reply: TrainReply, site: str, round: Round) -> Accepted:
        if reply.frame is None:
            raise FrameError("the reply has no frame")
        if site in round.sites:
            raise FrameError("a second reply to the same round")
        self._check_examples(reply.examples)
        said = judge_all(self.channels, "round", reply.attachments, reply.examples)
        expected = round.expected
        header, payload = unpack(reply.frame)
        _check_header(header, expected)
        if self._scratch is None or len(self._scratch) != expected.stream.table.numel:
            self._scratch = torch.empty(expected.stream.table.numel)
        norm = self._check_norm(expected.uplink(site).receive(payload, self._scratch), expected)
        factor = self.aggregation.factor(self.clients.chips.get(site, 1))
        return Accepted(site, reply.examples, norm, reply.metrics, reply.note, expected, Path(), said, factor)

    def _check_examples(self, examples: float) -> None:
        if not 0 < examples <= self.most_examples:
            most = self.most_examples
            raise FrameError(f"claims {examples:g} examples, must be above 0 and at most {most}, what a round can use")

    def _check_norm(self, value: Tensor, expected: Expected) -> float:
        update = value.sub_(expected.replica.weights) if expected.kind == FrameKind.MODEL else value
        norm = vector_norm(update)
        limit, source = self.norm_limit()
        if not norm <= limit:  # also true for NaN
            raise FrameError(_too_large(norm, limit, source))
        return norm


def _too_large(norm: float, limit: float, source: str) -> str:
    return f"update norm {norm:.4g} is above {limit:.4g} ({source})"


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
