"""Runs that were killed, folders that are taken, clients that forgot: nothing is lost, nothing is
guessed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
from federation import SITES, Federation, same_bits
from flwr.app import Message

from fedsense_core.atomic_io import only_one
from fedsense_core.errors import CheckpointError, RunPaused
from fedsense_core.models.pretraining import build_model
from fedsense_core.tensors import TensorTable

Make = Callable[..., Federation]
FP32 = {"preset": "fedavg"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        FP32,
        {"preset": "fedsense-plus"},
        pytest.param({"outer.kind": "nesterov", "downlink.codec": "none"}, marks=pytest.mark.slow),
        {"federation.participation": 0.67, "federation.min_clients": 1},
        pytest.param(
            {"train.recipe": "lejepa", "train.views": 2, "train.federated_sigreg": True}, marks=pytest.mark.slow
        ),
    ],
    ids=["fedsense", "fedavg", "fedsense-plus", "nesterov", "partial", "federated-sigreg"],
)
def test_killed_run_continues_to_the_same_bits(federation: Make, changes: dict[str, object]) -> None:
    whole = federation("whole", changes=changes)
    whole.run()

    def die(task: Message, reply: Message | None) -> Message:
        raise KeyboardInterrupt

    # Dies while round 3 is under way: some clients have already trained it.
    killed = federation("killed", changes=changes)
    last = killed.node("gamma")
    killed.grid.faults = {
        (3, node): die for node in ([last] if "federation.participation" not in changes else range(100, 103))
    }
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    again = federation("killed", changes=changes, first_node=900)  # a new Flower run has new node ids
    again.run()
    assert same_bits(again.state().weights, whole.state().weights)
    assert [line["round"] for line in again.lines()] == [1, 2, 3, 4]
    asked = [SITES[node - 900] for number, node in again.grid.asked if number == 3]
    accepted = [] if "federation.participation" in changes else ["alpha", "beta"]
    assert asked == [site for site in again.lines()[2]["accepted"] if site not in accepted]
    timing = ("seconds", "server_memory", "clients")
    for a, b in zip(again.lines(), whole.lines(), strict=True):
        assert measured(a) == measured(b)
        assert {k: v for k, v in a.items() if k not in timing} == {k: v for k, v in b.items() if k not in timing}


def measured(line: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return what clients measured of their training, without seconds and memory."""
    return {
        site: {name: value for name, value in metrics.items() if not name.endswith(("-seconds", "-bytes"))}
        for site, metrics in line["clients"].items()
    }


def test_two_runs_with_one_seed_are_equal_and_another_seed_differs(federation: Make) -> None:
    states = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fed = federation(name, changes={"run.seed": seed, "run.rounds": 2})
        fed.run()
        states.append(fed.state().weights)
    assert same_bits(states[0], states[1])
    assert not same_bits(states[0], states[2])


def test_finished_run_is_never_overwritten(federation: Make) -> None:
    federation(changes={"run.rounds": 1}).run()
    with pytest.raises(CheckpointError, match=r"finished.*run\.folder"):
        federation(changes={"run.rounds": 1}).run()


def test_other_settings_do_not_continue_a_run(federation: Make) -> None:
    fed = federation()
    fed.grid.faults = {(2, fed.node("alpha")): _interrupt}
    with pytest.raises(KeyboardInterrupt):
        fed.run()
    with pytest.raises(CheckpointError, match=r"train.learning_rate"):
        federation(changes={"train.learning_rate": 0.5}).run()


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(federation: Make) -> None:
    fed = federation()
    fed.grid.faults = {(4, fed.node("alpha")): _interrupt}
    with pytest.raises(KeyboardInterrupt):
        fed.run()
    newest = max(fed.folder.checkpoints.glob("round-*")) / "server.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x01")
    assert fed.state().round == 2
    again = federation()
    again.run()
    assert [line["round"] for line in again.lines()] == [1, 2, 3, 4]


def test_client_that_lost_its_state_sits_out_a_round_and_gets_a_snapshot(federation: Make) -> None:
    fed = federation()

    def lose(task: Message, reply: Message | None) -> Message | None:
        shutil.rmtree(fed.folder.path / "clients" / "beta")
        return reply

    fed.grid.faults = {(1, fed.node("beta")): lose}
    fed.run()
    lines = fed.lines()
    assert [one["node"] for one in lines[1]["rejected"]] == ["beta"]
    assert "needs a snapshot" in lines[1]["rejected"][0]["reason"]
    lost = "its state is gone and, with it, its error-feedback residual; it continues from a snapshot"
    assert [line["notes"] for line in lines] == [[], [{"site": "beta", "note": lost}], [], []]
    assert lines[2]["accepted"] == list(SITES)
    table = TensorTable.of(build_model(fed.config))
    assert lines[2]["bytes_down"] - lines[3]["bytes_down"] > 7 * table.numel  # ŵ and m̂ in float32, once
    assert not lines[3]["rejected"]


def test_restarted_client_without_state_is_served_a_snapshot_at_once(federation: Make) -> None:
    fed = federation()
    fed.grid.faults = {(3, fed.node("alpha")): _interrupt}
    with pytest.raises(KeyboardInterrupt):
        fed.run()
    shutil.rmtree(fed.folder.path / "clients" / "gamma")
    again = federation(first_node=500)
    again.run()
    assert all(not line["rejected"] for line in again.lines())
    assert [[one["site"] for one in line["notes"]] for line in again.lines()] == [[], [], ["gamma"], []]


def test_two_runs_cannot_share_a_folder(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 1})
    with only_one(fed.folder.path), pytest.raises(CheckpointError, match="in use by another run"):
        fed.run()
    fed.run()
    assert fed.folder.is_finished


def _interrupt(task: Message, reply: Message | None) -> Message:
    raise KeyboardInterrupt


def test_run_that_was_paused_in_its_first_round_keeps_what_it_has(federation: Make) -> None:
    nobody: dict[tuple[int, int], Any] = {(1, node): (lambda task, reply: None) for node in (101, 102)}
    changes = FP32 | {"run.rounds": 1, "federation.deadline_s": 0.2, "federation.quorum": 2, "federation.retries": 0}
    with pytest.raises(RunPaused, match=r"1 accepted, federation\.quorum asks for 2.*beta, gamma: no answer"):
        federation(changes=changes, faults=nobody).run()
    again = federation(changes=changes)
    again.run()
    assert [node for number, node in again.grid.asked if number == 1] == [101, 102]
    assert [line["accepted"] for line in again.lines()] == [list(SITES)]
    whole = federation("whole", changes=changes)
    whole.run()
    assert same_bits(again.state().weights, whole.state().weights)
