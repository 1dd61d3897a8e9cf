"""Send a round's messages and pull replies one by one until all are in or the deadline has passed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

POLL_S = 0.2
"""First pause between two looks; it grows to POLL_MAX_S, Flower's own pace, so a long round costs few requests."""
POLL_MAX_S = 3.0


def exchange(
    grid: Grid, messages: Sequence[Message], deadline_s: float, name: Callable[[Message], str]
) -> tuple[dict[str, str], Iterator[Message]]:
    """Push ``messages`` and return message id -> ``name(message)``, and an iterator over the replies.

    Replies are told apart by the id they answer: error replies made by the SuperLink come from node 1.
    """
    ids = list(grid.push_messages(list(messages))) if messages else []
    asked = {message_id: name(message) for message_id, message in zip(ids, messages, strict=True) if message_id}
    return asked, _pull(grid, set(asked), time.monotonic() + deadline_s)


def _pull(grid: Grid, waiting: set[str], deadline: float) -> Iterator[Message]:
    pause = POLL_S
    while waiting and time.monotonic() < deadline:
        replies = list(grid.pull_messages(list(waiting)))
        for reply in replies:
            waiting.discard(reply.metadata.reply_to_message_id)
            yield reply
        pause = POLL_S if replies else min(POLL_MAX_S, pause * 1.5)
        if waiting:
            time.sleep(pause)
