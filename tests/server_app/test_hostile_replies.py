"""Replies that must not count: the round equals, bit for bit, the round without that client."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from federation import SITES, Federation, same_bits
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from torch import Tensor

from fedsense_core.protocol.frame import FrameHeader, pack, unpack
from fedsense_core.protocol.messages import TrainReply

Make = Callable[..., Federation]


def _reframed(reply: Message | None, change: Callable[[FrameHeader, bytes], tuple[FrameHeader, bytes]]) -> RecordDict:
    assert reply is not None
    honest = TrainReply.from_message(reply)
    assert honest.frame is not None
    header, payload = unpack(honest.frame)
    frame = pack(*change(header, bytes(payload)))
    return TrainReply(honest.site, "trained", "", honest.metrics, frame, nonce=honest.nonce).to_records()


def _with_metrics(reply: Message | None, **metrics: float) -> RecordDict:
    assert reply is not None
    content = reply.content
    content.metric_records["metrics"].update(metrics)
    return content


def _with_array(reply: Message | None, data: bytes) -> RecordDict:
    assert reply is not None
    content = reply.content
    content["update"] = ArrayRecord({"frame": Array("uint8", (1,), "numpy.ndarray", data)})
    return content


def _npy_claiming(length: int) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (length,)})
    return file.getvalue()


def _nan_scales(header: FrameHeader, payload: bytes) -> tuple[FrameHeader, bytes]:
    return header, b"\xff" * len(payload)


def _short(header: FrameHeader, payload: bytes) -> tuple[FrameHeader, bytes]:
    return replace(header, payload_bytes=len(payload) - 8), payload[:-8]


def _other_model(header: FrameHeader, payload: bytes) -> tuple[FrameHeader, bytes]:
    return replace(header, elements=header.elements + 1), payload


def _old_round(header: FrameHeader, payload: bytes) -> tuple[FrameHeader, bytes]:
    return replace(header, round=header.round - 1), payload


HOSTILE: dict[str, tuple[Callable[[Message | None], RecordDict | None], str]] = {
    "nan": (lambda reply: _reframed(reply, _nan_scales), "NaN|finite|scale"),
    "short": (lambda reply: _reframed(reply, _short), "payload length"),
    "wrong-shape": (lambda reply: _reframed(reply, _other_model), "element count"),
    "old-round": (lambda reply: _reframed(reply, _old_round), "round is 1, expected 2"),
    "zero-examples": (lambda reply: _with_metrics(reply, **{"num-examples": 0.0}), "claims 0 examples"),
    "too-many-examples": (lambda reply: _with_metrics(reply, **{"num-examples": 9.0}), "at most 8"),
    "empty-array": (lambda reply: _with_array(reply, b""), "something else"),
    "zip-array": (lambda reply: _with_array(reply, b"PK\x03\x04junk"), "something else"),
    "huge-array": (lambda reply: _with_array(reply, _npy_claiming(1 << 45)), "something else"),
    "odd-metric": (lambda reply: _with_metrics(reply, **{"x\n" * 9000: float("inf")}), "not a finite number"),
    "nan-metric": (lambda reply: _with_metrics(reply, **{"ssl-loss": float("nan")}), "not a finite number"),
    "no-records": (lambda reply: RecordDict(), "has no"),
    "no-answer": (lambda reply: None, "no answer"),
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tensor]:
    """Return a function from a preset to the final weights where beta says nothing in round 2."""

    @cache
    def weights(preset: str) -> Tensor:
        silent = Federation(tmp_path_factory.mktemp(preset), changes=changes_of(preset))
        silent.grid.faults = {(2, silent.node("beta")): lambda task, reply: None}
        silent.run()
        return silent.state().weights

    return weights


def changes_of(preset: str) -> dict[str, Any]:
    return {"preset": preset, "run.rounds": 2, "federation.deadline_s": 0.5}


@pytest.mark.parametrize(
    ("preset", "name"),
    [("fedsense", name) for name in HOSTILE] + [("fedavg", name) for name in ("nan", "wrong-shape", "no-answer")],
)
def test_bad_reply_is_rejected_and_the_round_equals_the_honest_one(
    federation: Make, honest: Callable[[str], Tensor], name: str, preset: str
) -> None:
    spoil, pattern = HOSTILE[name]

    def hostile(task: Message, reply: Message | None) -> Message | None:
        content = spoil(reply)
        return None if content is None else Message(content, reply_to=task)

    fed = federation(changes=changes_of(preset))
    fed.grid.faults = {(2, fed.node("beta")): hostile}
    fed.run()
    rejected = fed.lines()[1]["rejected"]
    assert [one["node"] for one in rejected] == ["beta"]
    assert re.search(pattern, rejected[0]["reason"]), rejected
    assert len(rejected[0]["reason"]) <= 1100
    assert rejected[0]["reason"].isprintable()

    assert same_bits(fed.state().weights, honest(preset))


def test_note_of_a_client_is_shown_on_one_short_line_and_changes_nothing(federation: Make) -> None:
    def talk(task: Message, reply: Message | None) -> Message | None:
        assert reply is not None
        reply.content.config_records["reply"]["note"] = "\x1b[2J\nround 9/9" + "y" * 9999
        return reply

    fed, silent = federation("talking", changes={"run.rounds": 1}), federation("silent", changes={"run.rounds": 1})
    fed.grid.faults = {(1, fed.node("beta")): talk}
    fed.run()
    silent.run()
    (note,) = fed.lines()[0]["notes"]
    assert note["site"] == "beta"
    assert len(note["note"]) == 200
    assert note["note"].isprintable()
    assert same_bits(fed.state().weights, silent.state().weights)


def test_second_reply_to_one_task_counts_once(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 1})
    fed.grid.faults = {(1, fed.node("alpha")): lambda task, reply: [reply, reply]}
    fed.run()
    (line,) = fed.lines()
    assert line["accepted"] == list(SITES)
    assert [one["reason"] for one in line["rejected"]] == ["a second reply to the same round"]


def test_reply_counts_for_the_node_that_was_asked_whatever_it_says_of_itself(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 2, "federation.deadline_s": 0.5})

    def pose(task: Message, reply: Message | None) -> Message | None:
        """Beta answers in the name of alpha, and claims to answer another message."""
        assert reply is not None
        reply.content.config_records["reply"]["site"] = "alpha"
        reply.metadata.__dict__["_forged_reply_to"] = "m1"
        return reply

    fed.grid.faults = {(1, fed.node("beta")): pose}
    fed.run()
    first, second = fed.lines()
    assert first["accepted"] == ["alpha", "gamma"]
    assert first["rejected"] == [{"node": "beta", "reason": "the reply names site 'alpha'"}]
    assert second["accepted"] == list(SITES)  # it was asked again who it is


def test_reply_that_flower_cannot_decode_is_rejected_and_the_others_count(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 1})
    honest, poisoned = fed.grid.pull_messages, fed.node("beta")

    def pull(ids: list[str]) -> list[Message]:
        replies = list(honest(ids))
        if any(reply.metadata.src_node_id == poisoned and "update" in reply.content for reply in replies):
            raise UnicodeDecodeError("utf-8", b"", 0, 1, "garbage")
        return replies

    fed.grid.pull_messages = pull  # type: ignore[assignment, method-assign]
    fed.run()
    (line,) = fed.lines()
    assert line["accepted"] == ["alpha", "gamma"]
    assert line["rejected"] == [{"node": "beta", "reason": "its reply cannot be decoded (UnicodeDecodeError)"}]


def test_crashing_client_is_named_and_the_run_goes_on(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 2})

    def crash(task: Message, reply: Message | None) -> Message:
        return Message(Error(2, "<class 'MemoryError'>:<'out of memory'>"), reply_to=task)

    fed.grid.faults = {(1, fed.node("gamma")): crash}
    fed.run()
    assert fed.lines()[0]["rejected"] == [
        {"node": "gamma", "reason": "error 2: <class 'MemoryError'>:<'out of memory'>"}
    ]
    assert fed.lines()[1]["accepted"] == list(SITES)
