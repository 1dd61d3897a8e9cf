"""The tools' in-process Grid, made to misbehave as a network and its clients can."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Error, Message
from flwr.proto.node_pb2 import NodeInfo

from fedsense_core.protocol.messages import TrainReply, TrainTask
from fedsense_core.tools.runner.in_process_grid import InProcessGrid

Fault = Callable[[Message, Message | None], Message | list[Message] | None]
"""Sees the task and the honest reply; returns what arrives instead: a message, several, or
nothing."""


class FaultyGrid(InProcessGrid):
    """``faults`` maps (round, node) to a Fault."""

    def __init__(self, *args: Any, faults: dict[tuple[int, int], Fault], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.faults = faults
        self.asked: list[tuple[int, int]] = []
        """(round, node) of every message so far, in the order in which they were sent; round 0 are
        handshakes."""
        self.at_work: set[tuple[int, int]] = set()
        """(round, node) of clients that have not come to the message yet, or to the end of it."""
        self.names: dict[int, str] = {}
        """By node: the name under which its key was admitted."""

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node, name=self.names.get(node, "")) for node in self.get_node_ids()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        assert isinstance(messages, list), "HttpGrid walks over the messages twice: a generator fails in a deployment"
        self.asked += map(round_and_node, messages)
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        sent = {name: self._sent.get(name) for name in message_ids}
        return super().pull_messages(
            [name for name, task in sent.items() if task is None or round_and_node(task) not in self.at_work]
        )

    def replies_to(self, task: Message) -> list[Message]:
        (reply,) = super().replies_to(task)
        fault = self.faults.get(round_and_node(task))
        came = fault(task, reply) if fault else reply
        return came if isinstance(came, list) else [came] if came else []

    def _arrive(self, reply: Message, message_id: str) -> Message:
        forged = reply.metadata.__dict__.get("_forged_reply_to")
        return super()._arrive(reply, forged or message_id)


def round_and_node(task: Message) -> tuple[int, int]:
    """Return whom a message asks, and in which round; 0 is the handshake."""
    return int(task.metadata.group_id or 0), task.metadata.dst_node_id


def once(fault: Fault, times: int = 1) -> Fault:
    """Return a fault of the first ``times`` tasks; what comes later is honest."""
    left = iter(range(times))
    return lambda task, reply: reply if next(left, None) is None else fault(task, reply)


def error(code: int, reason: str = "lost", node: int | None = None) -> Fault:
    """Return a fault that makes Flower answer in the place of a client."""

    def fail(task: Message, reply: Message | None) -> Message:
        failed = Message(Error(code, reason), reply_to=task)
        failed.metadata.__dict__["_src_node_id"] = task.metadata.dst_node_id if node is None else node
        return failed

    return fail


def refusal(site: str, reason: str) -> Fault:
    """Return a fault that makes a client refuse its task in words."""

    def refuse(task: Message, reply: Message | None) -> Message:
        nonce = TrainTask.from_records(task.content).nonce
        return Message(TrainReply(site, "refused", reason, nonce=nonce).to_records(), reply_to=task)

    return refuse
