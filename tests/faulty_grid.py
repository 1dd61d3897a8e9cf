"""The tools' in-process Grid, made to misbehave as a network and its clients can."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Message

from fedsense_core.tools.runner.in_process_grid import InProcessGrid

Fault = Callable[[Message, Message | None], Message | list[Message] | None]
"""Sees the task and the honest reply; returns what arrives instead: a message, several, or
nothing."""


class FaultyGrid(InProcessGrid):
    """``faults`` maps (round, node) to a Fault."""

    def __init__(self, *args: Any, faults: dict[tuple[int, int], Fault], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.faults = faults

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        assert isinstance(messages, list), "HttpGrid walks over the messages twice: a generator fails in a deployment"
        return super().push_messages(messages)

    def replies_to(self, task: Message) -> list[Message]:
        (reply,) = super().replies_to(task)
        fault = self.faults.get((int(task.metadata.group_id or 0), task.metadata.dst_node_id))
        came = fault(task, reply) if fault else reply
        return came if isinstance(came, list) else [came] if came else []

    def _arrive(self, reply: Message, message_id: str) -> Message:
        forged = reply.metadata.__dict__.get("_forged_reply_to")
        return super()._arrive(reply, forged or message_id)
