"""Which replies count. Anything else becomes a ``Rejected``: logged, shown, and without any effect
on the round.

Flower's own FedAvg, measured: of 14 hostile replies 7 corrupt the model silently and 5 end the run.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedsense_core.config import Config
from fedsense_core.errors import FrameError, Rejected
from fedsense_core.protocol.frame import FrameHeader, FrameKind, unpack
from fedsense_core.protocol.messages import TrainReply, bytes_up, printable
from fedsense_core.protocol.side_channels import SideChannel, judge_all
from fedsense_core.run_folder.paths import safe_name
from fedsense_core.state import State
from fedsense_core.tensors import vector_norm
from server_app.clients import Clients
from server_app.round import Accepted, Expected, Round
from server_app.transport import Answer


class Admission:
    """Checks replies of one run; remembers the norms it accepted."""

    def __init__(
        self,
        config: Config,
        spool: Path,
        channels: tuple[SideChannel, ...] = (),
        clients: Clients | None = None,
    ) -> None:
        self.settings, self.aggregation = config.admission, config.aggregation
        # A count is a weight: nobody can have seen more than the round asks for.
        self.most_examples = min(config.admission.max_examples, config.train.local_steps * config.train.batch_size)
        self.spool = spool
        self.channels = channels
        self.clients = clients or Clients()
        self.norms: list[float] = []
        # What every reply is judged in (N,): a frame never makes the server allocate a vector.
        self._scratch: Tensor | None = None

    def admit(self, answer: Answer, site: str, round: Round) -> Accepted | Rejected:
        """Judge what came of the round's task for ``site``."""
        if answer.message is None:
            return Rejected(site, answer.problem)
        round.count("bytes_up", bytes_up(answer.message))
        try:
            reply = TrainReply.from_message(answer.message)
            if reply.status != "trained":
                return Rejected(site, reply.reason, "needs-snapshot" if reply.status == "needs-snapshot" else "bad")
            if reply.site != site:
                return Rejected(site, printable(f"the reply names site {reply.site!r}"), "other-site")
            return self._accept(reply, site, round)
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

    def state_dict(self) -> State:
        """Return the norms of all updates that ever counted."""
        return {"norms": list(self.norms)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the norms of a checkpoint."""
        self.norms = [float(norm) for norm in state["norms"]]

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
        self.spool.mkdir(parents=True, exist_ok=True)
        path = self.spool / f"{safe_name(site)}-{len(round.accepted)}.frame"
        path.write_bytes(reply.frame.data)  # `tofile` loses the end on a full disk, without an error
        factor = self.aggregation.factor(self.clients.chips.get(site, 1))
        return Accepted(site, reply.examples, norm, reply.metrics, reply.note, expected, path, said, factor)

    def _check_examples(self, examples: float) -> None:
        if not 0 < examples <= self.most_examples:
            most = self.most_examples
            raise FrameError(f"claims {examples:g} examples, must be above 0 and at most {most}, what a round can use")

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
