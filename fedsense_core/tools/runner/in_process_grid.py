"""A Flower Grid whose clients work in this process, one after the other, behind Flower's own wire
format.

What only a network shows (lost nodes, late replies, limits of size) does not happen here; the tests
make it happen in a subclass.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from logging import ERROR
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedsense_core.tools.runner.planning import Scalar

RUN_ID, SERVER_NODE, FIRST_NODE = 1, 1, 2


class InProcessGrid(Grid):
    """One client for each entry of ``node_configs``; ``app`` is a ClientApp, or answers as one."""

    def __init__(
        self,
        app: Callable[[Message, Context], Message],
        run_config: Mapping[str, Any],
        node_configs: Sequence[Mapping[str, Scalar]],
        first_node: int = FIRST_NODE,
    ) -> None:
        self.app = app
        self.contexts = {
            node: Context(RUN_ID, node, dict(config), RecordDict(), dict(run_config))
            for node, config in enumerate(node_configs, first_node)
        }
        """What each client keeps between messages, by node id."""
        self.bytes_down, self.bytes_up = 0, 0
        """Of all messages so far, as Flower writes them."""
        self._sent: dict[str, Message] = {}
        self._ids = itertools.count(1)
        self._run: Any = None

    def set_run(self, run: Any) -> None:
        """Take Flower's record of the run."""
        self._run = run

    @property
    def run(self) -> Any:
        """Flower's record of the run; None where nobody set one."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all clients, in the order of their partitions."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages and return their ids."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Let the clients of some messages work, and return their replies; each message is answered
        once."""
        sent = [(name, self._sent.pop(name)) for name in message_ids if name in self._sent]
        return [self._arrive(reply, name) for name, task in sent for reply in self.replies_to(task)]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push messages and return all replies."""
        return self.pull_messages(self.push_messages(messages))

    def replies_to(self, task: Message) -> list[Message]:
        """Return what comes of a message that was sent: the client's reply."""
        return [self._work(task)]

    def _push(self, message: Message) -> str:
        message_id = f"m{next(self._ids)}"
        message.metadata.__dict__["_message_id"] = message_id
        self._sent[message_id] = message
        return message_id

    def _work(self, task: Message) -> Message:
        """Return the client's reply; what it raises becomes an error reply, as in a SuperNode."""
        # Copied when the client's turn comes, not when the message is pushed: one frame that goes
        # to all of them stays one frame in memory.
        arrived, size = over_the_wire(task)
        self.bytes_down += size
        try:
            return self.app(arrived, self.contexts[task.metadata.dst_node_id])
        except Exception as error:
            log(ERROR, "ClientApp raised an exception", exc_info=error)
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"{type(error)}:<'{error}'>"), reply_to=task)

    def _arrive(self, reply: Message, message_id: str) -> Message:
        arrived, size = over_the_wire(reply)
        self.bytes_up += size
        arrived.metadata.__dict__["_reply_to_message_id"] = message_id
        return arrived


def over_the_wire(message: Message) -> tuple[Message, int]:
    """Deflate and inflate a message as SuperLink and SuperNode do; return it and its bytes."""
    if message.has_error():
        return message, 0
    contents = {key: part.deflate() for key, part in get_all_nested_objects(message).items()}
    metadata, size = message.metadata, sum(map(len, contents.values()))  # inflating empties ``contents``
    arrived = inflate_object_from_contents(message.object_id, contents)
    assert isinstance(arrived, Message)
    arrived.__dict__["_metadata"] = metadata
    return arrived, size
