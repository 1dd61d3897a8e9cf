"""Strategy and clients against each other, through Flower's wire format."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from federation import SITES, Federation, same_bits
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from client_app.memory import ClientMemory
from fedsense_core.codecs import get_codec
from fedsense_core.durable import only_one
from fedsense_core.errors import CheckpointError, ConfigError, FedSenseError
from fedsense_core.models import build_model
from fedsense_core.protocol.frame import FrameHeader, pack, unpack
from fedsense_core.protocol.messages import TrainReply
from fedsense_core.tensors import TensorTable
from server_app import gathering

Make = Callable[..., Federation]
FP32 = {"preset": "fedavg"}


def test_a_run_moves_the_model_and_leaves_every_file(federation: Make) -> None:
    fed = federation()
    run = fed.run()
    lines = fed.lines()
    assert [line["round"] for line in lines] == [1, 2, 3, 4]
    assert all(line["accepted"] == list(SITES) and not line["rejected"] for line in lines)
    assert run.is_finished
    assert (run.encoder / "model.safetensors").is_file()
    initial = TensorTable.of(model := build_model(fed.config)).read(model)
    assert not same_bits(fed.state().weights, initial)


def test_full_precision_round_equals_flowers_fedavg_bit_for_bit(federation: Make) -> None:
    sent: list[TrainReply] = []

    def listen(task: Message, reply: Message | None) -> Message | None:
        assert reply is not None
        sent.append(TrainReply.from_message(reply))
        return reply

    fed = federation(changes=FP32 | {"run.rounds": 1})
    fed.grid.faults = {(1, fed.node(site)): listen for site in SITES}
    fed.run()
    records = []
    for reply in sorted(sent, key=lambda one: one.site):
        assert reply.frame is not None
        _, payload = unpack(reply.frame)
        table = TensorTable.of(build_model(fed.config))
        weights = get_codec("none", 32).decode(payload, table, 0).numpy()
        arrays = {spec.name: Array(weights[spec.offset : spec.end].reshape(spec.shape)) for spec in table.specs}
        metrics = MetricRecord({"num-examples": int(reply.examples)})
        records.append(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}))
    expected = aggregate_arrayrecords(records, "num-examples")
    flat = np.concatenate([expected[spec.name].numpy().reshape(-1) for spec in table.specs])
    assert flat.dtype == np.float32
    assert same_bits(fed.state().weights, torch.from_numpy(flat))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        FP32,
        {"outer.kind": "nesterov", "downlink.codec": "none"},
        {"federation.participation": 0.67, "federation.min_clients": 1},
    ],
    ids=["fedsense", "fedavg", "nesterov", "partial"],
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
    timing = ("seconds", "client_seconds")
    for a, b in zip(again.lines(), whole.lines(), strict=True):
        assert {k: v for k, v in a.items() if k not in timing} == {k: v for k, v in b.items() if k not in timing}


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


def test_replicas_of_all_clients_and_the_server_are_equal_after_every_round(federation: Make) -> None:
    fed = federation()
    fed.run()
    state = fed.state()
    assert state.replica is not None
    for site in SITES:
        slot = ClientMemory(fed.folder.path / "clients" / site, state.run_id).recall(4)
        assert slot is not None
        assert slot.replica.version == state.replica.version == 4
        assert slot.replica.digest() == state.replica.digest()


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


def _interrupt(task: Message, reply: Message | None) -> Message:
    raise KeyboardInterrupt


def _reframed(reply: Message | None, change: Callable[[FrameHeader, bytes], tuple[FrameHeader, bytes]]) -> RecordDict:
    assert reply is not None
    honest = TrainReply.from_message(reply)
    assert honest.frame is not None
    header, payload = unpack(honest.frame)
    frame = pack(*change(header, bytes(payload)))
    return TrainReply(honest.site, "trained", "", honest.metrics, frame).to_records()


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


@pytest.mark.parametrize("name", list(HOSTILE))
@pytest.mark.parametrize("preset", ["fedsense", "fedavg"])
def test_bad_reply_is_rejected_and_the_round_equals_the_honest_one(federation: Make, name: str, preset: str) -> None:
    spoil, pattern = HOSTILE[name]
    changes = {"preset": preset, "run.rounds": 2, "federation.deadline_s": 0.5}

    def hostile(task: Message, reply: Message | None) -> Message | None:
        content = spoil(reply)
        return None if content is None else Message(content, reply_to=task)

    fed = federation("hostile", changes=changes)
    fed.grid.faults = {(2, fed.node("beta")): hostile}
    fed.run()
    rejected = fed.lines()[1]["rejected"]
    assert [one["node"] for one in rejected] == ["beta"]
    assert re.search(pattern, rejected[0]["reason"]), rejected
    assert len(rejected[0]["reason"]) <= 1100
    assert rejected[0]["reason"].isprintable()

    silent = federation("silent", changes=changes)
    silent.grid.faults = {(2, silent.node("beta")): lambda task, reply: None}
    silent.run()
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
        reply.metadata.__dict__["_src_node_id"] = fed.node("alpha")
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


@pytest.mark.parametrize("lost", ["one", "all"])
def test_task_that_the_superlink_did_not_take_is_named(federation: Make, lost: str) -> None:
    fed = federation(changes={"run.rounds": 2})
    honest = fed.grid.push_messages

    def push(messages: list[Message]) -> list[str]:
        ids = list(honest(messages))
        if messages[0].metadata.group_id != "1":
            return ids
        return ["", *ids[1:]] if lost == "one" else []

    fed.grid.push_messages = push  # type: ignore[assignment, method-assign]
    fed.run()
    first, second = fed.lines()
    expected = ["alpha"] if lost == "one" else list(SITES)
    assert [one["node"] for one in first["rejected"]] == expected
    assert all(one["reason"] == "the SuperLink did not take the message" for one in first["rejected"])
    assert second["accepted"] == list(SITES)


def test_two_runs_cannot_share_a_folder(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 1})
    with only_one(fed.folder.path), pytest.raises(CheckpointError, match="in use by another run"):
        fed.run()
    fed.run()
    assert fed.folder.is_finished


def test_mute_node_delays_the_first_round_only_and_is_asked_once(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "HELLO_GRACE_S", 0.3)
    fed = federation(changes={"run.rounds": 3, "federation.min_clients": 2})
    hellos: list[int] = []

    def mute(task: Message, reply: Message | None) -> None:
        hellos.append(1)

    fed.grid.faults = {(0, fed.node("gamma")): mute}
    fed.run()
    assert hellos == [1]
    assert all(line["accepted"] == ["alpha", "beta"] for line in fed.lines())


def test_site_that_leaves_is_named_and_may_come_back_under_another_node(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 4, "federation.min_clients": 2})
    context = fed.grid.contexts[fed.node("beta")]

    def leave(task: Message, reply: Message | None) -> Message | None:
        del fed.grid.contexts[fed.node("beta")]
        return reply

    def back(task: Message, reply: Message | None) -> Message | None:
        fed.grid.contexts[777] = context
        return reply

    fed.grid.faults = {(1, fed.node("gamma")): leave, (2, fed.node("gamma")): back}
    fed.run()
    lines = fed.lines()
    assert lines[1]["rejected"] == [{"node": "beta", "reason": "no longer connected"}]
    assert lines[2]["accepted"] == lines[3]["accepted"] == list(SITES)


def test_two_nodes_with_one_site_file_count_once(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 2})
    fed.grid.contexts[800] = replace(fed.grid.contexts[fed.node("beta")], node_id=800)
    fed.run()
    first, second = fed.lines()
    assert first["accepted"] == second["accepted"] == list(SITES)
    assert "already taken" in first["rejected"][0]["reason"]
    assert not second["rejected"]  # asked once, reported once


def test_half_participation_asks_half_and_below_it_carries_no_residual(federation: Make) -> None:
    fed = federation(changes={"federation.participation": 0.34, "federation.min_clients": 3, "run.rounds": 3})
    fed.run()
    assert all(len(line["accepted"]) == 1 for line in fed.lines())
    run_id = fed.state().run_id
    for site in SITES:
        memory = ClientMemory(fed.folder.path / "clients" / site, run_id)
        for number in memory.rounds():
            slot = memory.recall(number)
            assert slot is not None
            assert slot.residual is None


def test_standalone_without_a_site_is_refused(federation: Make) -> None:
    with pytest.raises(ConfigError, match=r"federation\.only"):
        federation(changes={"preset": "standalone"}).run()


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


def test_below_the_quorum_nothing_moves_and_nothing_is_lost(federation: Make) -> None:
    silent = {(2, node): (lambda task, reply: None) for node in (100, 101)}
    changes = {"run.rounds": 3, "federation.quorum": 2, "federation.deadline_s": 0.3}
    fed = federation(changes=changes, faults=silent)
    fed.run()
    lines = fed.lines()
    assert lines[1]["accepted"] == ["gamma"]
    assert lines[1]["update_norm"] == 0.0
    assert lines[2]["accepted"] == list(SITES)
    assert lines[2]["momentum_norm"] == lines[1]["momentum_norm"]
    # The stream did not advance, so round 3 sends no frame to clients that took part in round 2.
    assert fed.state().replica.version == 2  # type: ignore[union-attr]


def test_run_without_a_single_good_round_fails_and_says_so(federation: Make) -> None:
    nobody = {(r, node): (lambda task, reply: None) for r in (1, 2) for node in range(100, 103)}
    fed = federation(changes={"run.rounds": 2, "federation.deadline_s": 0.2}, faults=nobody)
    with pytest.raises(FedSenseError, match="no round was aggregated"):
        fed.run()
    assert not fed.folder.is_finished


def test_too_few_clients_are_an_error_that_says_what_to_do(federation: Make) -> None:
    fed = federation(changes={"federation.min_clients": 4})
    with pytest.raises(FedSenseError, match=r"3 clients are able to train.*min_clients asks for 4"):
        fed.run()


def test_site_with_a_broken_site_file_is_named_and_the_others_train(federation: Make) -> None:
    fed = federation(changes={"federation.min_clients": 2, "run.rounds": 1})
    (fed.root / "sites" / "beta" / "scene.tif").write_bytes(b"II*\x00not a raster")
    fed.run()
    (line,) = fed.lines()
    assert line["accepted"] == ["alpha", "gamma"]
    assert "scene.tif" in line["rejected"][0]["reason"]


def test_bytes_in_metrics_are_the_arrays_that_travelled(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 2})
    fed.run()
    frames = sum(line["bytes_up"] for line in fed.lines())
    assert 0 < fed.grid.bytes_up - frames < 6 * 6_000  # Flower's envelopes and records around six replies
    table = TensorTable.of(build_model(fed.config))
    payload = get_codec("eden", 1).payload_bytes(table)
    assert fed.lines()[0]["bytes_up"] == pytest.approx(3 * (payload + 96 + 128), abs=3 * 64)


@pytest.mark.parametrize("kind", ["none", "sam", "mixed", "sam-every-k"])
def test_every_guidance_trains(federation: Make, kind: str) -> None:
    fed = federation(changes={"guidance.kind": kind, "run.rounds": 3})
    fed.run()
    assert len(fed.lines()[-1]["accepted"]) == 3


@pytest.mark.parametrize("kind", ["public-ssl", "self"])
def test_every_distillation_control_moves_the_model(federation: Make, kind: str) -> None:
    fed = federation(changes={"distillation.kind": kind, "run.rounds": 1})
    fed.run()
    assert fed.lines()[0]["distillation_loss"] is not None


def test_centralised_trains_one_client_on_all_imagery(federation: Make) -> None:
    fed = federation(changes={"preset": "centralised", "federation.min_clients": 1, "run.rounds": 1})
    fed.run()
    assert fed.lines()[0]["accepted"] == ["pooled"]


def test_standalone_asks_one_site_only(federation: Make) -> None:
    changes = {"preset": "standalone", "federation.only": "beta", "federation.min_clients": 1, "run.rounds": 2}
    fed = federation(changes=changes)
    fed.run()
    assert all(line["accepted"] == ["beta"] for line in fed.lines())


def test_masked_images_train_on_a_vit_and_a_resnet(federation: Make) -> None:
    vit = {
        "model.architecture": "vit_tiny_patch16_224",
        "model.args": {"patch_size": 4, "embed_dim": 32, "depth": 1, "num_heads": 2, "global_pool": "avg"},
        "model.decoder_width": 32,
    }
    for name, changes in (("vit", vit), ("resnet", {"data.view_size": 64})):
        fed = federation(name, changes={"train.recipe": "mae", "run.rounds": 2, **changes})
        fed.run()
        assert len(fed.lines()) == 2
