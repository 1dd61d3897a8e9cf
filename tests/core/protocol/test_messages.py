"""Messages to values: what a stranger sends is a value or a FrameError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedsense_core.errors import FrameError
from fedsense_core.protocol.messages import Handshake, TrainReply, TrainTask, bytes_up
from fedsense_core.tools.runner.in_process_grid import over_the_wire

FRAME = np.arange(200, dtype=np.uint8)


@pytest.fixture(autouse=True)
def _identity() -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1


def message(content: RecordDict) -> Message:
    return over_the_wire(Message(content, 5, "train"))[0]


def test_task_survives_the_wire() -> None:
    radii, gammas = np.array([0.5, 0.0], np.float32), np.array([0.25, 1.0], np.float32)
    task = TrainTask(1 << 61, 3, 4, 2, "code", "digest", radii, gammas, FRAME, {"sums": b"1234"}, b"secret")
    back = TrainTask.from_records(message(task.to_records()).content)
    assert (back.run_id, back.round, back.version, back.acknowledged) == (1 << 61, 3, 4, 2)
    assert back.radii.tolist() == [0.5, 0.0]
    assert back.gammas.tolist() == [0.25, 1.0]
    assert np.array_equal(back.frames, FRAME)
    assert back.attachments == {"sums": b"1234"}
    assert back.nonce == b"secret"
    assert back.bytes_down == 216 + 4


def test_reply_survives_the_wire() -> None:
    sent = message(
        TrainReply(
            "a", "trained", "", {"num-examples": 8, "ssl-loss": 1.5}, FRAME, attachments={"sums": b"1234"}, nonce=b"n"
        ).to_records()
    )
    reply = TrainReply.from_message(sent)
    assert reply.site == "a"
    assert reply.examples == 8
    assert reply.note == ""
    assert reply.frame is not None
    assert np.array_equal(reply.frame, FRAME)
    assert reply.attachments == {"sums": b"1234"}
    assert reply.nonce == b"n"
    assert bytes_up(sent) == 200 + 128 + 4  # with the .npy header and the attachment


def test_bytes_of_a_reply_are_counted_whoever_sent_it() -> None:
    assert bytes_up(message(RecordDict())) == 0
    assert bytes_up(message(RecordDict({"attachments": ConfigRecord({"sums": "no bytes"})}))) == 0
    assert bytes_up(message(RecordDict({"attachments": ConfigRecord({"sums": b"12345"})}))) == 5


def test_handshake_survives_the_wire_with_and_without_a_problem() -> None:
    full = Handshake("a", 5, 1, (1, 2), "c", warnings=2, nonce=b"n")
    for handshake in (full, Handshake("", code="c", problem="no imagery")):
        assert Handshake.from_message(message(handshake.to_records())) == handshake


def test_attachments_survive_the_wire_and_empty_ones_do_not_travel() -> None:
    carried = {"sums": b"abc", "more": bytes(1000)}
    for sent in (
        Handshake("a", attachments=carried | {"empty": b""}),
        TrainReply("a", "trained", attachments=carried, frame=FRAME),
    ):
        content = sent.to_records()
        assert dict(content.config_records["attachments"]) == carried
        assert type(sent).from_message(message(content)).attachments == carried
    assert "attachments" not in Handshake("a").to_records().config_records
    assert bytes_up(message(content)) == len(FRAME) + 128 + 1003


@pytest.mark.parametrize("record", [{"sums": "text"}, {"sums": [1, 2]}, {str(i): b"x" for i in range(17)}])
def test_attachments_that_are_no_bytes_or_too_many_are_a_frame_error(record: dict[str, Any]) -> None:
    content = TrainReply("a", "trained", "", {"num-examples": 8}, FRAME).to_records()
    content["attachments"] = ConfigRecord(record)
    with pytest.raises(FrameError):
        TrainReply.from_message(message(content))


def spoiled(change: Callable[[RecordDict], None]) -> Message:
    content = TrainReply("a", "trained", "", {"num-examples": 8}, FRAME).to_records()
    change(content)
    return message(content)


def _text_metric(content: RecordDict) -> None:
    content["metrics"] = MetricRecord({"num-examples": [1.0, 2.0]})


def _float_array(content: RecordDict) -> None:
    content["update"] = ArrayRecord({"frame": Array(np.zeros(5, np.float32))})


def _square_array(content: RecordDict) -> None:
    content["update"] = ArrayRecord({"frame": Array(np.zeros((5, 5), np.uint8))})


def _lying_array(content: RecordDict) -> None:
    content["update"] = ArrayRecord({"frame": Array("uint8", (1 << 40,), "numpy.ndarray", b"\x93NUMPY garbage")})


def _pickled(content: RecordDict) -> None:
    content["update"] = ArrayRecord({"frame": Array("object", (1,), "numpy.ndarray", b"\x93NUMPY\x01\x00")})


def _foreign(content: RecordDict) -> None:
    content["update"] = ArrayRecord({"frame": Array("uint4", (3,), "something.else", b"abc")})


SPOILERS: list[Callable[[RecordDict], None]] = [
    lambda content: content.pop("reply") and None,
    lambda content: content.pop("metrics") and None,
    lambda content: content.pop("update") and None,
    _text_metric,
    _float_array,
    _square_array,
    _lying_array,
    _pickled,
    _foreign,
    lambda content: content.update(more=ConfigRecord({"a": 1})),
    lambda content: content.update(more=ArrayRecord({"frame": Array(FRAME)})),
    lambda content: content.config_records["reply"].update(more=1),
    lambda content: content.array_records["update"].update(more=Array(FRAME)),
    lambda content: content.metric_records["metrics"].update({"accuracy": 1.0}),
    lambda content: content.metric_records["metrics"].update({"train-seconds": -1.0}),
    lambda content: content.metric_records["metrics"].update({"personal-share": 1.5}),
    lambda content: content.metric_records["metrics"].update({"ssl-loss": 1.7e308}),
]


@pytest.mark.parametrize("change", SPOILERS, ids=range(len(SPOILERS)))
def test_anything_else_is_a_frame_error(change: Callable[[RecordDict], None]) -> None:
    with pytest.raises(FrameError):
        TrainReply.from_message(spoiled(change))


def test_handshake_with_a_record_or_a_key_that_nobody_asked_for_is_a_frame_error() -> None:
    for more in ({"more": ConfigRecord({"a": 1})}, {"update": ArrayRecord({"frame": Array(FRAME)})}):
        with pytest.raises(FrameError, match="nobody asked for"):
            Handshake.from_message(message(RecordDict({**Handshake("a").to_records(), **more})))
    content = Handshake("a").to_records()
    content.config_records["handshake"]["more"] = "x" * 10**6
    with pytest.raises(FrameError, match="'handshake' has 'more', which nobody asked for"):
        Handshake.from_message(message(content))


def test_error_reply_is_a_frame_error_with_its_code_and_reason() -> None:
    failed = Message(Error(8, "ClientApp stopped\nresponding."), reply_to=Message(RecordDict(), 5, "train"))
    with pytest.raises(FrameError, match=r"error 8: ClientApp stopped responding\."):
        TrainReply.from_message(failed)


def test_note_of_a_stranger_is_one_short_printable_line() -> None:
    sent = TrainReply("a", "trained", "", {"num-examples": 8}, FRAME, "x\n\x1b[2J" + "y" * 9999)
    note = TrainReply.from_message(message(sent.to_records())).note
    assert note.startswith("x  [2Jyyy")
    assert len(note) == 200


@pytest.mark.parametrize("rounds", ["x", "1,,2", "1" * 5000])
def test_handshake_with_odd_rounds_is_a_frame_error(rounds: str) -> None:
    content = Handshake("a").to_records()
    content.config_records["handshake"]["rounds"] = rounds
    with pytest.raises(FrameError):
        Handshake.from_message(message(content))


def test_words_of_a_stranger_are_one_printable_line() -> None:
    content = RecordDict(
        {"reply": ConfigRecord({"site": "a", "status": "refused", "reason": "x\n\x1b[2J" + "y" * 9999})}
    )
    content["metrics"] = MetricRecord({})
    reply = TrainReply.from_message(message(content))
    assert reply.reason.startswith("x  [2Jyyy")
    assert len(reply.reason) == 500
