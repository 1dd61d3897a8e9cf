"""What a client remembers, forgets and never gets wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from federation import tiny

from client_app import work
from client_app.memory import ClientMemory, Slot
from client_app.place import Place
from client_app.training import Outcome
from client_app.work import Worker
from fedsense_core.codecs import get_codec
from fedsense_core.models import build_model
from fedsense_core.protocol.broadcast import Broadcaster, Stream
from fedsense_core.protocol.frame import unpack
from fedsense_core.protocol.messages import TrainTask
from fedsense_core.protocol.replica import Replica
from fedsense_core.settings import Config
from fedsense_core.source import source_digest
from fedsense_core.tensors import TensorTable


def slot(number: int, fill: float = 0.0) -> Slot:
    a, b, c, d, e = torch.full((5, 5), fill)
    return Slot(number, Replica(number, a, b), c, {"exp_avg/w": d}, {"head": e})


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


def test_nothing_acknowledged_means_nothing_held(tmp_path: Path) -> None:
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
    """Replaces local training by known updates: what is proved here is that none of them is lost."""

    def __init__(self, numel: int, dtype: torch.dtype) -> None:
        self.numel, self.dtype = numel, dtype
        self.generator = torch.Generator().manual_seed(0)
        self.last = torch.empty(0)

    def __call__(self, *args: object) -> Outcome:
        self.last = torch.randn(self.numel, generator=self.generator, dtype=self.dtype) * 1e-3
        return Outcome(self.last, {}, 1.0, 0.0, 8, 0.0)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(work.Worker, "_batches", lambda self: iter(()))
    return Place("alpha", (), tmp_path)


def conversation(
    config: Config, place: Place, fake: FakeTraining, rounds: int
) -> Iterator[tuple[bool, torch.Tensor, Worker]]:
    """Play the server: every third reply is lost or refused, and the next task says so."""
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
        radii = np.zeros(len(table), np.float32)
        task = TrainTask(1, number, replica.version, acknowledged, source_digest(), config.digest, radii, frames)
        worker = work.Worker(config, place, task)
        reply = worker.run()
        assert reply.status == "trained", reply.reason
        assert reply.frame is not None
        _, payload = unpack(reply.frame)
        decoded = get_codec("eden", 1).decode(payload, table, stream.update_seed(number, place.name))
        counts = bool(rng.random() > 1 / 3)
        if counts:
            acknowledged, held = number, replica.version
        yield counts, decoded, worker


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_error_feedback_conserves_over_200_rounds_with_lost_replies(
    place: Place, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tolerance: float
) -> None:
    """Σ Δ̂ + e = Σ Δ over acknowledged rounds (DESIGN, section 3)."""
    config = tiny()
    table = TensorTable.of(build_model(config))
    fake = FakeTraining(table.numel, dtype)
    monkeypatch.setattr(work, "train_locally", fake)
    sent, meant = torch.zeros(table.numel, dtype=torch.float64), torch.zeros(table.numel, dtype=torch.float64)
    last = lost = 0
    for number, (counts, decoded, worker) in enumerate(conversation(config, place, fake, 200), start=1):
        memory = worker.memory
        if counts:
            sent, meant, last = sent + decoded.double(), meant + fake.last.double(), number
        else:
            lost += 1
    assert 40 < lost < 100
    committed = memory.recall(last)
    assert committed is not None
    assert committed.residual is not None
    assert committed.residual.dtype == dtype
    assert (sent + committed.residual.double() - meant).norm() <= tolerance * meant.norm()


def test_without_feedback_nothing_is_carried_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(**{"uplink__feedback": False})
    fake = FakeTraining(TensorTable.of(build_model(config)).numel, torch.float32)
    monkeypatch.setattr(work, "train_locally", fake)
    *_, (_, _, worker) = conversation(config, place, fake, 2)
    assert all(slot.residual is None for n in worker.memory.rounds() if (slot := worker.memory._load(n)))


def test_reasons_name_files_but_not_where_an_institution_keeps_them() -> None:
    text = "SiteError: /srv/data/secret project/x.tif and '/home/a b/site.toml': 3/4 of (m/s) at https://x.org/a/b"
    cut = work.without_folders(text)
    assert "srv" not in cut
    assert "x.tif" in cut
    assert "3/4 of (m/s)" in cut
