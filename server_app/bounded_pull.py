"""Pull a reply from Flower's SuperLink only where it is as large as a reply may be.

Flower keeps chunks of equal bytes once. So an Array of 400 MB can cost its sender one chunk of 5
MB, and whoever inflates it 400 MB twice. How much a message holds can be known before: the
SuperLink hands over its object ids, the head of an Array says in a kilobyte which chunks it is made
of, and Content-Length is the size of one object. Here heads are pulled before chunks, nothing is
read that is larger than what is left of the limits, and nothing is inflated that would be.

Flower has no hook for that. Its HttpGrid asks a client of the Runtime API for ids, objects and
confirmation, in this order; that client is replaced while one message is pulled.
``tests/server_app/test_bounded_pull.py`` fails where another Flower does it in another way. Grids
of simulations are left alone: their clients are on this machine.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx
from flwr.app import Array, Message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    Metadata,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_head_values_from_object_content,
    iterate_object_tree,
)
from flwr.superlink.grid.http_grid import HttpGrid

from server_app.reply_limits import Limits

MOST_OBJECTS = 4096
"""Of one message: 20 GB in Flower's chunks of 5 MiB."""
MOST_ANSWER = 1 << 20
"""Bytes of the SuperLink's answer with the ids of a message's objects, 80 each."""
MOST_HEAD = 1 << 17
"""Bytes of an Array's head, which has 70 for each chunk; text that is parsed."""


Announced = dict[str, PullAppMessagesResponse]
"""Replies that are being uploaded, by the message that they answer."""


class ReplyTooLarge(Exception):
    """A reply is larger than any that was asked for. The text is for people."""


class _NotUploaded(Exception):
    """An object of a reply is not there yet. Flower would wait for it, for two hours at most, and
    for nobody else meanwhile."""


def pull(grid: Grid, message_id: str, limits: Limits, announced: Announced) -> list[Message]:
    """Return what came in answer to one message: a reply, or nothing yet.

    ``announced`` keeps what the SuperLink says once, that a reply is there, until all of it is
    uploaded. Raises ReplyTooLarge, and whatever Flower raises for a reply that cannot be decoded.
    """
    if not isinstance(grid, HttpGrid):
        return list(grid.pull_messages([message_id]))
    client = _Metered(grid._runtime_client, message_id, limits, announced.get(message_id))
    grid._client = client  # type: ignore[assignment]  # a stand-in with the methods that are called
    try:
        with client.watching_lengths():
            found = list(grid.pull_messages([message_id]))
    except _NotUploaded:
        announced[message_id] = client.found
        return []
    except ReplyTooLarge:
        announced.pop(message_id, None)
        client.discard()
        raise
    finally:
        grid._client = client.real
    announced.pop(message_id, None)
    return found


class _Metered:
    """Flower's client of the Runtime API for one message, which pulls no more than the limits."""

    def __init__(self, real: Any, message_id: str, limits: Limits, announced: PullAppMessagesResponse | None) -> None:
        self.real: Final = real
        self.found = announced or PullAppMessagesResponse()
        """What the SuperLink has said that there is."""
        self._message_id = message_id
        self._limits = limits
        self._lock = threading.Lock()  # Flower pulls two objects at a time
        self._objects = 0
        self._chunks: dict[str, int] = {}
        """Bytes of each chunk, by object id."""
        self._arrays: dict[str, list[str]] = {}
        """The chunks of each Array, in their order and with repetitions."""
        self._other_bytes = 0
        self._replies: list[Metadata] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:
        """Ask which replies there are. Their objects are named heads first.

        What replies to another message is none of ours: any connected node can send the ServerApp
        messages that reply to nothing, and each pull hands them over.
        """
        if not self.found.messages_list:
            self.found = self.real.PullMessages(request)
        pairs = zip(self.found.messages_list, self.found.message_object_trees, strict=True)
        ours = [pair for pair in pairs if pair[0].metadata.reply_to_message_id == self._message_id]
        self._replies = [message.metadata for message, _ in ours]
        trees = [self._heads_first(tree) for _, tree in ours]
        return PullAppMessagesResponse(messages_list=[message for message, _ in ours], message_object_trees=trees)

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:
        """Pull one object, and count it."""
        pulled: PullObjectResponse = self.real.PullObject(request)
        if pulled.object_found and not pulled.object_available:
            raise _NotUploaded
        with self._lock:
            self._count(request.object_id, pulled.object_content)
        return pulled

    def ConfirmMessageReceived(self, request: ConfirmMessageReceivedRequest) -> ConfirmMessageReceivedResponse:
        """Judge the whole, of which all is here and nothing inflated yet, and confirm it."""
        inflated = sum(self._chunks.get(chunk, 0) for chunks in self._arrays.values() for chunk in chunks)
        if inflated > self._limits.arrays:
            raise ReplyTooLarge(self._too_large("its Arrays have", inflated, self._limits.arrays))
        confirmed: ConfirmMessageReceivedResponse = self.real.ConfirmMessageReceived(request)
        return confirmed

    def discard(self) -> None:
        """Let the SuperLink forget what was not pulled."""
        node = Node(node_id=SUPERLINK_NODE_ID)
        for reply in self._replies:
            request = ConfirmMessageReceivedRequest(node=node, run_id=reply.run_id, message_object_id=reply.message_id)
            self.real.ConfirmMessageReceived(request)

    @contextmanager
    def watching_lengths(self) -> Iterator[None]:
        """Look at Content-Length before a body is read."""
        hooks = self.real._client.event_hooks
        self.real._client.event_hooks = {**hooks, "response": [*hooks["response"], self._check_length]}
        try:
            yield
        finally:
            self.real._client.event_hooks = hooks

    def _check_length(self, response: httpx.Response) -> None:
        length, path = int(response.headers.get("content-length", 0)), response.request.url.path
        if path.endswith("/pull-messages") and length > MOST_ANSWER:
            raise ReplyTooLarge(self._too_large("the names of its objects have", length, MOST_ANSWER))
        with self._lock:
            left = self._limits.arrays + self._limits.records - sum(self._chunks.values()) - self._other_bytes
        if path.endswith("/pull-object") and length > left:
            raise ReplyTooLarge(self._too_large("one more of its objects has", length, left))

    def _heads_first(self, tree: ObjectTree) -> ObjectTree:
        """Return a tree of two levels that Flower walks in this order: what has children, what has
        none, and the message; each once."""
        heads, leaves = dict[str, None](), dict[str, None]()
        for number, node in enumerate(iterate_object_tree(tree)):
            if number > MOST_OBJECTS:
                raise ReplyTooLarge(f"its reply has more than {MOST_OBJECTS} objects")
            (heads if node.children else leaves)[node.object_id] = None
        names = [name for name in (*heads, *leaves) if name != tree.object_id]
        return ObjectTree(object_id=tree.object_id, children=[ObjectTree(object_id=name) for name in names])

    def _count(self, name: str, content: bytes) -> None:
        if not content:
            return  # unknown to the SuperLink: Flower says that it is lost
        kind, children, _ = get_object_head_values_from_object_content(content)
        if kind == ArrayChunk.__qualname__:
            self._chunks[name] = len(content)
            size, limit, what = sum(self._chunks.values()), self._limits.arrays, "its Arrays have"
        else:
            self._other_bytes += len(content)
            size, limit, what = self._other_bytes, self._limits.records, "its records have"
        if kind == Array.__qualname__:
            self._arrays[name] = self._chunks_of(content, children)
        if size > limit:
            raise ReplyTooLarge(self._too_large(what, size, limit))

    def _chunks_of(self, content: bytes, children: list[str]) -> list[str]:
        """Return the chunks that an Array names. Raises ReplyTooLarge for one that announces more
        bytes than may come."""
        if len(content) > MOST_HEAD:
            raise ReplyTooLarge(self._too_large("the head of an Array has", len(content), MOST_HEAD))
        head = json.loads(get_object_body(content, Array))
        announced = math.prod(head["shape"])  # of one byte each, in what we ask for
        if announced > self._limits.arrays:
            raise ReplyTooLarge(self._too_large("an Array announces", announced, self._limits.arrays))
        return [children[number] for number in head["arraychunk_ids"]]

    @staticmethod
    def _too_large(what: str, size: int, limit: int) -> str:
        return f"its reply is too large: {what} {size} bytes, at most {limit} are taken"
