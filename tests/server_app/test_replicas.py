"""One stream for everybody: after any round, whatever a client missed, all hold the server's
bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from federation import SITES, Federation, logged
from flwr.app import Message

from client_app import round as client_round
from client_app.memory import ClientMemory
from fedsense_core.codecs.codec import get_codec
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.broadcast import unbundle
from fedsense_core.protocol.frame import HEADER_BYTES, FrameHeader, FrameKind, unpack
from fedsense_core.protocol.messages import NONCE_BYTES, TrainReply, TrainTask
from fedsense_core.protocol.replica import Replica
from fedsense_core.tensors import TensorTable

Make = Callable[..., Federation]
SNAPSHOT = {"downlink.codec": "bf16"}
"""Two bytes a parameter and round: four missed frames and their headers exceed ŵ and m̂ in
float32."""


def gone(task: Message, reply: Message | None) -> None:
    """Lose a reply."""


def replica_of(fed: Federation, site: str, number: int) -> Replica:
    slot = ClientMemory(fed.folder.path / "clients" / site, fed.state().run_id)._load(number)
    assert slot is not None
    return slot.replica


def missing(federation: Make, missed: int, **changes: object) -> tuple[Federation, list[FrameHeader], list[TrainTask]]:
    """Run a federation in which gamma's replies are lost for some rounds after the first; return
    its next task."""
    number = missed + 2
    fed = federation(changes={"run.rounds": number, "federation.deadline_s": 0.3, **changes})
    tasks = []

    def listen(task: Message, reply: Message | None) -> Message | None:
        tasks.append(TrainTask.from_records(task.content))
        return reply

    node = fed.node("gamma")
    fed.grid.faults = {(r, node): gone for r in range(2, number)} | {(number, node): listen}
    fed.run()
    assert fed.lines()[-1]["accepted"] == list(SITES)
    return fed, [unpack(raw)[0] for raw in unbundle(tasks[0].frames)], tasks


def test_replicas_of_all_clients_and_the_server_are_equal_after_every_round(federation: Make) -> None:
    fed = federation(changes={"run.keep_checkpoints": 9})
    held: dict[int, set[bytes]] = {number: set() for number in range(1, 5)}

    def listen(task: Message, reply: Message | None) -> Message | None:
        assert reply is not None
        frame = TrainReply.from_message(reply).frame
        assert frame is not None
        held[TrainTask.from_records(task.content).round].add(unpack(frame)[0].base_digest)
        return reply

    fed.grid.faults = {(number, fed.node(site)): listen for number in held for site in SITES}
    fed.run()
    for number, digests in held.items():
        server = fed.state(number).replica
        assert server.version == number
        assert digests == {server.digest()}
    assert all(replica_of(fed, site, 4).digest() == server.digest() for site in SITES)


@pytest.mark.parametrize("missed", [1, 2, 3])
def test_client_that_missed_rounds_replays_their_frames_in_order_and_holds_the_same_bits(
    federation: Make, missed: int
) -> None:
    fed, frames, _ = missing(federation, missed)
    assert [frame.kind for frame in frames] == [FrameKind.DELTA] * (missed + 1)
    assert [frame.base_version for frame in frames] == list(range(1, missed + 2))
    digests = {replica_of(fed, site, missed + 2).digest() for site in SITES}
    assert digests == {fed.state().replica.digest()}
    assert all(not line["notes"] for line in fed.lines())  # its residual still fits


@pytest.mark.parametrize(("missed", "kinds"), [(2, [FrameKind.DELTA] * 3), (3, [FrameKind.SNAPSHOT])])
def test_snapshot_is_sent_where_it_is_smaller_and_a_stale_residual_is_dropped_and_told(
    federation: Make,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    missed: int,
    kinds: list[FrameKind],
) -> None:
    monkeypatch.setattr(client_round, "MAX_MISSED", 3)
    with logged(caplog):
        fed, frames, _ = missing(federation, missed, **SNAPSHOT)
    assert [frame.kind for frame in frames] == kinds
    assert sum(frame.payload_bytes for frame in frames) <= 8 * TensorTable.of(build_model(fed.config)).numel
    digests = {replica_of(fed, site, missed + 2).digest() for site in SITES}
    assert digests == {fed.state().replica.digest()}
    dropped = "its residual of round 1 was dropped: it missed 4 versions of the model"
    told = [{"site": "gamma", "note": dropped}] if missed == 3 else []
    assert fed.lines()[-1]["notes"] == told
    assert (f"site gamma: {dropped}" in caplog.text) == bool(told)
    assert all(not line["notes"] for line in fed.lines()[:-1])


def test_one_lost_reply_costs_no_residual_even_where_a_snapshot_follows(federation: Make) -> None:
    fed, frames, _ = missing(federation, 1, **{"downlink.codec": "none"})
    assert [frame.kind for frame in frames] == [FrameKind.SNAPSHOT]
    assert fed.lines()[-1]["notes"] == []


def test_guidance_and_predictor_follow_from_the_one_stream_and_eight_bytes_a_tensor(federation: Make) -> None:
    fed = federation(changes={"uplink.prediction": True})
    tasks: list[Message] = []

    def listen(task: Message, reply: Message | None) -> Message | None:
        tasks.append(task)
        return reply

    fed.grid.faults = {(4, fed.node(site)): listen for site in SITES}
    fed.run()
    table = TensorTable.of(build_model(fed.config))
    frame = HEADER_BYTES + get_codec("eden", 4).payload_bytes(table)
    for task in tasks:
        records = task.content
        values = [value for record in records.config_records.values() for value in record.values()]
        assert sum(len(value) for value in values if isinstance(value, bytes)) == 8 * len(table) + NONCE_BYTES
        assert not any(isinstance(value, list) for value in values)
        assert not records.metric_records
        assert [list(record) for record in records.array_records.values()] == [["frames"]]
        assert len(unbundle(TrainTask.from_records(records).frames)[0]) == frame
    last = fed.lines()[-1]
    assert last["bytes_down"] == 3 * (frame + 8 * len(table) + 12)  # 12: number and length of the frames
    assert last["radius"] > 0
    assert last["prediction_norm"] > 0
    assert all(line["prediction_norm"] == 0 for line in fed.lines()[:2])  # no momentum yet, then no coefficient


def test_coefficients_of_a_round_are_the_shares_of_the_mean_change_in_the_round_before(federation: Make) -> None:
    fed = federation(changes={"uplink.prediction": True, "distillation.kind": "none", "run.keep_checkpoints": 9})
    tasks: dict[int, TrainTask] = {}

    def listen(task: Message, reply: Message | None) -> Message | None:
        tasks[int(task.metadata.group_id)] = TrainTask.from_records(task.content)
        return reply

    fed.grid.faults = {(number, fed.node("alpha")): listen for number in range(1, 5)}
    fed.run()
    states = [fed.state(number) for number in range(5)]
    table = TensorTable.of(build_model(fed.config))
    assert not tasks[1].gammas.any()
    assert not tasks[2].gammas.any()
    for number in (3, 4):
        before, last = states[number - 2], states[number - 1]
        changes = 0.9 ** np.arange(number - 2) * 0.1
        mean_change = last.replica.momentum / changes.sum()
        update = last.weights - before.weights
        shares = tasks[number].gammas * (changes.sum() + 0.1 * 0.9 ** (number - 2))
        for share, (_, u), (_, m) in zip(shares, table.views(update), table.views(mean_change), strict=True):
            assert share == pytest.approx(float((u @ m / (m @ m)).clip(0, 1)), abs=1e-4)
        assert 0 < shares.max() <= 1 + 1e-6
