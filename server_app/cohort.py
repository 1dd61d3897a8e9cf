"""Before a round: who is connected, who they are, and whom to ask."""

from __future__ import annotations

import time
from collections.abc import Sequence
from logging import INFO, WARNING

import torch
from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedsense_core.config import Config
from fedsense_core.data.chips.sensor_statistics import SensorStatistics
from fedsense_core.errors import FedSenseError, FrameError, Rejected
from fedsense_core.fingerprint import source_digest
from fedsense_core.protocol.messages import Hello, hello_request, printable
from fedsense_core.seeds import seed_of
from server_app.clients import Roster
from server_app.transport import Answer, Exchange

PAUSE_S = 1.0
HELLO_GRACE_S = 20.0
"""How long a round waits for the hello of a new node once enough others are able; its answer still
counts later."""
HELLO_PATIENCE_S = 600.0
"""How long a hello may take while too few are able: a first one cuts an institution's whole archive
into chips."""
HELLO_TTL_S = 3600.0


class Gathering:
    """Keeps the roster true and chooses the clients of each round."""

    def __init__(
        self, config: Config, run_id: int, roster: Roster, statistics: dict[str, SensorStatistics] | None = None
    ) -> None:
        self.config = config
        self.run_id = run_id
        self.roster = roster
        self.refused: dict[int, str] = {}
        """Node -> why it cannot take part; a node is asked once, and again when it has been
        away."""
        self.statistics = {} if statistics is None else statistics
        """By site, of those that share them; the dictionary that was passed in is filled."""
        self._hellos: Exchange | None = None
        self._grace_ends = 0.0
        self._patience_ends = 0.0

    def choose(self, grid: Grid, server_round: int) -> tuple[list[tuple[int, str]], list[Rejected]]:
        """Return (node, site) of the clients to ask, in site order, and what cannot take part since
        the last round.

        Raises FedSenseError where fewer than ``federation.min_clients`` come within
        ``federation.wait_s``.
        """
        deadline = time.monotonic() + self.config.federation.wait_s
        news: list[Rejected] = []
        while True:
            news += self._meet(grid)
            able = self._able()
            enough = len(able) >= self.config.federation.min_clients
            if enough and (not self._waiting or time.monotonic() > self._grace_ends):
                return self._sample(able, server_round), news
            if not enough and time.monotonic() > (self._patience_ends if self._waiting else deadline):
                raise FedSenseError(self._too_few(len(able)))
            time.sleep(PAUSE_S if not enough else PAUSE_S / 5)

    @property
    def _waiting(self) -> bool:
        return bool(self._hellos and self._hellos.open)

    def _meet(self, grid: Grid) -> list[Rejected]:
        """Drop who left, greet who is new, and hear who has answered."""
        nodes = sorted(grid.get_node_ids())
        left = self.roster.forget_absent(nodes)
        for site in left:
            log(WARNING, "site %s is no longer connected", site)
        self.refused = {node: why for node, why in self.refused.items() if node in nodes}
        self._hellos = self._hellos or Exchange(grid)
        self._hellos.drop([node for node in self._hellos.open.values() if node not in nodes])
        asked = set(self._hellos.open.values()) | self.refused.keys()
        answers = self._greet([node for node in self.roster.unknown(nodes) if node not in asked])
        answers += list(self._hellos.collect(patience_s=0.0))
        refused = [rejected for answer in answers if (rejected := self._enter(answer))]
        return [Rejected(site, "no longer connected") for site in left] + refused

    def _greet(self, nodes: Sequence[int]) -> list[Answer]:
        if not nodes or self._hellos is None:
            return []
        self._grace_ends = time.monotonic() + HELLO_GRACE_S
        self._patience_ends = time.monotonic() + max(HELLO_PATIENCE_S, self.config.federation.wait_s)
        content = hello_request(self.run_id)
        return self._hellos.send([Message(content, node, "query.hello", ttl=HELLO_TTL_S) for node in nodes])

    def _enter(self, answer: Answer) -> Rejected | None:
        problem = answer.problem
        if answer.message is not None:
            try:
                hello = Hello.from_message(answer.message)
                problem = self.roster.introduce(answer.node, hello, source_digest())
            except FrameError as error:
                problem = str(error)
        if not problem:
            self._note_statistics(hello)
            skipped = f", {hello.skipped} unusable files skipped" if hello.skipped else ""
            log(INFO, "site %s is here: %d chips%s", hello.site, hello.chips, skipped)
            return None
        self.refused[answer.node] = printable(problem)
        log(WARNING, "node %d cannot take part: %s", answer.node, self.refused[answer.node])
        return Rejected(f"node {answer.node}", self.refused[answer.node])

    def _note_statistics(self, hello: Hello) -> None:
        """Keep those of a site that can be asked to train; none where it gives none any more."""
        self.statistics.pop(hello.site, None)
        asked = self.config.data.share_statistics and self.config.federation.only in ("", hello.site)
        if asked and hello.statistics.sensors:
            self.statistics[hello.site] = hello.statistics

    def _able(self) -> list[tuple[int, str]]:
        only = self.config.federation.only
        able = [(node, site) for node, site in self.roster.sites.items() if only in ("", site)]
        return sorted(able, key=lambda pair: pair[1])

    def _sample(self, able: list[tuple[int, str]], server_round: int) -> list[tuple[int, str]]:
        federation = self.config.federation
        count = max(1, federation.quorum, round(federation.participation * len(able)))
        if count >= len(able):
            return able
        generator = torch.Generator().manual_seed(seed_of(self.config.run.seed, "sample", server_round))
        rows = torch.randperm(len(able), generator=generator)[:count].sort().values.tolist()
        return [able[row] for row in rows]

    def _too_few(self, able: int) -> str:
        federation = self.config.federation
        only = f" named {federation.only!r} (federation.only)" if federation.only else ""
        alike: dict[str, list[int]] = {}
        for node, why in self.refused.items():
            alike.setdefault(why, []).append(node)
        reasons = "; ".join(
            f"node {nodes[0]}: {why}" if len(nodes) == 1 else f"{len(nodes)} nodes: {why}"
            for why, nodes in alike.items()
        )
        silent = f"{len(self._hellos.open)} have not answered" if self._hellos and self._hellos.open else ""
        clients = f"{able} client{only} is" if able == 1 else f"{able} clients{only} are"
        return (
            f"{clients} able to train after {federation.wait_s:g} s, federation.min_clients asks for "
            f"{federation.min_clients}. {'; '.join(filter(None, [reasons, silent])) or 'No other node is connected'}"
        )
