"""Send messages and collect what comes back, one message at a time, whatever a client put into it.

A reply's metadata is written by its sender, so a reply belongs to the message whose id was pulled,
never to the one it names. Pulling one id at a time also keeps a single reply in memory, and an
undecodable one from taking others along.

Where the SuperLink itself cannot be reached, nothing is lost: messages stay open, and what is wrong
is remembered as ``trouble`` until it answers again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from logging import INFO, WARNING

import httpx
from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedsense_core.protocol.messages import printable
from server_app.bounded_pull import Announced, ReplyTooLarge, pull
from server_app.reply_limits import Limits

POLL_S = 0.2
"""First pause between two looks; it grows to POLL_MAX_S, Flower's own pace, so a long round costs
few requests."""
POLL_MAX_S = 3.0
NETWORK = (httpx.HTTPError, ConnectionError, TimeoutError)
"""What Flower raises where the SuperLink cannot be reached, or fails."""
LOST = (
    *(ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE),
    *(ErrorCode.NODE_UNAVAILABLE, ErrorCode.CLIENT_APP_CRASHED),
)
"""Errors that Flower sends for a client that was lost, with its work or with its reply; a client
that answers for itself, if only by an error of its own, is not."""


@dataclass(frozen=True)
class Answer:
    """What came of one message: a reply, or the reason why there is none."""

    node: int
    message: Message | None = None
    problem: str = ""
    lost: bool = False
    """Whether nobody has judged the task: asked again, the same client may answer."""

    @property
    def reason(self) -> str:
        """What was wrong, in words; empty for a reply."""
        if self.message is None or not self.message.has_error():
            return self.problem
        error = self.message.error
        return f"error {error.code}: {printable(error.reason or 'no reason given')}"


class Transport:
    """Messages under way; ``look`` may be called again later for those still open."""

    def __init__(self, grid: Grid, limits: Limits) -> None:
        self.grid = grid
        self.limits = limits
        """How large a reply may be."""
        self.open: dict[str, int] = {}
        """Message id -> node, of messages that are not answered yet."""
        self._announced: Announced = {}
        self.trouble = ""
        """Why the SuperLink cannot be reached; empty while it can."""

    def send(self, messages: Sequence[Message]) -> list[Answer]:
        """Push messages. Returns an answer for each that the SuperLink did not take."""
        if not messages:
            return []
        nodes = [message.metadata.dst_node_id for message in messages]
        try:
            ids = list(self.grid.push_messages(list(messages)))
        except NETWORK as error:
            self._fail(error)
            return [Answer(node, problem=self.trouble, lost=True) for node in nodes]
        ids += [""] * (len(messages) - len(ids))  # a refused batch comes back as an empty list
        self.open |= {message_id: node for message_id, node in zip(ids, nodes, strict=True) if message_id}
        refused = [node for message_id, node in zip(ids, nodes, strict=True) if not message_id]
        return [Answer(node, problem="the SuperLink did not take the message", lost=True) for node in refused]

    def look(self) -> Iterator[Answer]:
        """Yield what has come of the open messages; nothing while the SuperLink cannot be
        reached."""
        for message_id, node in list(self.open.items()):
            try:
                answers = self._pull(message_id, node)
            except NETWORK as error:
                self._fail(error)
                return
            self._recover()
            yield from answers

    def connected(self) -> dict[int, str] | None:
        """Return the connected nodes and the names under which their keys were admitted (empty
        without one); None while the SuperLink cannot be reached."""
        try:
            nodes = {node.node_id: node.name for node in self.grid.get_nodes()}
        except NETWORK as error:
            self._fail(error)
            return None
        self._recover()
        return nodes

    def drop(self, nodes: Sequence[int]) -> None:
        """Stop waiting for some nodes."""
        self.open = {message_id: node for message_id, node in self.open.items() if node not in nodes}
        self._announced = {
            message_id: found for message_id, found in self._announced.items() if message_id in self.open
        }

    def _pull(self, message_id: str, node: int) -> list[Answer]:
        try:
            replies = pull(self.grid, message_id, self.limits, self._announced)
        except (*NETWORK, OSError):
            raise  # the SuperLink, or this machine, not a client
        except ReplyTooLarge as error:
            self.open.pop(message_id, None)
            return [Answer(node, problem=str(error))]
        except Exception as error:
            self.open.pop(message_id, None)
            return [Answer(node, problem=f"its reply cannot be decoded ({type(error).__name__})")]
        if replies:
            self.open.pop(message_id, None)
        return [Answer(node, reply, lost=reply.has_error() and reply.error.code in LOST) for reply in replies]

    def _fail(self, error: Exception) -> None:
        """Remember why the SuperLink could not be reached. Flower has by then repeated what it
        takes for a short interruption."""
        before, self.trouble = self.trouble, unreachable(error)
        if self.trouble != before:
            log(WARNING, "%s; trying again", self.trouble)

    def _recover(self) -> None:
        if self.trouble:
            log(INFO, "the SuperLink answers again")
        self.trouble = ""


def unreachable(error: Exception) -> str:
    """Return in words that the SuperLink failed, and where to look."""
    said = printable(f"{type(error).__name__}: {error}".splitlines()[0])
    where = "its own log, and its disk" if isinstance(error, httpx.HTTPStatusError) else "whether it runs"
    return f"the SuperLink cannot be reached ({said}): see {where}"
