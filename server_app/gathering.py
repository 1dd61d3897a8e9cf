"""Before a round: who is connected, who they are, and whom to ask."""

from __future__ import annotations

import time
from logging import INFO, WARNING

import torch
from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedsense_core.errors import FedSenseError, FrameError, Rejected
from fedsense_core.protocol.messages import Hello, hello_request
from fedsense_core.seeds import seed_of
from fedsense_core.settings import Config
from fedsense_core.source import source_digest
from server_app.exchange import exchange
from server_app.roster import Roster

PAUSE_S = 1.0
HELLO_DEADLINE_S = 600.0
"""A first hello may have to cut an institution's whole archive into chips."""


class Gathering:
    """Keeps the roster true and chooses the clients of each round."""

    def __init__(self, config: Config, run_id: int, roster: Roster) -> None:
        self.config = config
        self.run_id = run_id
        self.roster = roster

    def choose(self, grid: Grid, server_round: int) -> tuple[list[tuple[int, str]], list[Rejected]]:
        """Return (node, site) of the clients to ask, in site order, and the nodes that cannot take part.

        Raises FedSenseError where fewer than ``federation.min_clients`` come within ``federation.wait_s``.
        """
        deadline = time.monotonic() + self.config.federation.wait_s
        refused: dict[str, Rejected] = {}
        while True:
            for rejected in self._meet(grid):
                refused[rejected.node] = rejected
            able = self._able()
            if len(able) >= self.config.federation.min_clients:
                return self._sample(able, server_round), list(refused.values())
            if time.monotonic() > deadline:
                raise FedSenseError(self._too_few(len(able), refused))
            time.sleep(PAUSE_S)

    def _meet(self, grid: Grid) -> list[Rejected]:
        """Ask every node that is new who it is."""
        nodes = sorted(grid.get_node_ids())
        self.roster.forget_absent(nodes)
        content = hello_request(self.run_id)
        new = self.roster.unknown(nodes)
        messages = [Message(content, node, "query.hello", ttl=HELLO_DEADLINE_S) for node in new]
        asked, replies = exchange(grid, messages, HELLO_DEADLINE_S, lambda message: str(message.metadata.dst_node_id))
        refused = []
        answers = {int(asked[reply.metadata.reply_to_message_id]): reply for reply in replies}
        for node in new:
            problem = self._enter(node, answers.get(node))
            if problem:
                log(WARNING, "node %d cannot take part: %s", node, problem)
                refused.append(Rejected(f"node {node}", problem))
        return refused

    def _enter(self, node: int, reply: Message | None) -> str:
        if reply is None:
            return f"it did not introduce itself within {HELLO_DEADLINE_S:g} s"
        try:
            hello = Hello.from_message(reply)
        except FrameError as error:
            return str(error)
        problem = self.roster.introduce(node, hello, source_digest())
        if not problem:
            skipped = f", {hello.skipped} unusable skipped" if hello.skipped else ""
            log(INFO, "site %s is here: %d chips%s", hello.site, hello.chips, skipped)
        return problem

    def _able(self) -> list[tuple[int, str]]:
        only = self.config.federation.only
        able = [(node, site) for node, site in self.roster.sites.items() if only in ("", site)]
        return sorted(able, key=lambda pair: pair[1])

    def _sample(self, able: list[tuple[int, str]], server_round: int) -> list[tuple[int, str]]:
        share = self.config.federation.participation
        count = max(1, self.config.federation.quorum, round(share * len(able)))
        if count >= len(able):
            return able
        generator = torch.Generator().manual_seed(seed_of(self.config.run.seed, "sample", server_round))
        rows = torch.randperm(len(able), generator=generator)[:count].sort().values.tolist()
        return [able[row] for row in rows]

    def _too_few(self, able: int, refused: dict[str, Rejected]) -> str:
        federation = self.config.federation
        only = f" named {federation.only!r} (federation.only)" if federation.only else ""
        reasons = "; ".join(f"{one.node}: {one.reason}" for one in refused.values()) or "no other node is connected"
        return (
            f"{able} clients{only} are able to train after {federation.wait_s:g} s, federation.min_clients asks for "
            f"{federation.min_clients}. {reasons}"
        )
