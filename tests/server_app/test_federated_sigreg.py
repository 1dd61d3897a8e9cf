"""Sums of embeddings over a whole run: who gets which offset, what is refused, and what is
forgotten."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from federation import SITES, Federation, same_bits
from flwr.app import Message

from fedsense_core.protocol.messages import TrainReply, TrainTask
from fedsense_core.ssl.federated import OFFSET, SUMS, Offset
from fedsense_core.ssl.sigreg import SigregStatistics

Make = Callable[..., Federation]
LEJEPA = {"train.recipe": "lejepa", "train.views": 2, "train.sigreg_directions": 8, "federation.deadline_s": 0.5}
SHARED = LEJEPA | {"train.federated_sigreg": True}
BYTES = 8 + 136 * 8


def _sums(data: bytes) -> SigregStatistics:
    return SigregStatistics.from_bytes(data, 8)


@pytest.mark.parametrize(
    "participation", [1.0, pytest.param(0.67, marks=pytest.mark.slow)], ids=["all", "two-of-three"]
)
def test_each_site_gets_how_far_all_were_from_it_in_the_round_before(federation: Make, participation: float) -> None:
    share = {"run.rounds": 3, "federation.participation": participation}
    asked: dict[tuple[int, str], bytes] = {}
    sent: dict[tuple[int, str], bytes] = {}

    def note(task: Message, reply: Message | None) -> Message | None:
        assert reply is not None
        content = TrainTask.from_records(task.content)
        answer = TrainReply.from_message(reply)
        asked[content.round, answer.site], sent[content.round, answer.site] = (
            content.attachments.get(OFFSET, b""),
            answer.attachments[SUMS],
        )
        return reply

    fed = federation(changes=SHARED | share)
    fed.grid.faults = {(number, fed.node(site)): note for number in (1, 2, 3) for site in SITES}
    fed.run()
    assert len(asked) == (9 if participation == 1 else 6)
    for number, site in asked:
        assert _sums(sent[number, site]).count == 2 * 4 * 2  # steps, chips, views
        before = {other: _sums(sent[number - 1, other]) for other in SITES if (number - 1, other) in sent}
        expected = Offset.between(list(before.values()), before[site]).to_bytes() if site in before else b""
        assert asked[number, site] == expected
    plain = federation("plain", changes=LEJEPA | share)
    plain.run()
    for one, other in zip(fed.lines(), plain.lines(), strict=True):
        assert one["bytes_up"] - other["bytes_up"] == len(one["accepted"]) * BYTES
        offsets = [asked[one["round"], site] for site in one["accepted"]]
        assert one["bytes_down"] - other["bytes_down"] == sum(map(len, offsets))
    assert not same_bits(fed.state().weights, plain.state().weights)


def test_alone_a_site_trains_as_with_plain_lejepa(federation: Make) -> None:
    only = {"run.rounds": 3, "federation.only": "alpha", "federation.min_clients": 1}
    runs = [federation(name, changes=changes | only) for name, changes in (("shared", SHARED), ("plain", LEJEPA))]
    for fed in runs:
        fed.run()
    assert same_bits(runs[0].state().weights, runs[1].state().weights)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda sums: b"", "have 0 bytes of numbers"),
        (lambda sums: sums[:8] + b"\xff" * (len(sums) - 8), "have numbers beyond 16"),
        (lambda sums: (10**6).to_bytes(8, "little") + sums[8:], "1000000 samples, its examples have 16 views"),
    ],
    ids=["missing", "nan", "too-many"],
)
def test_sums_that_cannot_be_leave_the_reply_out(
    federation: Make, spoil: Callable[[bytes], bytes], problem: str
) -> None:
    def hostile(task: Message, reply: Message | None) -> Message | None:
        assert reply is not None
        record = reply.content.config_records["attachments"]
        sums = record[SUMS]
        assert isinstance(sums, bytes)
        record[SUMS] = spoil(sums)
        return reply

    fed = federation("hostile", changes=SHARED | {"run.rounds": 2})
    fed.grid.faults = {(1, fed.node("beta")): hostile}
    fed.run()
    (rejected,) = fed.lines()[0]["rejected"]
    assert rejected["node"] == "beta"
    assert problem in rejected["reason"]
    silent = federation("silent", changes=SHARED | {"run.rounds": 2})
    silent.grid.faults = {(1, silent.node("beta")): lambda task, reply: None}
    silent.run()
    assert same_bits(fed.state().weights, silent.state().weights)


def test_repeated_round_sends_the_same_sums_again(federation: Make) -> None:
    fed = federation(changes=SHARED | {"run.rounds": 2, "federation.quorum": 3})
    asked: list[bytes] = []

    def note(task: Message, reply: Message | None) -> Message | None:
        asked.append(TrainTask.from_records(task.content).attachments[OFFSET])
        return reply if len(asked) > 1 else None

    fed.grid.faults = {(2, fed.node("beta")): note}
    fed.run()
    assert asked[0] == asked[1]
