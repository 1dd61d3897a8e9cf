"""A Flower Grid that runs ClientApps in this process through Flower's wire format, and can be made
to misbehave."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 7
Fault = Callable[[Message, Message | None], Message | list[Message] | None]
"""Sees the task and the honest reply; returns what arrives instead: a message, several, or
nothing."""


@dataclass
class LocalGrid(Grid):
    """One in-process client for each entry of ``node_configs``; ``faults`` maps (round, node) to a
    Fault."""

    app: ClientApp
    run_config: Mapping[str, Any]
    node_configs: list[dict[str, Any]]
    faults: dict[tuple[int, int], Fault] = field(default_factory=dict)
    replies: dict[str, list[Message]] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    first_node: int = 100

    def __post_init__(self) -> None:
        self._ids = itertools.count(1)
        self.contexts = {
            self.first_node + i: Context(RUN_ID, self.first_node + i, config, RecordDict(), dict(self.run_config))
            for i, config in enumerate(self.node_configs)
        }
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, 1

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        assert isinstance(messages, list), "HttpGrid walks over the messages twice: a generator fails in a deployment"
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [reply for message_id in message_ids for reply in self.replies.pop(message_id, [])]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))

    def _push(self, message: Message) -> str:
        message_id = f"m{next(self._ids)}"
        message.metadata.__dict__["_message_id"] = message_id
        arrived, size = over_the_wire(message)
        self.bytes_down += size
        node = message.metadata.dst_node_id
        reply = self._answer(arrived, node)
        fault = self.faults.get((int(message.metadata.group_id or 0), node))
        came = fault(message, reply) if fault else reply
        came = came if isinstance(came, list) else [came]
        self.replies[message_id] = [self._arrive(one, message_id) for one in came if one is not None]
        return message_id

    def _answer(self, message: Message, node: int) -> Message:
        """Run the ClientApp as a SuperNode would: an exception becomes an error reply."""
        try:
            return self.app(message, self.contexts[node])
        except Exception as error:
            return Message(Error(2, f"{type(error)}:<'{error}'>"), reply_to=message)

    def _arrive(self, reply: Message, message_id: str) -> Message:
        arrived, size = over_the_wire(reply)
        self.bytes_up += size
        forged = arrived.metadata.__dict__.get("_forged_reply_to")
        arrived.metadata.__dict__["_reply_to_message_id"] = forged or message_id
        return arrived

    def set_run(self, run: object) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError


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
