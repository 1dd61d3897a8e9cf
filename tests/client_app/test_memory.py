"""What a client remembers, forgets and never gets wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from federation import tiny

from client_app import round as client_round
from client_app.identity import Identity
from client_app.memory import ClientMemory, Slot
from client_app.round import ClientRound
from client_app.training import Outcome
from fedsense_core.codecs.codec import get_codec
from fedsense_core.config import Config
from fedsense_core.fingerprint import source_digest
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.broadcast import Broadcaster, Stream
from fedsense_core.protocol.frame import unpack
from fedsense_core.protocol.messages import TrainTask
from fedsense_core.protocol.prediction import prediction
from fedsense_core.protocol.replica import Replica
from fedsense_core.tensors import TensorTable
from server_app.round import Expected

DROPPED = "its residual of round 3 was dropped: it missed 17 versions of the model"


def slot(number: int, fill: float = 0.0) -> Slot:
    a, b, c, d, e = torch.full((5, 5), fill)
    return Slot(number, Replica(number, a, b), {"feedback.residual": c}, {"exp_avg/w": d}, {"head": e})


def test_acknowledged_slot_comes_back_whole(tmp_path: Path) -> None:
    memory = ClientMemory(tmp_path, 1)
    memory.keep(slot(1, 1.5))
    found = memory.recall(1)
    assert found is not None
    assert found.round == found.replica.version == 1
    assert found.residual is not None
    assert found.residual.tolist() == found.optimiser["exp_avg/w"].tolist() == found.local["head"].tolist() == [1.5] * 5


def test_pending_slot_is_rolled_back_unless_acknowledged(tmp_path: Path) -> None:
    memory = ClientMemory(tmp_path, 1)
    memory.keep(slot(1))
    memory.keep(slot(2))
    assert memory.rounds() == [1, 2]
    assert memory.recall(1).round == 1  # type: ignore[union-attr]
    assert memory.rounds() == [1]


def test_nothing_acknowledged_means_nothing_committed(tmp_path: Path) -> None:
    memory = ClientMemory(tmp_path, 1)
    memory.keep(slot(1))
    assert memory.recall(0) is None
    assert memory.rounds() == []


def test_runs_do_not_see_each_other(tmp_path: Path) -> None:
    ClientMemory(tmp_path, 1).keep(slot(1))
    assert ClientMemory(tmp_path, 2).recall(1) is None
    assert ClientMemory(tmp_path, 1).rounds() == [1]


@pytest.mark.parametrize("damage", ["truncate", "flip", "manifest"])
def test_damaged_slot_counts_as_lost(tmp_path: Path, damage: str) -> None:
    memory = ClientMemory(tmp_path, 1)
    memory.keep(slot(3))
    state = next(tmp_path.rglob("state.safetensors"))
    content = bytearray(state.read_bytes())
    if damage == "manifest":
        next(tmp_path.rglob("manifest.json")).write_text("{")
    else:
        content[-1] ^= 1
        state.write_bytes(bytes(content[:-8] if damage == "truncate" else content))
    assert memory.recall(3) is None


class FakeTraining:
    """Replaces local training by known updates: what is proved here is that none of them is
    lost."""

    def __init__(self, numel: int, dtype: torch.dtype) -> None:
        self.numel, self.dtype = numel, dtype
        self.generator = torch.Generator().manual_seed(0)
        self.last = torch.empty(0)

    def __call__(self, *args: object) -> Outcome:
        self.last = torch.randn(self.numel, generator=self.generator, dtype=self.dtype) * 1e-3
        return Outcome(self.last, {}, 1.0, 0.0, 8, 0.0)


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity("alpha", (), tmp_path)  # no imagery: training is replaced, and asks for no batch


def task_of(
    config: Config, number: int, replica: Replica, acknowledged: int, frames: np.ndarray, gammas: np.ndarray
) -> TrainTask:
    radii = np.zeros_like(gammas)
    return TrainTask(1, number, replica.version, acknowledged, source_digest(), config.digest, radii, gammas, frames)


def conversation(config: Config, identity: Identity, rounds: int) -> Iterator[tuple[bool, torch.Tensor, ClientRound]]:
    """Play the server: every third reply is lost or refused, and the next task says so. Yields Δ̂
    as it decodes it."""
    table = TensorTable.of(build_model(config))
    stream = Stream(1, 0, table, 0.9)
    server = Broadcaster(stream, get_codec("eden", 4))
    rng = np.random.default_rng(0)
    weights = torch.zeros(table.numel)
    acknowledged = held = 0
    for number in range(1, rounds + 1):
        weights = weights + 1e-3 * torch.from_numpy(rng.normal(size=table.numel).astype(np.float32))
        replica = server.advance(weights)
        frames = server.frames_for(held or None)
        # Whatever the server's estimate is, nothing may be lost: any coefficients do.
        gammas = rng.random(len(table), np.float32) * config.prediction_in_use
        task = task_of(config, number, replica, acknowledged, frames, gammas)
        client = ClientRound(config, identity, task)
        reply = client.run()
        assert reply.status == "trained", reply.reason
        assert reply.note == ""
        assert reply.frame is not None
        _, payload = unpack(reply.frame)
        predicted = prediction(torch.from_numpy(gammas), replica.momentum, table)
        expected = Expected(config, stream, number, replica, replica.digest(), predicted)
        decoded = expected.uplink(identity.name).receive(payload)
        counts = bool(rng.random() > 1 / 3)
        if counts:
            acknowledged, held = number, replica.version
        yield counts, decoded, client


@pytest.mark.parametrize("predictor", [True, False], ids=["predictor", "plain"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), pytest.param(torch.float64, 1e-12, marks=pytest.mark.slow)]
)
def test_error_feedback_conserves_over_60_rounds_with_lost_replies(
    identity: Identity, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tolerance: float, predictor: bool
) -> None:
    """Σ Δ̂ + e = Σ Δ over acknowledged rounds (docs/method.md, section 3)."""
    config = tiny(uplink__prediction=predictor)
    table = TensorTable.of(build_model(config))
    fake = FakeTraining(table.numel, dtype)
    monkeypatch.setattr(client_round, "train_locally", fake)
    sent, meant = torch.zeros(table.numel, dtype=torch.float64), torch.zeros(table.numel, dtype=torch.float64)
    last = lost = 0
    for number, (counts, decoded, client) in enumerate(conversation(config, identity, 60), start=1):
        memory = client.memory
        if counts:
            sent, meant, last = sent + decoded.double(), meant + fake.last.double(), number
        else:
            lost += 1
    assert 10 < lost < 32
    committed = memory.recall(last)
    assert committed is not None
    assert committed.residual is not None
    assert committed.residual.dtype == dtype
    assert (sent + committed.residual.double() - meant).norm() <= tolerance * meant.norm()


def test_without_feedback_nothing_is_carried_over(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(**{"uplink__feedback": False})
    fake = FakeTraining(TensorTable.of(build_model(config)).numel, torch.float32)
    monkeypatch.setattr(client_round, "train_locally", fake)
    *_, (_, _, client) = conversation(config, identity, 2)
    assert all(slot.residual is None for n in client.memory.rounds() if (slot := client.memory._load(n)))


def test_below_half_participation_updates_are_coded_without_bias_and_nothing_is_carried_over(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(federation__participation=0.4)
    table = TensorTable.of(build_model(config))
    fake = FakeTraining(table.numel, torch.float32)
    monkeypatch.setattr(client_round, "train_locally", fake)
    *_, (_, decoded, client) = conversation(config, identity, 1)
    codec, seed = get_codec("eden", 1), Stream(1, 0, table, 0.9).update_seed(1, identity.name)
    assert torch.equal(decoded, codec.decode(codec.encode(fake.last, table, seed, unbiased=True), table, seed))
    assert [slot.residual for n in client.memory.rounds() if (slot := client.memory._load(n))] == [None]


def test_client_that_missed_too_much_drops_its_residual_and_says_so(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(downlink__codec="bf16")
    table = TensorTable.of(build_model(config))
    fake = FakeTraining(table.numel, torch.float32)
    monkeypatch.setattr(client_round, "train_locally", fake)
    server = Broadcaster(Stream(1, 0, table, 0.9), get_codec("bf16", 16))
    zeros = np.zeros(len(table), np.float32)
    for number, missed in ((1, 0), (3, 1), (20, 16)):
        before = ClientMemory(identity.state_dir, 1).rounds()
        for _ in range(missed + 1):
            replica = server.advance(torch.randn(table.numel, generator=fake.generator))
        acknowledged = before[-1] if before else 0
        frames = server.frames_for(acknowledged or None)
        reply = ClientRound(config, identity, task_of(config, number, replica, acknowledged, frames, zeros)).run()
        assert reply.status == "trained"
        slot = ClientMemory(identity.state_dir, 1)._load(number)
        assert slot is not None
        assert slot.replica.digest() == replica.digest()
        assert reply.frame is not None
        seed = Stream(1, 0, table, 0.9).update_seed(number, identity.name)
        decoded = get_codec("eden", 1).decode(unpack(reply.frame)[1], table, seed)
        assert slot.residual is not None
        only_this_round = torch.equal(slot.residual, fake.last - decoded)
        assert only_this_round == (number in (1, 20))
        assert reply.note == (DROPPED if number == 20 else "")


def test_residual_of_another_length_is_dropped_and_the_reply_says_so(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny()
    table = TensorTable.of(build_model(config))
    monkeypatch.setattr(client_round, "train_locally", FakeTraining(table.numel, torch.float32))
    server = Broadcaster(Stream(1, 0, table, 0.9), get_codec("eden", 4))
    replica = server.advance(torch.zeros(table.numel))
    ClientMemory(identity.state_dir, 1).keep(Slot(1, replica, uplink={"feedback.residual": torch.ones(3)}))
    task = task_of(config, 2, replica, 1, server.frames_for(1), np.zeros(len(table), np.float32))
    assert (
        ClientRound(config, identity, task)
        .run()
        .note.startswith("its residual of round 1 was dropped: 3 numbers, not ")
    )


def test_client_whose_state_is_gone_but_needs_no_base_says_so(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny()
    table = TensorTable.of(build_model(config))
    monkeypatch.setattr(client_round, "train_locally", FakeTraining(table.numel, torch.float32))
    server = Broadcaster(Stream(1, 0, table, 0.9), get_codec("eden", 4))
    replica = server.advance(torch.zeros(table.numel))
    task = task_of(config, 3, replica, 2, server.frames_for(None), np.zeros(len(table), np.float32))
    note = ClientRound(config, identity, task).run().note
    assert note == "its state of round 2 is gone and, with it, its error-feedback residual"


def test_reasons_name_files_but_not_where_an_institution_keeps_them() -> None:
    text = "SiteError: /srv/data/secret project/x.tif and '/home/a b/site.toml': 3/4 of (m/s) at https://x.org/a/b"
    cut = client_round.without_folders(text)
    assert "srv" not in cut
    assert "x.tif" in cut
    assert "3/4 of (m/s)" in cut
