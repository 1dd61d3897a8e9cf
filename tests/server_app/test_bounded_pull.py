"""A reply is pulled only where it is as large as a reply may be: with Flower's own HttpGrid.

These tests lean on how Flower 1.42 pulls: ids, objects, confirmation, and only then inflation.
"""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from federation import Federation
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.proto import message_pb2 as message_proto
from flwr.supercore.task_identity import TaskIdentity
from runtime_api import Objects, Reply, RuntimeApi

from fedsense_core.protocol.messages import TrainReply, TrainTask, broadcast_record
from fedsense_core.tools.runner.in_process_grid import RUN_ID, SERVER_NODE
from server_app.bounded_pull import ReplyTooLarge, pull
from server_app.reply_limits import SPARE, Limits
from server_app.transport import Transport

CHUNK = 5 << 20
NODE = 7
LIMITS = Limits(arrays=1 << 20, records=1 << 16)
FRAME = np.arange(200_000, dtype=np.uint8)


@pytest.fixture(autouse=True)
def _identity() -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, SERVER_NODE


def reply(frame: np.ndarray | Array = FRAME, **records: ConfigRecord) -> RecordDict:
    content = TrainReply("alpha", "trained", "", {"num-examples": 8}, np.zeros(4, np.uint8)).to_records()
    content["update"] = ArrayRecord({"frame": frame if isinstance(frame, Array) else Array(frame)})
    return RecordDict({**content, **records})


def exchange(
    folder: Path, content: RecordDict, change: Callable[[Reply], None] = lambda _: None
) -> tuple[Message | None, str, RuntimeApi]:
    """Send a task whose reply is ``content`` as ``change`` has it; return what came, or why
    nothing did."""

    def answer(task_id: str, task: message_proto.Message) -> Reply:
        honest = Reply.of(Message(content, NODE, MessageType.TRAIN), task_id)
        change(honest)
        return honest

    api = RuntimeApi(folder, {NODE: "alpha"}, answer)
    grid = api.grid()
    (task_id,) = grid.push_messages([task()])
    try:
        (came,) = pull(grid, task_id, LIMITS, {})
    except ReplyTooLarge as error:
        return None, str(error), api
    return came, "", api


def task() -> Message:
    return Message(RecordDict(), NODE, MessageType.TRAIN)


def test_honest_reply_arrives_whole(tmp_path: Path) -> None:
    came, _, api = exchange(tmp_path, reply())
    assert came is not None
    frame = TrainReply.from_message(came).frame
    assert frame is not None
    assert np.array_equal(frame, FRAME)
    assert len(api.confirmed) == 1
    assert len(api.pulled) == len(set(api.pulled)) == 7  # a message's: records, two configs, an Array, a chunk


def test_honest_update_of_equal_chunks_arrives_whole(tmp_path: Path) -> None:
    """Flower uploads 11 MB of zeros as two chunks."""
    zeros = np.zeros(11 << 20, np.uint8)
    api = RuntimeApi(tmp_path, {NODE: "a"}, lambda name, _: Reply.of(Message(reply(zeros), NODE, "train"), name))
    grid = api.grid()
    (task_id,) = grid.push_messages([task()])
    (came,) = pull(grid, task_id, Limits(len(zeros) + SPARE, SPARE), {})
    frame = TrainReply.from_message(came).frame
    assert frame is not None
    assert np.array_equal(frame, zeros)


def repeated(times: int, claimed: int) -> tuple[RecordDict, Callable[[Reply], None]]:
    """Return a reply whose Array names one chunk many times, and says that it has ``claimed``
    bytes."""
    content = reply(np.zeros(CHUNK - 128, np.uint8))
    array = content.array_records["update"]["frame"]

    def change(honest: Reply) -> None:
        names = [name for name, data in honest.objects.items() if data.startswith(b"Array ")]
        head, body = honest.objects[names[0]].split(b"\x00", 1)
        fields = json.loads(body) | {"shape": [claimed], "arraychunk_ids": [0] * times}
        text = json.dumps(fields).encode()
        forged = b"%s %d\x00%s" % (head.rsplit(b" ", 1)[0], len(text), text)
        rename(honest, names[0], forged)

    assert len(array.data) == CHUNK
    return content, change


def rename(honest: Reply, name: str, content: bytes) -> None:
    """Put an object in the place of another, in all that name it."""
    new = hashlib.sha256(content).hexdigest()
    honest.objects[new] = content
    del honest.objects[name]
    tree = honest.tree.SerializeToString().replace(name.encode(), new.encode())
    honest.tree.ParseFromString(tree)
    for parent, data in list(honest.objects.items()):
        if name.encode() in data.split(b"\x00", 1)[0]:
            if parent == honest.metadata.message_id:
                honest.objects[parent] = data.replace(name.encode(), new.encode())
            else:
                rename(honest, parent, data.replace(name.encode(), new.encode()))


@pytest.mark.parametrize("claimed", [400 << 20, 1000])
def test_reply_of_repeated_chunks_is_refused_before_it_is_inflated(tmp_path: Path, claimed: int) -> None:
    """An Array of 80 equal chunks of 5 MiB, which says so, or says that it is small."""
    content, change = repeated(80, claimed)
    tracemalloc.start()
    came, problem, api = exchange(tmp_path, content, change)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert came is None
    assert "too large" in problem
    assert len(api.confirmed) == 1, "the SuperLink may forget it"
    assert peak < 10 * CHUNK  # this process is the sender, too: of a chunk, not of 80


def test_many_small_arrays_of_one_chunk_are_counted_each(tmp_path: Path) -> None:
    data = np.zeros(100_000, np.uint8)
    heads = {f"a{i}": Array("uint8", (i + 1,), "numpy.ndarray", data.tobytes()) for i in range(11)}
    _, problem, _ = exchange(tmp_path, RecordDict({"update": ArrayRecord(heads)}))
    assert "its Arrays have 1100" in problem


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (reply(np.zeros(2 << 20, np.uint8)), "an Array announces 2097152 bytes, at most 1048576"),
        (reply(Array("uint8", (9,), "numpy.ndarray", bytes(2 << 20))), "one more of its objects has 2097"),
        (reply(more=ConfigRecord({"zeros": bytes(70_000)})), "its records have 7"),
        (reply(more=ConfigRecord({"zeros": bytes(4 << 20)})), "one more of its objects has 4194"),
        (reply(more=ConfigRecord({f"k{i}": i for i in range(9000)})), "its records have"),
    ],
    ids=["says-so", "lies", "record", "large-record", "many-keys"],
)
def test_too_large_reply_is_refused_with_what_it_has(tmp_path: Path, content: RecordDict, expected: str) -> None:
    _, problem, api = exchange(tmp_path, content)
    assert expected in problem
    chunks = [name for name in api.pulled if api.object(name).startswith(b"ArrayChunk ")]
    assert len(chunks) <= 1
    assert len(api.confirmed) == 1


def test_reply_of_too_many_objects_is_refused_before_any_is_pulled(tmp_path: Path) -> None:
    def more(honest: Reply) -> None:
        names = [hashlib.sha256(b"%d" % i).hexdigest() for i in range(5000)]
        honest.tree.children.extend(message_proto.ObjectTree(object_id=name) for name in names)

    _, problem, api = exchange(tmp_path, reply(), more)
    assert problem == "its reply has more than 4096 objects"
    assert api.pulled == []


def test_too_large_reply_is_an_answer_of_the_node_that_was_asked(tmp_path: Path) -> None:
    large = reply(np.zeros(2 << 20, np.uint8))
    api = RuntimeApi(tmp_path, {NODE: "alpha"}, lambda name, _: Reply.of(Message(large, NODE, MessageType.TRAIN), name))
    transport = Transport(api.grid(), LIMITS)
    assert transport.send([task()]) == []
    (answer,) = transport.look()
    assert (answer.node, answer.message) == (NODE, None)
    assert answer.problem.startswith("its reply is too large: ")
    assert transport.open == {}


def test_message_that_replies_to_nothing_takes_no_clients_place(tmp_path: Path) -> None:
    """Any connected node can address the ServerApp; each pull hands such messages over."""
    stray = Reply.of(Message(reply(), 9, MessageType.TRAIN), "")
    api = RuntimeApi(tmp_path, {NODE: "alpha"}, lambda *_: None, unasked=[stray])
    grid = api.grid()
    (task_id,) = grid.push_messages([task()])
    assert pull(grid, task_id, LIMITS, {}) == []
    api.client = lambda name, _: Reply.of(Message(reply(), NODE, MessageType.TRAIN), name)
    (came,) = pull(grid, task_id, LIMITS, {})
    assert came.metadata.reply_to_message_id == task_id


def test_reply_that_is_not_uploaded_yet_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A broken connection leaves an upload half done; a hostile client announces what it never
    uploads."""
    withheld: Objects = {}

    def answer(task_id: str, sent: message_proto.Message) -> Reply:
        node = sent.metadata.dst_node_id
        honest = Reply.of(Message(reply(FRAME + np.uint8(node)), node, MessageType.TRAIN), task_id)
        if node == NODE:
            chunk = next(name for name, data in honest.objects.items() if data.startswith(b"ArrayChunk "))
            withheld[chunk] = honest.objects.pop(chunk)
        return honest

    api = RuntimeApi(tmp_path, {NODE: "alpha", 8: "beta"}, answer)
    transport = Transport(api.grid(), LIMITS)
    transport.send([task(), Message(RecordDict(), 8, MessageType.TRAIN)])
    assert [answer.node for answer in transport.look()] == [8]
    assert list(transport.look()) == []
    for name, content in withheld.items():
        (tmp_path / name).write_bytes(content)
    (late,) = transport.look()
    assert late.node == NODE
    assert late.message is not None
    assert transport.open == {}


def test_frames_that_many_clients_are_sent_are_uploaded_and_kept_once(tmp_path: Path) -> None:
    api = RuntimeApi(tmp_path, dict.fromkeys(range(3), ""), lambda *_: None)
    numbers, broadcast = np.zeros(1, np.float32), broadcast_record(FRAME)
    tasks = [TrainTask(1, 1, 1, 0, "", "", numbers, numbers, FRAME, nonce=bytes([i])) for i in range(3)]
    messages = [Message(task.to_records(broadcast), i, MessageType.TRAIN) for i, task in enumerate(tasks)]
    assert len(list(api.grid().push_messages(messages))) == 3
    assert len({id(message.content["broadcast"]) for message in messages}) == 1
    kinds = [api.object(name).split(b" ", 1)[0] for name in api.pushed]
    assert kinds.count(b"ArrayChunk") == kinds.count(b"Array") == kinds.count(b"ArrayRecord") == 1
    assert kinds.count(b"Message") == 3
    for name, task in zip(api.tasks, tasks, strict=True):
        back = TrainTask.from_records(api.content(name).content)
        assert back.nonce == task.nonce
        assert np.array_equal(back.frames, FRAME)


def test_clients_that_hold_the_same_are_sent_one_record(federation: Callable[..., Federation]) -> None:
    fed, sent = federation(changes={"run.rounds": 2}), list[Message]()
    push = fed.grid.push_messages

    def watched(messages: list[Message]) -> Iterable[str]:
        sent.extend(message for message in messages if message.metadata.message_type == "train")
        return push(messages)

    fed.grid.push_messages = watched  # type: ignore[assignment, method-assign]
    fed.run()
    records = [message.content["broadcast"] for message in sent]
    assert len(records) == 6
    assert [len({id(record) for record in records[start : start + 3]}) for start in (0, 3)] == [1, 1]
