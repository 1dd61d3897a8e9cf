"""Send messages and collect what comes back, one message at a time, whatever a client put into it.

A reply's metadata is written by its sender, so a reply belongs to the message whose id was pulled,
never to the one it names. Pulling one id at a time also keeps a single reply in memory, and an
undecodable one from taking others along.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx
from flwr.app import Message
from flwr.serverapp import Grid

POLL_S = 0.2
"""First pause between two looks; it grows to POLL_MAX_S, Flower's own pace, so a long round costs
few requests."""
POLL_MAX_S = 3.0


@dataclass(frozen=True)
class Answer:
    """What came of one message: a reply, or the reason why there is none."""

    node: int
    message: Message | None = None
    problem: str = ""


class Transport:
    """Messages under way; ``collect`` may be called again later for those still open."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.open: dict[str, int] = {}
        """Message id -> node, of messages that are not answered yet."""

    def send(self, messages: Sequence[Message]) -> list[Answer]:
        """Push messages. Returns an answer for each that the SuperLink did not take."""
        if not messages:
            return []
        ids = list(self.grid.push_messages(list(messages)))
        ids += [""] * (len(messages) - len(ids))  # a refused batch comes back as an empty list
        nodes = [message.metadata.dst_node_id for message in messages]
        self.open |= {message_id: node for message_id, node in zip(ids, nodes, strict=True) if message_id}
        lost = [node for message_id, node in zip(ids, nodes, strict=True) if not message_id]
        return [Answer(node, problem="the SuperLink did not take the message") for node in lost]

    def collect(self, patience_s: float) -> Iterator[Answer]:
        """Yield answers as they come, until all are in or ``patience_s`` has passed; there is
        always a last look."""
        deadline, pause = time.monotonic() + patience_s, POLL_S
        while True:
            last_look = time.monotonic() >= deadline
            came = 0
            for message_id, node in list(self.open.items()):
                for answer in self._pull(message_id, node):
                    came += 1
                    yield answer
            if last_look or not self.open:
                return
            pause = POLL_S if came else min(POLL_MAX_S, pause * 1.5)
            time.sleep(max(0.0, min(pause, deadline - time.monotonic())))

    def exchange(self, messages: Sequence[Message], patience_s: float) -> Iterator[Answer]:
        """Push messages and yield an answer for each that was not taken, or that came in time."""
        yield from self.send(messages)
        yield from self.collect(patience_s)

    def drop(self, nodes: Sequence[int]) -> None:
        """Stop waiting for some nodes."""
        self.open = {message_id: node for message_id, node in self.open.items() if node not in nodes}

    def _pull(self, message_id: str, node: int) -> list[Answer]:
        try:
            replies = list(self.grid.pull_messages([message_id]))
        except (httpx.HTTPError, OSError):
            raise  # the SuperLink, not a client
        except Exception as error:
            self.open.pop(message_id, None)
            return [Answer(node, problem=f"its reply cannot be decoded ({type(error).__name__})")]
        if replies:
            self.open.pop(message_id, None)
        return [Answer(node, reply) for reply in replies]
