"""A ClientApp in a process of its own, as in a deployment: so what server and client need of memory
is measured apart.

Messages go through its standard input and output, each as Flower's own protocol buffer behind its
length. Run as ``python -m fedsense_core.tools.health.client_process``.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from types import TracebackType
from typing import IO

from flwr.app import Context, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.task_identity import TaskIdentity

from fedsense_core.errors import FedSenseError
from fedsense_core.tools.health.dry_round import client_app
from fedsense_core.tools.runner.in_process_grid import RUN_ID

LENGTH = struct.Struct("<Q")


class ClientProcess:
    """Answers messages like the ClientApp that it starts; use it in a ``with``."""

    def __enter__(self) -> ClientProcess:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "fedsense_core.tools.health.client_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()

    def __call__(self, message: Message, context: Context) -> Message:
        """Return the client's reply. Raises FedSenseError where its process ended."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        about = {"node_id": context.node_id, "node": dict(context.node_config), "settings": dict(context.run_config)}
        try:
            _send(self._child.stdin, json.dumps(about).encode())
            _send(self._child.stdin, message_to_proto(message).SerializeToString())
            answer = _receive(self._child.stdout)
        except OSError:
            answer = None
        if answer is None:
            raise FedSenseError(f"the client's process ended with status {self._child.wait()}: is memory short?")
        return message_from_proto(ProtoMessage.FromString(answer))


def serve(incoming: IO[bytes], outgoing: IO[bytes]) -> None:
    """Answer messages until there are no more."""
    app = client_app()
    while (about := _receive(incoming)) is not None:
        said, content = json.loads(about), _receive(incoming)
        if content is None:
            return
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, said["node_id"]
        context = Context(RUN_ID, said["node_id"], said["node"], RecordDict(), said["settings"])
        reply = app(message_from_proto(ProtoMessage.FromString(content)), context)
        _send(outgoing, message_to_proto(reply).SerializeToString())


def _send(stream: IO[bytes], content: bytes) -> None:
    stream.write(LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes | None:
    """Return what was sent, None where the other end is closed."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    content = stream.read(length)
    return content if len(content) == length else None


def main() -> int:
    """Serve the parent of this process."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what training says must not get between replies
    serve(sys.stdin.buffer, replies)
    return 0


if __name__ == "__main__":
    sys.exit(main())
