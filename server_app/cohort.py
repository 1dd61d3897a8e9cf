"""Client selection: who is connected, who they are, and whom a round asks."""

from __future__ import annotations

import math
import time
from collections.abc import Container, Sequence
from logging import INFO, WARNING

import torch
from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedsense_core.config import Config
from fedsense_core.errors import FrameError, Rejected, RunPaused
from fedsense_core.fingerprint import source_digest
from fedsense_core.protocol.messages import Handshake, check_sender, handshake_request, new_nonce, printable
from fedsense_core.protocol.side_channels import SideChannel, judge_all
from fedsense_core.seeds import seed_of
from server_app.clients import Clients
from server_app.reasons import grouped
from server_app.reply_limits import limits_of_handshake
from server_app.transport import Answer, Transport

PAUSE_S = 1.0
HANDSHAKE_GRACE_S = 20.0
"""How long a round waits for the handshake of a new node once enough others are able; its answer
still counts later."""
HANDSHAKE_PATIENCE_S = 600.0
"""How long a handshake may take while too few are able: a first one cuts an institution's whole
archive into chips."""
HANDSHAKE_TTL_S = 3600.0


class Cohort:
    """Knows who is there and chooses the clients of each round."""

    def __init__(self, config: Config, run_id: int, clients: Clients, channels: tuple[SideChannel, ...] = ()) -> None:
        self.config = config
        self.run_id = run_id
        self.clients = clients
        self.channels = channels
        self.earlier_run_id = 0
        """The run that this one goes on from; 0 none."""
        self.refused: dict[int, Rejected] = {}
        """By node: who cannot take part, and why; a node is asked once, and again when it has been
        away."""
        self.unheard: set[int] = set()
        """Those of them that were lost before they could answer: the next round asks them again."""
        self.admitted: dict[int, str] = {}
        """By node: the name under which the coordinator admitted its key. Without keys there is
        none."""
        self.nonces: dict[int, bytes] = {}
        """By node: the secret that its answer to the handshake must repeat."""
        self._handshakes: Transport | None = None
        self._grace_ends = 0.0
        self._patience_ends = 0.0

    def choose(
        self, grid: Grid, server_round: int, busy: Container[int] = ()
    ) -> tuple[list[tuple[int, str]], list[Rejected]]:
        """Return (node, site) of the clients to ask, in site order, and what cannot take part since
        the last round.

        ``busy`` nodes are here, but still at work. Raises RunPaused where fewer than
        ``federation.min_clients`` come within ``federation.wait_s``.
        """
        deadline = time.monotonic() + self.config.federation.wait_s
        news: list[Rejected] = []
        self.refused = {node: why for node, why in self.refused.items() if node not in self.unheard}
        self.unheard.clear()
        while True:
            news += self._meet(grid)
            able = self._able()
            enough = len(able) >= self.config.federation.min_clients and not self._trouble
            if enough and (not self._waiting or time.monotonic() > self._grace_ends):
                return self._sample([pair for pair in able if pair[0] not in busy], server_round), news
            if not enough and time.monotonic() > (self._patience_ends if self._waiting else deadline):
                raise RunPaused(self._too_few(len(able)))
            time.sleep(PAUSE_S if not enough else PAUSE_S / 5)

    def forgive(self) -> None:
        """Ask everybody again who cannot take part: the reason may be gone."""
        self.refused.clear()

    @property
    def _trouble(self) -> str:
        return self._handshakes.trouble if self._handshakes else ""

    @property
    def _waiting(self) -> bool:
        return bool(self._handshakes and self._handshakes.open)

    def _meet(self, grid: Grid) -> list[Rejected]:
        """Drop who left, greet who is new, and hear who has answered."""
        self._handshakes = self._handshakes or Transport(grid, limits_of_handshake(self.channels))
        connected = self._handshakes.connected()
        if connected is None:
            return []
        nodes = sorted(connected)
        self.admitted = {node: name for node, name in connected.items() if name}
        left = self.clients.drop_absent(nodes)
        for site in left:
            log(WARNING, "site %s is no longer connected", site)
        self.refused = {node: why for node, why in self.refused.items() if node in nodes}
        self._handshakes.drop([node for node in self._handshakes.open.values() if node not in nodes])
        asked = set(self._handshakes.open.values()) | self.refused.keys()
        answers = self._greet([node for node in self.clients.unknown(nodes) if node not in asked])
        answers += list(self._handshakes.look())
        refused = [rejected for answer in answers if (rejected := self._enter(answer))]
        return [Rejected(site, "no longer connected") for site in left] + refused

    def _greet(self, nodes: Sequence[int]) -> list[Answer]:
        if not nodes or self._handshakes is None:
            return []
        self._grace_ends = time.monotonic() + HANDSHAKE_GRACE_S
        self._patience_ends = time.monotonic() + max(HANDSHAKE_PATIENCE_S, self.config.federation.wait_s)
        self.nonces |= {node: new_nonce() for node in nodes}
        return self._handshakes.send([self._request(node) for node in nodes])

    def _request(self, node: int) -> Message:
        attached = {name: data for channel in self.channels for name, data in channel.for_handshake().items()}
        content = handshake_request(self.run_id, self.earlier_run_id, attached, self.nonces[node])
        return Message(content, node, "query.handshake", ttl=HANDSHAKE_TTL_S)

    def _enter(self, answer: Answer) -> Rejected | None:
        problem, who = answer.problem, self.admitted.get(answer.node, f"node {answer.node}")
        if answer.message is not None:
            try:
                handshake = Handshake.from_message(answer.message)
                check_sender(answer.message, answer.node, handshake.nonce, self.nonces.get(answer.node, b""))
                self._check_name(answer.node, handshake.site)
                if handshake.site not in self.clients.sites.values():  # a second node of one name is no site
                    who = handshake.site or who
                said = judge_all(self.channels, "handshake", handshake.attachments, handshake.chips)
                problem = self.clients.enter(answer.node, handshake, source_digest(), self._most_chips)
            except FrameError as error:
                problem = str(error)
        if answer.lost:
            self.unheard.add(answer.node)
        if problem:
            refused = self.refused[answer.node] = Rejected(who, printable(problem))
            log(WARNING, "%s (node %d) cannot take part: %s", who, answer.node, refused.reason)
            return refused
        for channel in self.channels:
            if self.config.federation.only not in ("", handshake.site):
                channel.drop(handshake.site)
            elif channel.name in said:
                channel.accept({handshake.site: said[channel.name]})
                for text in channel.told(handshake.site):
                    log(WARNING, "site %s: %s", handshake.site, text)
        skipped = f", {handshake.skipped} unusable files skipped" if handshake.skipped else ""
        log(INFO, "site %s is here: %d chips%s", handshake.site, handshake.chips, skipped)
        if handshake.warnings:
            text = "site %s warns of its imagery: its own log, and `fedsense data check` there, say of what (%d)"
            log(WARNING, text, handshake.site, handshake.warnings)
        return None

    def _check_name(self, node: int, site: str) -> None:
        """Raise FrameError for a site whose name is not the one under which its key was admitted;
        that of another node is nobody else's, whoever says it first."""
        admitted = self.admitted.get(node)
        if not site or site == admitted:
            return
        if admitted:
            raise FrameError(
                f"it was admitted as {admitted!r}, but its site file has the name {site!r}: admit it under that name "
                "(`fedsense coordinator admit`), or change the file"
            )
        if site in self.admitted.values():
            raise FrameError(f"site {site!r} is the name under which another node was admitted")

    @property
    def _most_chips(self) -> float:
        return self.config.admission.max_chips if self.config.aggregation.counts_chips else math.inf

    def _able(self) -> list[tuple[int, str]]:
        only = self.config.federation.only
        able = [(node, site) for node, site in self.clients.sites.items() if only in ("", site)]
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
        silent = f"{len(self._handshakes.open)} have not answered" if self._handshakes and self._handshakes.open else ""
        found = [self._trouble, grouped(self.refused.values()), silent]
        clients = f"{able} client{only} is" if able == 1 else f"{able} clients{only} are"
        return (
            f"{clients} able to train after {federation.wait_s:g} s, federation.min_clients asks for "
            f"{federation.min_clients}. {'; '.join(filter(None, found)) or 'No other node is connected'}"
        )
