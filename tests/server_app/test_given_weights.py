"""A run that starts from given weights: the server reads them, clients get them as their first
model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from federation import SITES, Federation
from flwr.app import Message

from fedsense_core.errors import ConfigError
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.broadcast import Stream, receive
from fedsense_core.protocol.messages import TrainTask
from fedsense_core.run_folder.formatting import first_weights
from fedsense_core.tensors import TensorTable

Make = Callable[..., Federation]


@pytest.fixture
def weights(federation: Make, tmp_path: Path) -> Path:
    """An encoder that no seed of the runs here draws, as a torch file."""
    config = federation("other", changes={"run.seed": 5}).config
    torch.save(build_model(config).encoder.state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_clients_start_from_given_weights_and_need_no_file(federation: Make, weights: Path) -> None:
    fed = federation(changes={"run.rounds": 2, "model.weights": str(weights), "train.recipe": "byol"})
    first: list[TrainTask] = []

    def listen(task: Message, reply: Message | None) -> Message | None:
        first.append(TrainTask.from_records(task.content))
        weights.unlink(missing_ok=True)  # nobody reads it any more
        return reply

    fed.grid.faults = {(1, fed.node(site)): listen for site in SITES}
    fed.run()
    assert [line["accepted"] for line in fed.lines()] == [list(SITES)] * 2
    assert first_weights(fed.folder.read_metrics()) == "given weights"
    model = build_model(fed.config)
    table = TensorTable.of(model)
    for task in first:
        replica = receive(None, task.frames, Stream(task.run_id, 0, table, fed.config.momentum_in_use))
        sent = table.unflatten(replica.weights)
        drawn, given = model.state_dict(), build_model(federation("other", changes={"run.seed": 5}).config).encoder
        assert all(torch.equal(sent[f"encoder.{name}"], value) for name, value in given.state_dict().items())
        heads = [name for name in sent if not name.startswith("encoder.")]
        assert heads
        assert all(torch.equal(sent[name], drawn[name]) for name in heads)


def test_interrupted_run_goes_on_without_the_file(federation: Make, weights: Path) -> None:
    changes = {"run.rounds": 2, "model.weights": str(weights)}
    whole = federation("whole", changes=changes)
    whole.run()
    fed = federation("cut", changes=changes)
    fed.grid.faults = {(2, fed.node("beta")): _stop}
    with pytest.raises(KeyboardInterrupt):
        fed.run()
    weights.unlink()
    again = federation("cut", changes=changes)
    again.run()
    assert torch.equal(again.state().weights, whole.state().weights)


def test_weights_that_do_not_fit_leave_no_run_folder(federation: Make, weights: Path) -> None:
    fed = federation(changes={"model.weights": str(weights), "model.args": {"norm_layer": "groupnorm1"}})
    with pytest.raises(ConfigError, match=r"do not fit model\.architecture = 'resnet18'"):
        fed.run()
    assert not fed.folder.path.exists()


def _stop(task: Message, reply: Message | None) -> None:
    raise KeyboardInterrupt
