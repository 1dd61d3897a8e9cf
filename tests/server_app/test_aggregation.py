"""How the clients' updates become one, on cases worked by hand, and in rounds where half of the
clients take part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from federation import Federation, logged, same_bits
from torch import Tensor

import server_app.strategy as strategy_module
from fedsense_core.config import AggregationSection, OuterSection
from fedsense_core.errors import ConfigError
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.frame import FrameKind
from fedsense_core.tensors import TensorTable
from server_app.aggregation.l_dawa import cosine_of, layerwise_mean
from server_app.aggregation.rule import weighted_mean, weights_of
from server_app.distillation.distiller import Distiller
from server_app.outer_optimiser.outer_optimiser import OuterOptimiser
from server_app.round import Accepted

Make = Callable[..., Federation]
TABLE = TensorTable.from_shapes({"a": (2,), "b": (2,), "c": (2,)})
START = torch.tensor([3.0, 4.0, 1.0, 0.0, 0.0, 0.0])


@dataclass
class Replica:
    weights: Tensor = field(default_factory=START.clone)


@dataclass
class Expected:
    kind: FrameKind
    replica: Replica = field(default_factory=Replica)


@dataclass
class Reply:
    """Stands for an accepted reply: what travelled is ``sent``."""

    sent: Tensor
    kind: FrameKind = FrameKind.MODEL
    examples: float = 1.0
    factor: float = 1.0

    @property
    def expected(self) -> Expected:
        return Expected(self.kind)

    def value(self) -> Tensor:
        return self.sent.clone()

    def model(self) -> Tensor:
        return Accepted.model(self)  # type: ignore[arg-type]


def replies(*models: list[float], kind: FrameKind = FrameKind.MODEL) -> list[Any]:
    base = START if kind == FrameKind.UPDATE else torch.zeros(6)
    return [Reply(torch.tensor(model) - base, kind) for model in models]


def test_mean_of_fedavg_by_hand_counts_examples() -> None:
    few, many = Reply(torch.tensor([4.0, -8.0]), examples=1.0), Reply(torch.tensor([8.0, 0.0]), examples=3.0)
    seen: list[Any] = [few, many]
    assert weighted_mean(seen).tolist() == [0.25 * 4 + 0.75 * 8, 0.25 * -8]


@pytest.mark.parametrize(("weights", "shares"), [("equal", (1, 1)), ("chips", (4, 9)), ("sqrt-chips", (2, 3))])
def test_weights_by_hand(weights: str, shares: tuple[int, int]) -> None:
    section = AggregationSection.model_validate({"weights": weights})
    values = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    seen: list[Any] = [Reply(value, factor=section.factor(n)) for value, n in zip(values, (4, 9), strict=True)]
    assert weights_of(seen) == [share / sum(shares) for share in shares]
    assert weighted_mean(seen).tolist() == pytest.approx([share / sum(shares) for share in shares])


# Cosines to the start: tensor a 1 and 0, tensor b 0 and -1, tensor c has no angle, because it
# starts from zero.
FIRST = [3.0, 4.0, 0.0, 2.0, 6.0, 0.0]
SECOND = [4.0, -3.0, -1.0, 0.0, 0.0, 2.0]


@pytest.mark.parametrize("kind", [FrameKind.MODEL, FrameKind.UPDATE])
def test_published_l_dawa_scales_each_tensor_by_its_cosine_and_shrinks(kind: FrameKind) -> None:
    made = layerwise_mean(replies(FIRST, SECOND, kind=kind), TABLE, normalised=False)
    assert made.tolist() == [1.5, 2.0, 0.5, 0.0, 3.0, 1.0]


@pytest.mark.parametrize("kind", [FrameKind.MODEL, FrameKind.UPDATE])
def test_normalised_l_dawa_keeps_the_size_and_leaves_opposed_tensors_out(kind: FrameKind) -> None:
    made = layerwise_mean(replies(FIRST, SECOND, kind=kind), TABLE, normalised=True)
    assert made.tolist() == [3.0, 4.0, 1.0, 0.0, 3.0, 1.0]


def test_normalised_l_dawa_weighs_by_the_cosines_alone() -> None:
    half = [5.0, 0.0, 1.0, 0.0, 0.0, 0.0]  # tensor a at cosine 0.6 to (3, 4)
    made = layerwise_mean(replies(FIRST, half), TABLE, normalised=True)
    assert made[:2].tolist() == pytest.approx([(3 + 0.6 * 5) / 1.6, 4 / 1.6])


@pytest.mark.parametrize("normalised", [False, True])
def test_l_dawa_of_clients_that_did_not_move_changes_nothing(normalised: bool) -> None:
    still = START.tolist()
    assert torch.allclose(layerwise_mean(replies(still, still), TABLE, normalised=normalised), START)


def test_cosines_stay_within_one() -> None:
    vector = torch.full((3,), 0.1)
    assert cosine_of(vector, 3 * vector) <= 1.0
    assert cosine_of(vector, -vector) == pytest.approx(-1)
    assert cosine_of(torch.zeros(3), vector) == cosine_of(vector, torch.zeros(3)) == 1.0


def test_a_clients_model_is_what_it_sent_or_the_replica_moved_by_its_update() -> None:
    assert replies(FIRST)[0].model().tolist() == FIRST
    assert replies(FIRST, kind=FrameKind.UPDATE)[0].model().tolist() == FIRST


def test_outer_nesterov_by_hand() -> None:
    # DiLoCo (arXiv 2311.08105), algorithm 1 with PyTorch's Nesterov: m <- 0.9 m + Δ̄, w <- w + 0.7
    # (Δ̄ + 0.9 m).
    outer, weights = OuterOptimiser.of(OuterSection(kind="nesterov", learning_rate=0.7, momentum=0.9)), torch.zeros(1)
    weights = outer.step(weights, torch.tensor([1.0]))
    assert float(weights) == pytest.approx(0.7 * 1.9)
    weights = outer.step(weights, torch.tensor([0.5]))
    assert float(weights) == pytest.approx(1.33 + 0.7 * (0.5 + 0.9 * 1.4))


def test_outer_optimiser_steps_along_what_the_codec_delivered(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    means: list[Tensor] = []

    def kept(accepted: Any) -> Tensor:
        means.append(weighted_mean(accepted))
        return means[-1]

    monkeypatch.setattr(strategy_module, "weighted_mean", kept)
    changes = {"preset": "diloco", "uplink.codec": "eden", "uplink.bits": 1, "uplink.feedback": True, "run.rounds": 2}
    fed = federation(changes=changes | {"downlink.codec": "eden", "downlink.bits": 4})
    fed.run()
    first, second = means
    start = TensorTable.of(model := build_model(fed.config)).read(model)
    expected = start + 0.7 * 1.9 * first + 0.7 * (second + 0.9 * (0.9 * first + second))
    assert torch.allclose(fed.state().weights, expected, atol=1e-6)
    momentum = fed.state().outer_momentum
    assert torch.allclose(momentum, 0.9 * first + second, atol=1e-6)


KINDS = {
    "mean": {},
    "l-dawa": {"aggregation.plain_rounds": 1},
    "l-dawa-normalised": {"aggregation.plain_rounds": 1},
    "none": {"distillation.kind": "ensemble"},
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_half_of_the_clients_suffice_for_every_aggregation(federation: Make, kind: str) -> None:
    changes = {"aggregation.kind": kind, "federation.participation": 0.5, "run.rounds": 2, "uplink.prediction": True}
    fed = federation(changes=changes | KINDS[kind])
    fed.run()
    lines, state = fed.lines(), fed.state()
    assert [len(line["accepted"]) for line in lines] == [2, 2]
    assert all(line["update_norm"] > 0 for line in lines)
    assert state.weights.isfinite().all()
    assert float(state.last_norms.norm()) == pytest.approx(lines[-1]["update_norm"], rel=1e-5)
    assert lines[-1]["radius"] > 0


def test_l_dawa_begins_after_its_plain_rounds_and_shrinks(federation: Make) -> None:
    plain, layered = (
        federation(preset, changes={"preset": preset, "run.rounds": 2, "aggregation.plain_rounds": 1})
        for preset in ("fedavg", "l-dawa")
    )
    plain.run()
    layered.run()
    # Both rounds begin from equal models, and drift is measured by the plain mean, whatever
    # aggregates.
    assert [line["drift"] for line in plain.lines()] == [line["drift"] for line in layered.lines()]
    assert float(layered.state().weights.norm()) < 0.9999 * float(plain.state().weights.norm())


def test_without_aggregation_the_clients_move_the_model_by_teaching_alone(
    federation: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    starts: list[Tensor] = []
    distil = Distiller.distil

    def watched(self: Distiller, model: Any, table: TensorTable, teachers: Any, server_round: int) -> Any:
        starts.append(table.read(model))
        assert len(teachers) == 3
        return distil(self, model, table, teachers, server_round)

    monkeypatch.setattr(Distiller, "distil", watched)
    fed = federation(changes={"preset": "flesd", "run.rounds": 2, "train.optimiser": "sgd"})
    with logged(caplog):
        fed.run()
    assert "recipe simclr, inner optimiser sgd" in caplog.text
    assert "aggregation: none; outer: fedavg; distillation: ensemble" in caplog.text
    initial = TensorTable.of(model := build_model(fed.config)).read(model)
    assert same_bits(starts[0], initial)
    assert not same_bits(starts[1], initial)
    assert fed.lines()[1]["distillation_loss"] > 0


def test_the_public_set_alone_is_what_comes_after_the_mean_without_anybody(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = federation(changes={"preset": "public-only", "run.rounds": 3, "federation.quorum": 3})
    starts: list[Tensor] = []
    ends: list[Tensor] = []
    monkeypatch.setattr(Distiller, "teacher", lambda *_: pytest.fail("there is nobody to teach"))
    distil = Distiller.distil

    def watched(self: Distiller, model: Any, table: TensorTable, teachers: Any, server_round: int) -> Any:
        starts.append(table.read(model))
        found = distil(self, model, table, teachers, server_round)
        ends.append(found[0])
        return found

    monkeypatch.setattr(Distiller, "distil", watched)
    alone.run()
    assert [(line["asked"], line["bytes_up"], line["loss"]) for line in alone.lines()] == [(0, 0, None)] * 3
    assert all(line["distillation_loss"] > 0 for line in alone.lines())
    assert all(map(same_bits, starts[1:], ends[:-1])), "nothing else moves the model"
    assert not same_bits(starts[0], ends[0])


def test_the_public_set_alone_goes_on_where_it_was(federation: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"preset": "public-only", "run.rounds": 3}
    whole = federation("whole", changes=changes)
    whole.run()
    distil = Distiller.distil

    def dies(self: Distiller, model: Any, table: TensorTable, teachers: Any, server_round: int) -> Any:
        if server_round == 3:
            raise KeyboardInterrupt
        return distil(self, model, table, teachers, server_round)

    with monkeypatch.context() as patched:
        patched.setattr(Distiller, "distil", dies)
        with pytest.raises(KeyboardInterrupt):
            federation("killed", changes=changes).run()
    again = federation("killed", changes=changes)
    again.run()
    assert same_bits(again.state().weights, whole.state().weights)
    assert [line["round"] for line in again.lines()] == [1, 2, 3]


def test_without_aggregation_something_else_must_move_the_model(federation: Make) -> None:
    with pytest.raises(ConfigError, match=r"aggregation\.kind = 'none'.*distillation\.kind = 'none'.*'ensemble'"):
        _ = federation(changes={"preset": "fedavg", "aggregation.kind": "none"}).config
