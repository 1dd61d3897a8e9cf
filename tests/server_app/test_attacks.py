"""A table of attacks: each is rejected, clipped, alarmed, or bounded in what it moves.

A fifth of the clients attacks. Norm limits follow honest rounds; the whole way of a round runs but
for training: frames, admission, clip, mean, alarms.
"""

from __future__ import annotations

import itertools
import math
import statistics
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import attacks
import numpy as np
import pytest
import torch
from attacks import DRIVING, NUMEL, Attack, Cohort
from federation import Federation, tiny
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity
from spooled import spooled
from torch import Tensor

from fedsense_core.config import resolve
from fedsense_core.data.chips.sensor_statistics import SensorStatistics, SharedStatistics
from fedsense_core.data.chips.statistics import Statistics
from fedsense_core.errors import FrameError
from fedsense_core.protocol.frame import pack, unpack
from fedsense_core.protocol.messages import TrainReply
from fedsense_core.protocol.side_channels import judge_all, side_channels
from fedsense_core.ssl.federated import SUMS
from fedsense_core.ssl.sigreg import KNOTS
from fedsense_core.tensors import TensorTable
from server_app.admission import Admission
from server_app.aggregation.clipping import clipped
from server_app.aggregation.rule import AggregationRule
from server_app.alarms import alarms_of
from server_app.drift_metrics import measured
from server_app.printer import describe_round
from server_app.round import Round

Make = Callable[..., Federation]
ATTACKER = "site-000"
INSIDE = 0.8
"""Of the limit by earlier rounds: the round itself may have a smaller one."""


class Server:
    """Admission, clip, mean and alarms over rounds of made-up updates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = tiny(uplink__codec="none", aggregation__clip="median")
        self.admission, self.rule = Admission(self.config, folder), AggregationRule.of(self.config)

    @property
    def most(self) -> float:
        """A norm that is let in."""
        return INSIDE * self.admission.norm_limit()[0]

    def round(self, updates: list[Tensor]) -> tuple[Round, Tensor]:
        """Return a round that has ended, and its mean update (N,)."""
        table = TensorTable.from_shapes({"all": (NUMEL,)})
        replies = spooled(self.folder, updates, self.config, table=table)
        limit = self.admission.norm_limit()[0]
        round = Round(1, replies[0].expected, torch.zeros(1), torch.zeros(1))
        round.accepted = [one for one in replies if one.norm <= limit]
        self.admission.compare(round)
        round.close()
        round.accepted = clipped(round.accepted, self.config.aggregation)
        mean = self.rule.centre(round.accepted)
        round.measured |= measured(round.accepted, mean, self.rule)
        self.admission.remember(round.accepted)
        return round, mean


def verdict(round: Round) -> set[str]:
    """Return what became of the attacker's reply."""
    (mine,) = [one for one in round.accepted if one.site == ATTACKER] or [None]
    alarmed = any(alarm["site"] == ATTACKER for alarm in round.measured["alarms"])
    if mine is None:
        return {"rejected"}
    return ({"clipped"} if mine.scale < 0.5 else set()) | ({"alarmed"} if alarmed else set())


TABLE: dict[str, tuple[Attack, set[str]]] = {
    **{name: (attack, {"clipped", "alarmed"}) for name, attack in DRIVING.items()},
    "flip-mean": (attacks.flip_mean, {"alarmed"}),
    "beyond": (lambda honest, number, most: 1.5 * attacks.flip(honest, number, most), {"rejected"}),
    "alternate": (attacks.alternate, {"clipped", "alarmed"}),
    "ratchet": (attacks.ratchet, {"clipped", "alarmed"}),
    "little-is-enough": (attacks.little_is_enough, set()),
    "echo": (attacks.echo, {"alarmed"}),
    "free-rider": (attacks.free_rider, {"alarmed"}),
    "drip": (attacks.drip, set()),
    "replay": (lambda honest, number, most: Cohort(seed=5).round()[0], set()),
}


@pytest.mark.parametrize("name", TABLE)
def test_attack_meets_what_the_table_says_and_moves_the_mean_no_further_than_one_client(
    tmp_path: Path, name: str
) -> None:
    attack, expected = TABLE[name]
    server, cohort = Server(tmp_path), Cohort()
    for _ in range(3):
        server.round(cohort.round())
    for number in (1, 3, 5):
        honest = cohort.round()
        without = torch.stack(honest[1:]).mean(0)
        round, mean = server.round([attack(honest, number, server.most), *honest[1:]])
        if name != "ratchet" or number > 1:
            assert verdict(round) == expected
        longest = max(float(one.norm()) for one in honest)
        assert float((mean - without).norm()) <= 2 * longest / len(honest), "bounded"


@pytest.mark.parametrize("norm", [1.0, 0.05], ids=["first", "last"])
def test_first_and_last_round_have_the_limit_of_their_own_replies(tmp_path: Path, norm: float) -> None:
    server, cohort = Server(tmp_path), Cohort()
    if norm < 1:
        for size in (1.0, 0.7, 0.3):
            server.round(cohort.round(size))
    honest = cohort.round(norm)
    round, _ = server.round([attacks.flip(honest, 1, min(900.0, server.most)), *honest[1:]])
    assert verdict(round) == {"rejected"}


@dataclass(frozen=True)
class Norm:
    """What alarms look at in an accepted reply."""

    site: str
    norm: float
    scale: float


def alarmed(updates: list[Tensor], clip: str) -> set[str]:
    """Return the sites of a round's alarms, without a way through frames."""
    norms = [float(one.norm()) for one in updates]
    most = statistics.median(norms) if clip == "median" else math.inf
    replies: list[Any] = [Norm(f"site-{i:03d}", n, min(1.0, most / max(n, 1e-9))) for i, n in enumerate(norms)]
    counted = torch.stack([update * one.scale for update, one in zip(updates, replies, strict=True)])
    mean = counted.mean(0)
    cosines = torch.nn.functional.cosine_similarity(counted, mean[None]).tolist()
    shares = [1 / len(updates)] * len(updates)
    return {alarm["site"] for alarm in alarms_of(replies, cosines, float(mean.norm()), shares)}


@pytest.mark.parametrize("clip", ["median", "none"])
@pytest.mark.parametrize("name", DRIVING)
def test_driving_attacks_raise_an_alarm_in_nine_of_ten_rounds(name: str, clip: str) -> None:
    found = []
    for seed, ((clients, attackers), alike, most) in enumerate(
        itertools.product([(5, 1), (10, 2), (10, 4), (30, 6)], [0.01, 0.05, 0.3], [4.0, 8.0])
    ):
        honest = Cohort(clients, alike, seed=seed).round()
        bad = DRIVING[name](honest, 1, most)
        found.append(ATTACKER in alarmed([bad] * attackers + honest[attackers:], clip))
    assert sum(found) >= 0.9 * len(found)


def test_honest_rounds_of_mixed_sensors_raise_an_alarm_in_one_of_a_hundred_at_most() -> None:
    found = []
    for seed, (clients, alike, spread) in enumerate(
        itertools.product([3, 5, 8, 20], [0.01, 0.05, 0.2, 0.5], [0.03, 0.1, 0.2])
    ):
        cohort = Cohort(clients, alike, spread=spread, seed=seed)
        found += [bool(alarmed(cohort.round(), clip)) for clip in ("median", "none") for _ in range(4)]
    assert sum(found) <= 0.01 * len(found)


@pytest.mark.parametrize("value", [1.7e308, -1e7, float("nan"), float("inf")])
def test_lying_metrics_are_rejected(value: float) -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
    reply = TrainReply("alpha", "trained", metrics={"num-examples": 8, "ssl-loss": value}, frame=np.zeros(4, np.uint8))
    with pytest.raises(FrameError, match="metric 'ssl-loss'"):
        TrainReply.from_message(Message(reply.to_records(), 5, "train"))


def sums(cosine: float, sine: float) -> bytes:
    parts = torch.cat([torch.full((8 * KNOTS,), cosine), torch.full((8 * KNOTS,), sine)]) * 16
    return struct.pack("<Q", 16) + parts.numpy().astype("<f4").tobytes()


@pytest.mark.parametrize(("cosine", "sine"), [(1, 1), (-1, 0), (0, 0), (0.5, 0.5)])
def test_sums_that_no_embeddings_have_are_rejected(cosine: float, sine: float) -> None:
    shared = {"train.recipe": "lejepa", "train.views": 2, "train.sigreg_directions": 8, "train.federated_sigreg": True}
    channels = side_channels(resolve(shared, {}))
    with pytest.raises(FrameError, match="contradict each other"):
        judge_all(channels, "round", {SUMS: sums(cosine, sine)}, 8.0)
    assert judge_all(channels, "round", {SUMS: sums(1, 0)}, 8.0), "all embeddings at zero"


@pytest.mark.parametrize(("pixels", "chips"), [(10**12, 9), (9 * 16 * 16 + 1, 9), (10**12, 10**9)])
def test_statistics_of_more_pixels_than_a_site_has_chips_for_are_rejected(pixels: int, chips: int) -> None:
    channels = side_channels(tiny(data__share_statistics=True))

    def said(count: int) -> dict[str, bytes]:
        red = Statistics(count, 7, np.array([[count]], np.int64))
        return {SharedStatistics.name: SensorStatistics({"aerial-rgb": {"red": red}}).to_bytes()}

    with pytest.raises(FrameError, match=f"red are of {pixels} pixels; "):
        judge_all(channels, "handshake", said(pixels), chips)
    assert judge_all(channels, "handshake", said(9 * 16 * 16), 9)


def test_alarm_is_in_record_terminal_and_report_and_the_attacker_is_clipped(federation: Make) -> None:
    def louder(task: Message, reply: Message | None) -> Message:
        """Send an update six times as long as it was."""
        assert reply is not None
        honest = TrainReply.from_message(reply)
        assert honest.frame is not None
        header, payload = unpack(honest.frame)
        frame = pack(header, (6 * np.frombuffer(payload, "<f4")).tobytes())
        return Message(replace(honest, frame=frame).to_records(), reply_to=task)

    fed = federation(changes={"preset": "fedsense-plus", "uplink.codec": "none", "run.rounds": 2, "run.report": True})
    fed.grid.faults = {(2, fed.node("beta")): louder}
    fed.run()
    first, second = fed.lines()
    assert first["alarms"] == []
    (alarm,) = [one for one in second["alarms"] if "times the median norm" in one["reason"]]
    assert alarm["site"] == "beta"
    others = statistics.median(second["norms"].values())
    assert second["norms"]["beta"] * second["clipped"]["beta"] == pytest.approx(others, rel=1e-6)
    assert f"alarms    beta: {alarm['reason']}" in describe_round(second, 2)
    assert alarm["reason"] in (fed.folder.path / "report.html").read_text()
