"""What a client may say beside its update: each lie that nobody could honestly tell is refused,
with the reason."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from federation import tiny
from flwr.app import ConfigRecord, Message, MetricRecord
from flwr.supercore.task_identity import TaskIdentity

from fedsense_core.config import resolve
from fedsense_core.data.chips.sensor_statistics import SensorStatistics, SharedStatistics
from fedsense_core.data.chips.statistics import Statistics
from fedsense_core.data.overlap import OverlapShares, marks
from fedsense_core.errors import FrameError
from fedsense_core.protocol.messages import Handshake, TrainReply
from fedsense_core.protocol.side_channels import judge_all, side_channels
from fedsense_core.ssl.federated import SUMS
from fedsense_core.ssl.sigreg import KNOTS
from server_app.clients import Clients

Lie = Callable[[], object]
"""Judges what is said: raises FrameError, or returns why it is refused."""
HONEST_METRICS: dict[str, float] = {"num-examples": 8, "ssl-loss": 1.5, "train-seconds": 3.0, "cpu-memory-bytes": 1e9}
HONEST_HANDSHAKE = Handshake("alpha", chips=9, skipped=1, rounds=(1,), code="c", drawn="00")
SHARED_SIGREG = {
    "train.recipe": "lejepa",
    "train.views": 2,
    "train.sigreg_directions": 8,
    "train.federated_sigreg": True,
}
CHIP_PIXELS = 16 * 16


def metrics(**said: Any) -> Lie:
    def judge() -> TrainReply:
        content = TrainReply("alpha", "trained", metrics=HONEST_METRICS, frame=np.zeros(4, np.uint8)).to_records()
        content["metrics"] = MetricRecord(
            {**HONEST_METRICS, **{key.replace("_", "-"): value for key, value in said.items()}}
        )
        return TrainReply.from_message(Message(content, 5, "train"))

    return judge


def sums_of(cosine: float, sine: float, samples: int = 16, knots: int = KNOTS) -> bytes:
    parts = torch.cat([torch.full((8 * knots,), cosine), torch.full((8 * knots,), sine)]) * samples
    return struct.pack("<Q", samples) + parts.numpy().astype("<f4").tobytes()


def sums(said: bytes) -> Lie:
    """8 examples of two views each have 16 samples."""
    return lambda: judge_all(side_channels(resolve(SHARED_SIGREG, {})), "round", {SUMS: said}, 8.0)


def of_values(value: int, pixels: int) -> Statistics:
    return Statistics(pixels, value, np.array([[pixels]], np.int64))


def statistics(said: Statistics, chips: int = 9, sensor: str = "aerial-rgb", band: str = "red") -> Lie:
    attachment = SensorStatistics({sensor: {band: said}}).to_bytes()
    channels = side_channels(tiny(data__share_statistics=True))
    return lambda: judge_all(channels, "handshake", {SharedStatistics.name: attachment}, chips)


def shares(said: object) -> Lie:
    channel = OverlapShares({"public": marks([], [])})
    return lambda: judge_all((channel,), "handshake", {OverlapShares.name: json.dumps(said).encode()}, 9)


def handshake(**said: Any) -> Lie:
    def judge() -> Handshake:
        content = HONEST_HANDSHAKE.to_records()
        content["handshake"] = ConfigRecord({**content.config_records["handshake"], **said})
        return Handshake.from_message(Message(content, 5, "query"))

    return judge


def registration(most_chips: float = 10**6, **said: Any) -> Lie:
    """A node wants to be entered after beta is."""

    def judge() -> str:
        clients = Clients(sites={6: "beta"})
        return clients.enter(5, replace(HONEST_HANDSHAKE, **said), "c", most_chips)

    return judge


LIES: dict[str, tuple[Lie, str]] = {
    "metrics: loss of 1.7e308": (metrics(ssl_loss=1.7e308), "'ssl-loss' is '1.7e.308', not between"),
    "metrics: loss of a million below zero": (metrics(ssl_loss=-1e6), "'ssl-loss' is '-1000000.0', not between"),
    "metrics: no number": (metrics(ssl_loss=float("nan")), "not a finite number"),
    "metrics: infinity": (metrics(alignment_loss=float("inf")), "not a finite number"),
    "metrics: a list": (metrics(ssl_loss=[1.0, 2.0]), "not a finite number"),
    "metrics: time that runs back": (metrics(train_seconds=-1.0), "'train-seconds' is '-1.0', not between 0"),
    "metrics: more memory than there is": (metrics(cpu_memory_bytes=1e16), "not between 0 and 1e.15"),
    "metrics: a share above one": (metrics(personal_share=1.5), "not between 0 and 1"),
    "metrics: examples below zero": (metrics(num_examples=-8.0), "'num-examples' is '-8.0', not between"),
    "metrics: one of its own": (metrics(accuracy=0.99), "'accuracy' is none that was asked for"),
    "metrics: a hundred": (metrics(**{f"m{i}": 1.0 for i in range(100)}), "at most 64"),
    "sums: both one": (sums(sums_of(1, 1)), "contradict each other"),
    "sums: minus one": (sums(sums_of(-1, 0)), "contradict each other"),
    "sums: zero": (sums(sums_of(0, 0)), "contradict each other"),
    "sums: a half": (sums(sums_of(0.5, 0.5)), "contradict each other"),
    "sums: beyond one": (sums(sums_of(1.5, 0)), "embedding-sums: "),
    "sums: no number": (sums(sums_of(float("nan"), 0)), "embedding-sums: "),
    "sums: of more samples": (sums(sums_of(1, 0, 32)), "are of 32 samples, its examples have 16 views"),
    "sums: of none": (sums(sums_of(1, 0, 0)), "embedding-sums: "),
    "sums: too few": (sums(sums_of(1, 0, knots=KNOTS - 1)), "embedding-sums: "),
    "sums: too long": (sums(sums_of(1, 0) + b"0"), "at most"),
    "sums: missing": (sums(b""), "embedding-sums: "),
    "statistics: of 10^12 pixels": (statistics(of_values(7, 10**12)), "are of 1000000000000 pixels; 9 chips"),
    "statistics: one pixel too many": (statistics(of_values(7, 9 * CHIP_PIXELS + 1)), "are of 2305 pixels; 9 chips"),
    "statistics: of 10^9 chips": (statistics(of_values(7, 10**12), 10**9), "admission.max_chips"),
    "statistics: brighter than the sensor": (statistics(of_values(60_000, 9)), "mean of 6e.04; its values lie between"),
    "statistics: darker than the sensor": (statistics(of_values(-30_000, 9)), "mean of -3e.04; its values lie between"),
    "statistics: of an unknown sensor": (
        statistics(of_values(7, 9), sensor="spy"),
        "no sensor card has the name 'spy'",
    ),
    "statistics: of an unknown band": (statistics(of_values(7, 9), band="x-ray"), "has no band 'x-ray'"),
    "statistics: counts that do not add up": (
        statistics(Statistics(9, 7, np.array([[5]], np.int64))),
        "must add up to 9 pixels",
    ),
    "statistics: counts below zero": (
        statistics(Statistics(9, 7, np.array([[10, -2, 1]], np.int64))),
        "counts must lie between 0",
    ),
    "overlap: more than everything": (shares({"public": 1.5}), "lies between 0 and 1"),
    "overlap: of another set": (shares({"secret": 0.5}), "sets that were asked about"),
    "overlap: a list": (shares([0.5]), "sets that were asked about"),
    "registration: chips below zero": (handshake(chips=-1), "chips is -1, not between"),
    "registration: 2^60 chips": (handshake(chips=1 << 60), "not between 0 and 1000000000"),
    "registration: warnings below zero": (handshake(warnings=-5), "warnings is -5, not between"),
    "registration: chips in words": (handshake(chips="many"), "chips is 'many', not an integer"),
    "registration: a path for a name": (handshake(site="../beta"), "no name of a site"),
    "registration: a word of its own": (handshake(weight=100), "'weight', which nobody asked for"),
    "registration: more chips than are believed": (
        registration(chips=10**6 + 1),
        "1 to 1e.06 are believed .admission.max_chips",
    ),
    "registration: no chip": (registration(chips=0), "are believed .admission.max_chips"),
    "registration: another's name": (registration(site="beta"), "already taken by another node"),
    "registration: no name": (registration(site=""), "gives no site name"),
    "registration: other code": (registration(code="mine"), "runs other code .mine. than the server"),
    "registration: a problem": (registration(problem="no imagery"), "no imagery"),
}
HONEST: dict[str, Lie] = {
    "metrics": metrics(),
    "sums": sums(sums_of(1, 0)),
    "statistics": statistics(of_values(7, 9 * CHIP_PIXELS)),
    "overlap": shares({"public": 0.5}),
    "handshake": handshake(),
    "registration": registration(),
}


@pytest.fixture(autouse=True)
def _identity() -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1


@pytest.mark.parametrize("name", LIES)
def test_lie_is_refused_with_its_reason(name: str) -> None:
    lie, pattern = LIES[name]
    try:
        said = str(lie())
    except FrameError as error:
        said = str(error)
    assert re.search(pattern, said)


@pytest.mark.parametrize("name", HONEST)
def test_what_honest_clients_say_is_taken(name: str) -> None:
    assert HONEST[name]() != "refused"
    if name == "registration":
        assert HONEST[name]() == ""
