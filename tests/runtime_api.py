"""A SuperLink's Runtime API in this process, for Flower's own HttpGrid: its requests are answered
without a network, its objects lie in a folder.

For what only HttpGrid does: objects, chunks, trees. What clients do is a function.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from flwr.app import Message
from flwr.common.serde import message_to_proto
from flwr.proto import message_pb2 as message_proto
from flwr.proto import runtime_pb2 as runtime_proto
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_children_ids_from_object_content,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.supercore.run import Run
from flwr.supercore.runtime.runtime_http_client import RuntimeHttpClient
from flwr.superlink.grid.http_grid import HttpGrid

from fedsense_core.tools.runner.in_process_grid import RUN_ID

Objects = dict[str, bytes]


@dataclass
class Reply:
    """What a node uploads: a message, which objects it says the message has, and their contents."""

    metadata: message_proto.Metadata
    tree: message_proto.ObjectTree
    objects: Objects

    @classmethod
    def of(cls, message: Message, task_id: str) -> Reply:
        """Return an honest reply to a task."""
        message.metadata.__dict__["_reply_to_message_id"] = task_id
        with no_object_id_recompute():  # as in `HttpGrid.push_messages`
            message.metadata.__dict__["_message_id"] = message.object_id
            objects = {name: one.deflate() for name, one in get_all_nested_objects(message).items()}
            return cls(message_to_proto(message).metadata, get_object_tree(message), objects)


Client = Callable[[str, message_proto.Message], Reply | None]
"""Answers the message of an id; None for not yet."""


@dataclass
class RuntimeApi:
    """What `HttpGrid` talks to."""

    folder: Path
    nodes: dict[int, str]
    """Connected nodes: ids and the names under which they were admitted."""
    client: Client
    tasks: dict[str, message_proto.Message] = field(default_factory=dict)
    """Messages that are not answered yet, without content, by id."""
    pushed: list[str] = field(default_factory=list)
    """Objects that the ServerApp uploaded, in their order."""
    pulled: list[str] = field(default_factory=list)
    """Objects that it asked for."""
    confirmed: list[str] = field(default_factory=list)
    """Messages that it does not need any more."""
    unasked: list[Reply] = field(default_factory=list)
    """Messages to the ServerApp that reply to nothing: each pull hands them over."""

    def grid(self) -> HttpGrid:
        """Return a grid whose client asks this object."""
        grid, client = HttpGrid(token="a token"), RuntimeHttpClient("http://superlink.invalid")
        client._client = httpx.Client(transport=httpx.MockTransport(self._handle))
        grid._client = client
        grid.set_run(Run.create_empty(RUN_ID))
        return grid

    def object(self, name: str) -> bytes:
        """Return the content of an object."""
        return (self.folder / name).read_bytes()

    def content(self, task_id: str, leave_out: str = "") -> Message:
        """Return a message that the ServerApp sent, without the record ``leave_out``."""
        objects = dict(self._below(task_id, leave_out))
        return inflate_object_from_contents(task_id, objects)  # type: ignore[return-value]

    def _below(self, name: str, leave_out: str) -> Iterator[tuple[str, bytes]]:
        content = self.object(name)
        if content.startswith(b"RecordDict ") and leave_out:
            content = _without(content, leave_out)
        yield name, content
        for child in get_object_children_ids_from_object_content(content):
            yield from self._below(child, leave_out)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        asked = PROTOBUF_REQUEST_TYPES["POST", path]()
        asked.ParseFromString(request.content)
        answer = getattr(self, "_" + path.rsplit("/", 1)[1].replace("-", "_"))(asked)
        return httpx.Response(200, content=answer.SerializeToString())

    def _get_nodes(self, _: runtime_proto.GetNodesRequest) -> runtime_proto.GetNodesResponse:
        return runtime_proto.GetNodesResponse(nodes=[NodeInfo(node_id=n, name=name) for n, name in self.nodes.items()])

    def _push_messages(self, asked: runtime_proto.PushAppMessagesRequest) -> runtime_proto.PushAppMessagesResponse:
        self.tasks |= {message.metadata.message_id: message for message in asked.messages_list}
        ids = [message.metadata.message_id for message in asked.messages_list]
        wanted = {name for tree in asked.message_object_trees for name in _names(tree)}
        missing = [name for name in sorted(wanted) if not (self.folder / name).exists()]
        return runtime_proto.PushAppMessagesResponse(message_ids=ids, objects_to_push=missing, session_id="s")

    def _push_object(self, asked: message_proto.PushObjectRequest) -> message_proto.PushObjectResponse:
        self.pushed.append(asked.object_id)
        (self.folder / asked.object_id).write_bytes(asked.object_content)
        return message_proto.PushObjectResponse(stored=True)

    def _pull_messages(self, asked: runtime_proto.PullAppMessagesRequest) -> runtime_proto.PullAppMessagesResponse:
        waiting = {name: self.tasks[name] for name in asked.message_ids if name in self.tasks}
        answers = {name: answer for name, task in waiting.items() if (answer := self.client(name, task))}
        for name in answers:
            del self.tasks[name]
        replies = [*answers.values(), *self.unasked]
        self.unasked = []
        for reply in replies:
            for name, content in reply.objects.items():
                (self.folder / name).write_bytes(content)
        return runtime_proto.PullAppMessagesResponse(
            messages_list=[message_proto.Message(metadata=reply.metadata) for reply in replies],
            message_object_trees=[reply.tree for reply in replies],
        )

    def _pull_object(self, asked: message_proto.PullObjectRequest) -> message_proto.PullObjectResponse:
        self.pulled.append(asked.object_id)
        path = self.folder / asked.object_id
        content = path.read_bytes() if path.exists() else b""
        return message_proto.PullObjectResponse(
            object_found=True, object_available=bool(content), object_content=content
        )

    def _confirm_message_received(
        self, asked: message_proto.ConfirmMessageReceivedRequest
    ) -> message_proto.ConfirmMessageReceivedResponse:
        self.confirmed.append(asked.message_object_id)
        return message_proto.ConfirmMessageReceivedResponse()


def _names(tree: message_proto.ObjectTree) -> Iterator[str]:
    yield tree.object_id
    for child in tree.children:
        yield from _names(child)


def _without(records: bytes, name: str) -> bytes:
    """Return the content of a RecordDict without one of its records."""
    head, body = records.split(b"\x00", 1)
    names = json.loads(body)
    gone = names.pop(name, None)
    kind, children, _ = head.decode().split(" ")
    left = ",".join(child for child in children.split(",") if child != gone)
    text = json.dumps(names)
    return f"{kind} {left} {len(text)}\x00{text}".encode()
