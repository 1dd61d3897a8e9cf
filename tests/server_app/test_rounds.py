"""Strategy and clients against each other, through Flower's wire format: rounds as they should
be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from federation import SITES, Federation, same_bits
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from flwr.supercore.task_identity import TaskIdentity

from client_app.memory import ClientMemory
from fedsense_core.codecs.codec import get_codec
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.frame import unpack
from fedsense_core.protocol.messages import TrainReply
from fedsense_core.tensors import TensorTable
from fedsense_core.tools.runner.in_process_grid import RUN_ID, SERVER_NODE
from server_app.strategy import FedSense

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


def test_flowers_own_calls_make_the_same_round(federation: Make, tmp_path: Path) -> None:
    changes = {"run.rounds": 1, "distillation.kind": "none"}
    whole, called = (federation(name, changes=changes) for name in ("whole", "called"))
    whole.run()
    strategy = FedSense(called.config, build_model(called.config), run_id=1, spool=tmp_path / "spool")
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, SERVER_NODE
    tasks = strategy.configure_train(1, ArrayRecord(), ConfigRecord(), called.grid)
    arrays, metrics = strategy.aggregate_train(1, called.grid.send_and_receive(tasks))
    assert arrays is not None
    assert metrics is not None
    assert same_bits(torch.from_numpy(arrays["weights"].numpy()), whole.state().weights)
    assert metrics["num-examples"] == 3 * 8


def test_every_metric_of_a_client_and_every_phase_is_in_its_line(federation: Make) -> None:
    sent: dict[str, float] = {}

    def listen(task: Message, reply: Message | None) -> Message | None:
        assert reply is not None
        sent.update(TrainReply.from_message(reply).metrics)
        return reply

    fed = federation(changes={"run.rounds": 1, "run.evaluate_every": 1})
    fed.grid.faults = {(1, fed.node("beta")): listen}
    fed.run()
    (line,) = fed.lines()
    assert line["clients"]["beta"] == sent
    assert {"shift-norm", "data-seconds", "codec-seconds", "resident-memory-bytes"} < set(sent)
    assert {"down", "clients", "admit", "aggregate", "distill", "evaluate", "total"} == set(line["seconds"])
    assert line["server_memory"]["resident"] > 1e6


def test_bytes_in_metrics_are_the_arrays_that_travelled(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 2})
    fed.run()
    frames = sum(line["bytes_up"] for line in fed.lines())
    assert 0 < fed.grid.bytes_up - frames < 6 * 6_000  # Flower's envelopes and records around six replies
    table = TensorTable.of(build_model(fed.config))
    payload = get_codec("eden", 1).payload_bytes(table)
    tensors, blocks = len(table), sum(-(-spec.numel // 1024) for spec in table.specs if not spec.is_small)
    scales = 4 * tensors + 2 * blocks
    for line in fed.lines():
        assert line["bytes_up_parts"] == {"codes": 3 * (payload - scales), "scales": 3 * scales}
    assert fed.lines()[0]["bytes_down_parts"] == {"codes": 0, "scales": 0}  # clients draw the first model
    assert fed.lines()[1]["bytes_down_parts"]["scales"] == 3 * scales
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


def test_local_parameters_never_leave_and_are_kept_between_rounds(federation: Make) -> None:
    fed = federation(changes={"model.local_parameters": ["projector.*"], "run.rounds": 2})
    fed.run()
    state = fed.state()
    table = TensorTable.of(build_model(fed.config), ["projector.*"])
    assert len(state.weights) == table.numel
    kept = {}
    for site in SITES:
        slot = ClientMemory(fed.folder.path / "clients" / site, state.run_id).recall(2)
        assert slot is not None
        assert all(name.startswith("projector.") for name in slot.local)
        kept[site] = slot.local["projector.0.weight"]
    assert not torch.equal(kept["alpha"], kept["beta"])
