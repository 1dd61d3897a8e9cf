"""What an institution's audit log says of a run, and that nothing leaves unlogged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from federation import SITES, Federation
from flwr.app import Message

from fedsense_core.audit import AuditLog, Entry
from fedsense_core.config import resolve
from fedsense_core.protocol.messages import TrainReply
from fedsense_core.ssl.federated import SUMS


@pytest.fixture
def institutions(federation: Callable[..., Federation], tmp_path: Path) -> Callable[..., Federation]:
    """Return a maker of federations whose SuperNodes name a site and a state folder, as those of a
    deployment do."""

    def make(**kwargs: Any) -> Federation:
        made = federation(**kwargs)
        for site in SITES:
            file = made.root / "sites" / f"{site}.toml"
            file.write_text("share_statistics = true\n" + file.read_text())
            context = made.grid.contexts[made.node(site)]
            state = made.root / "institutions" / site
            state.mkdir(parents=True)
            (state / "policy.toml").write_text("[sharing]\nsums = true\n")
            context.node_config.clear()
            context.node_config.update({"site": str(file), "state-dir": str(state)})
        return made

    return make


def log_of(federation: Federation, site: str) -> AuditLog:
    return AuditLog(federation.root / "institutions" / site / "audit.jsonl")


def entries(federation: Federation, site: str) -> list[Entry]:
    return list(log_of(federation, site).entries())


def lost(task: Message, reply: Message | None) -> None:
    return None


def test_log_names_what_was_asked_what_left_and_what_became_of_it(institutions: Callable[..., Federation]) -> None:
    left: list[bytes] = []

    def keep(task: Message, reply: Message | None) -> Message | None:
        assert reply is not None
        frame = TrainReply.from_message(reply).frame
        assert frame is not None
        left.append(frame.tobytes())
        return reply

    changes: dict[str, Any] = {
        "train.recipe": "lejepa",
        "train.federated_sigreg": True,
        "data.share_statistics": True,
        "train.views": 2,
    }
    changes |= {"train.sigreg_directions": 8, "run.rounds": 3, "federation.deadline_s": 0.3}
    made = institutions(changes=changes, faults={(1, 100): keep, (2, 100): lost})
    made.run()
    log = entries(made, "alpha")
    assert [entry.event for entry in log] == ["greeted", *["asked", "sent"] * 3]
    greeted, asked = log[0].said, [entry.said for entry in log if entry.event == "asked"]
    assert greeted["channels"]["sensor-statistics"]["bytes"] > 0
    assert (greeted["site"], greeted["chips"]) == ("alpha", 9)
    config = resolve(made.run_config)
    expected = {"preset": "fedsense", "recipe": "lejepa", "local_steps": 2, "batch_size": 4, "codec": "eden", "bits": 1}
    assert all(one.items() >= {**expected, "settings": config.digest}.items() for one in asked)
    assert [one["round"] for one in asked] == [1, 2, 3]
    assert [one["last"].get("round") for one in asked] == [None, 1, 2]
    assert [one["last"]["verdict"] for one in asked] == ["none sent", "counted", "dropped"]
    sent = [entry.said for entry in log if entry.event == "sent"]
    assert sent[0]["frame"] == {"bytes": len(left[0]), "sha256": hashlib.sha256(left[0]).hexdigest()}
    assert all(one["channels"].keys() == {SUMS} for one in sent)
    measured = [line["bytes_up"] for line in made.lines()]
    logged = sum(entries(made, site)[2].said["bytes_up"] for site in SITES)
    assert measured[0] == logged + 3 * 128, "the header of an Array's own format comes on top"
    assert not log_of(made, "alpha").verify().problem


def test_nothing_leaves_an_institution_whose_log_cannot_be_written(institutions: Callable[..., Federation]) -> None:
    made = institutions(changes={"run.rounds": 2})

    def damage(task: Message, reply: Message | None) -> Message | None:
        path = log_of(made, "beta").path
        path.write_bytes(path.read_bytes()[:-9] + b"\n")
        return reply

    made.grid.faults[1, made.node("beta")] = damage
    made.run()
    first, second = made.lines()
    assert first["accepted"] == ["alpha", "beta", "gamma"]
    assert second["accepted"] == ["alpha", "gamma"]
    assert [one["node"] for one in second["rejected"]] == ["beta"]
    assert "audit.jsonl, its last line: it ends with no digest" in second["rejected"][0]["reason"]
    assert str(made.root) not in json.dumps(second), "folders of an institution stay its own"


def test_refusal_is_logged_with_its_reason(institutions: Callable[..., Federation]) -> None:
    made = institutions(changes={"run.rounds": 1, "federation.min_clients": 2})
    (made.root / "sites" / "gamma.toml").write_text('name = "gamma"\n[[sources]]\npaths = ["no/*.tif"]\nsensor = "rgb"')
    made.run()
    (greeted,) = entries(made, "gamma")
    assert greeted.event == "greeted"
    assert "no/*.tif" in greeted.said["reason"]
