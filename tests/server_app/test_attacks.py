"""A table of attacks: each is rejected, clipped, alarmed, or bounded in what it moves.

A fifth of the clients attacks. Norm limits follow honest rounds; the whole way of a round runs but
for training: frames, admission, clip, mean, alarms.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import attacks
import numpy as np
import pytest
import torch
from alarm_trials import alarmed
from attacks import DRIVING, NUMEL, Attack, Cohort
from federation import Federation, tiny
from flwr.app import Message
from spooled import spooled
from torch import Tensor

from fedsense_core.protocol.frame import pack, unpack
from fedsense_core.protocol.messages import TrainReply
from fedsense_core.tensors import TensorTable
from server_app.admission import Admission
from server_app.aggregation.clipping import clipped
from server_app.aggregation.rule import AggregationRule
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


@dataclass(frozen=True)
class Case:
    """An attack, and what must become of it in these rounds, whatever else does."""

    attack: Attack
    becomes: frozenset[str]
    clients: int = 5
    attackers: int = 1
    """They send the same."""
    rounds: tuple[int, ...] = (1, 3)


REJECTED, CLIPPED, ALARMED, BOTH, BOUNDED = (
    frozenset(words) for words in (["rejected"], ["clipped"], ["alarmed"], ["clipped", "alarmed"], [])
)
"""Every case is bounded. That is all that is promised of an update with an honest norm, whose
alarms come in most rounds, not in all: `alarm_rates.py` counts them."""
TABLE: dict[str, Case] = {
    "flip": Case(attacks.flip(), BOTH),
    "flip-3": Case(attacks.flip(3), BOTH),
    "flip-honest-norm": Case(attacks.flip(1), BOUNDED),
    "flip-beyond": Case(attacks.flip(15), REJECTED),
    "flip-2-of-10": Case(attacks.flip(), BOTH, 10, 2),
    "flip-4-of-10": Case(attacks.flip(), BOTH, 10, 4),
    "flip-mean": Case(attacks.flip_mean(), ALARMED),
    "flip-mean-limit": Case(attacks.flip_mean(attacks.LIMIT), BOTH),
    "flip-mean-3-of-10": Case(attacks.flip_mean(), BOUNDED, 10, 3),
    "scale": Case(attacks.scale(), BOTH),
    "scale-3": Case(attacks.scale(3), BOTH),
    "scale-beyond": Case(attacks.scale(1000), REJECTED),
    "scale-down": Case(attacks.scale(0.01), ALARMED),
    "scale-2-of-10": Case(attacks.scale(), BOTH, 10, 2),
    "constant": Case(attacks.constant(), BOTH),
    "constant-negative": Case(attacks.constant(sign=-1), BOTH),
    "constant-honest-norm": Case(attacks.constant(1), BOUNDED),
    "constant-4-of-10": Case(attacks.constant(), BOTH, 10, 4),
    "drip": Case(attacks.drip(0.1), BOUNDED),
    "drip-half": Case(attacks.drip(0.5), BOUNDED),
    "drip-one-tensor": Case(attacks.drip(0.3, 64), BOUNDED),
    "ratchet": Case(attacks.ratchet(1.5), BOTH, rounds=(3,)),
    "ratchet-slow": Case(attacks.ratchet(1.2), BOUNDED, rounds=(3, 5)),
    "ratchet-fast": Case(attacks.ratchet(3), BOTH),
    "alternate": Case(attacks.alternate(attacks.flip()), BOTH),
    "alternate-3": Case(attacks.alternate(attacks.flip(), 3), BOTH, rounds=(1, 4)),
    "alternate-scale": Case(attacks.alternate(attacks.scale()), BOTH),
    "alternate-beyond": Case(attacks.alternate(attacks.flip(15)), REJECTED),
    "replay": Case(attacks.replay(), BOUNDED),
    "replay-always-the-same": Case(attacks.replay(1000), BOUNDED),
    "replay-of-another": Case(attacks.copy, BOUNDED),
    "little-is-enough": Case(attacks.little_is_enough(1), BOUNDED),
    "little-is-enough-less": Case(attacks.little_is_enough(0.3), ALARMED),
    "little-is-enough-4-of-10": Case(attacks.little_is_enough(1), ALARMED, 10, 4),
    "free-rider": Case(attacks.free_rider(), ALARMED),
    "free-rider-noise": Case(attacks.free_rider(1), BOUNDED),
    "free-rider-little-noise": Case(attacks.free_rider(0.01), ALARMED),
    "free-rider-echo": Case(attacks.echo(), ALARMED),
    "free-rider-noisy-echo": Case(attacks.echo(1), BOUNDED),
    "one-tensor": Case(attacks.one_tensor(), BOTH),
    "one-tensor-honest-norm": Case(attacks.one_tensor(1), BOUNDED),
    "one-coordinate": Case(attacks.one_coordinate(), BOTH),
    "one-coordinate-honest-norm": Case(attacks.one_coordinate(1), BOUNDED),
    "one-coordinate-beyond": Case(attacks.one_coordinate(1000), REJECTED),
}


OF_ANOTHER_STRENGTH = {
    name for name in TABLE if name.endswith(("-3", "-of-10", "-half", "-slow", "-fast", "-less", "-negative", "-noise"))
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in OF_ANOTHER_STRENGTH else ()) for name in TABLE]
)
def test_attack_meets_what_the_table_says_and_moves_the_mean_no_further_than_its_senders_could(
    tmp_path: Path, name: str
) -> None:
    case = TABLE[name]
    server, cohort = Server(tmp_path), Cohort(case.clients)
    for _ in range(2):
        server.round(cohort.round())
    for number in range(1, max(case.rounds) + 1):
        honest = cohort.round()
        sent = case.attack(honest, number, server.most)
        round, mean = server.round([sent] * case.attackers + honest[case.attackers :])
        if number in case.rounds:
            assert verdict(round) >= case.becomes
        without = torch.stack(honest[case.attackers :]).mean(0)
        longest = max(float(one.norm()) for one in honest)
        assert float((mean - without).norm()) <= 2 * case.attackers * longest / case.clients, "bounded"


@pytest.mark.parametrize("norm", [1.0, 0.05], ids=["first", "last"])
def test_first_and_last_round_have_the_limit_of_their_own_replies(tmp_path: Path, norm: float) -> None:
    server, cohort = Server(tmp_path), Cohort()
    if norm < 1:
        for size in (1.0, 0.7, 0.3):
            server.round(cohort.round(size))
    honest = cohort.round(norm)
    round, _ = server.round([attacks.flip()(honest, 1, min(900.0, server.most)), *honest[1:]])
    assert verdict(round) == {"rejected"}


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


def test_loss_that_is_unlike_all_others_raises_an_alarm() -> None:
    updates = Cohort(4).round()
    losses: list[dict[str, float]] = [{"ssl-loss": loss} for loss in (40.0, 2.0, 3.0, 2.5)]
    assert alarmed(updates, "median", losses) == {ATTACKER}
    assert alarmed(updates, "median", [*losses[1:], {}]) == set()


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
