"""Who a reply is from: the node that was asked, which alone knows the secret of its task, under the
name by which the coordinator admitted it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from federation import SITES, Federation, same_bits
from flwr.app import Message

from fedsense_core.errors import FedSenseError
from fedsense_core.protocol.messages import NONCE_BYTES, TrainReply, TrainTask
from server_app import cohort

Make = Callable[..., Federation]
CHANGES = {"run.rounds": 2, "federation.deadline_s": 0.5}


def forged(secret: Callable[[bytes], bytes | None]) -> Callable[[Message, Message | None], Message]:
    """Return a fault that changes what a reply, or an answer to a handshake, repeats."""

    def forge(task: Message, reply: Message | None) -> Message:
        assert reply is not None
        (record,) = [reply.content.config_records[name] for name in ("reply", "handshake") if name in reply.content]
        nonce = record["nonce"]
        assert isinstance(nonce, bytes)
        changed = secret(nonce)
        if changed is None:
            del record["nonce"]
        else:
            record["nonce"] = changed
        return reply

    return forge


def other_sender(task: Message, reply: Message | None) -> Message:
    assert reply is not None
    reply.metadata.__dict__["_src_node_id"] = 100  # alpha
    return reply


def snapshot_wanted(task: Message, reply: Message | None) -> Message:
    return Message(TrainReply("beta", "needs-snapshot", "lost").to_records(), reply_to=task)


FORGERIES: dict[str, tuple[Callable[..., Message], str]] = {
    "none": (forged(lambda nonce: None), "does not repeat the secret of its task"),
    "empty": (forged(lambda nonce: b""), "does not repeat the secret of its task"),
    "guessed": (forged(lambda nonce: bytes(NONCE_BYTES)), "does not repeat the secret of its task"),
    "cut": (forged(lambda nonce: nonce[:-1]), "does not repeat the secret of its task"),
    "needs-snapshot": (snapshot_wanted, "does not repeat the secret of its task"),
    "other-sender": (other_sender, "names node 100 as its sender"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_reply_is_rejected_and_has_no_effect(federation: Make, name: str) -> None:
    forge, reason = FORGERIES[name]
    fed, silent = federation("forged", changes=CHANGES), federation("silent", changes=CHANGES)
    fed.grid.faults = {(2, fed.node("beta")): forge}
    silent.grid.faults = {(2, silent.node("beta")): lambda task, reply: None}
    fed.run()
    silent.run()
    (rejected,) = fed.lines()[1]["rejected"]
    assert rejected["node"] == "beta"
    assert reason in rejected["reason"]
    assert same_bits(fed.state().weights, silent.state().weights)


def test_every_task_has_a_secret_of_its_own_and_an_old_one_opens_nothing(federation: Make) -> None:
    seen: list[bytes] = []

    def note(task: Message, reply: Message | None) -> Message | None:
        seen.append(TrainTask.from_records(task.content).nonce)
        return reply

    fed = federation(changes=CHANGES | {"run.rounds": 3})
    fed.grid.faults = {(number, fed.node(site)): note for number in (1, 2) for site in SITES}
    fed.grid.faults[3, fed.node("beta")] = forged(lambda nonce: seen[4])  # beta's of round 2
    fed.run()
    assert len(set(seen)) == 6
    assert {len(one) for one in seen} == {NONCE_BYTES}
    assert [one["node"] for one in fed.lines()[2]["rejected"]] == ["beta"]


def admitted(fed: Federation, names: Mapping[str, str]) -> None:
    """Let the grid name nodes as Flower's does: by that under which a key was admitted."""

    def nodes() -> list[Any]:
        return [
            SimpleNamespace(node_id=node, name=names.get(SITES[node - fed.first_node], ""))
            for node in fed.grid.contexts
        ]

    fed.grid.get_nodes = nodes  # type: ignore[assignment]


def test_the_admitted_name_is_the_only_one(federation: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "HANDSHAKE_GRACE_S", 0.1)
    fed = federation(changes=CHANGES | {"federation.min_clients": 2})
    admitted(fed, {"alpha": "alpha", "beta": "delta", "gamma": "gamma"})
    fed.run()
    first = fed.lines()[0]
    assert first["accepted"] == ["alpha", "gamma"]
    (rejected,) = first["rejected"]
    assert rejected["node"] == "delta"
    assert "was admitted as 'delta', but its site file has the name 'beta'" in rejected["reason"]


def test_whoever_says_anothers_name_first_keeps_nobody_out(federation: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "HANDSHAKE_GRACE_S", 0.1)
    fed = federation(changes=CHANGES | {"federation.min_clients": 2})
    admitted(fed, {"beta": "beta", "gamma": "gamma"})

    def pose(task: Message, reply: Message | None) -> Message:
        assert reply is not None
        reply.content.config_records["handshake"]["site"] = "beta"
        return reply

    fed.grid.faults = {(0, fed.node("alpha")): pose}
    fed.run()
    first = fed.lines()[0]
    assert first["accepted"] == ["beta", "gamma"]
    assert first["rejected"] == [
        {"node": "node 100", "reason": "site 'beta' is the name under which another node was admitted"}
    ]


def test_forged_answer_to_a_handshake_makes_no_client(federation: Make) -> None:
    fed = federation(changes=CHANGES)
    fed.grid.faults = {(0, fed.node("beta")): forged(lambda nonce: bytes(NONCE_BYTES))}
    with pytest.raises(FedSenseError, match=r"node 101: the reply does not repeat the secret"):
        fed.run()
