"""What clients keep of their own models: FedU and FedEMA worked by hand, and the teacher of
BYOL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from federation import SITES, Federation, same_bits, tiny
from flwr.app import Message
from torch import Tensor

from client_app.memory import ClientMemory, Slot
from client_app.personalisation import PersonalModels, divergence, personalised_start
from client_app.training import Outcome, Start, train_locally
from fedsense_core.config import Config, PersonalisationSection, resolve
from fedsense_core.errors import ConfigError
from fedsense_core.models.pretraining import PretrainingModel, build_model
from fedsense_core.protocol.replica import Replica
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.tensors import TensorTable

TABLE = TensorTable.from_shapes(
    {"encoder.a": (1, 2), "encoder.b": (2, 1), "encoder.bias": (1,), "projector.w": (1, 1), "predictor.w": (1, 1)}
)
GLOBAL = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 10.0])
OWN = torch.tensor([3.0, 4.0, 1.0, 2.0, 9.0, 9.0, 20.0])
"""Its encoder is 5 away in one matrix and 1 in the other: 3 on average; vectors and heads do not
count."""


def test_divergence_is_the_mean_distance_of_the_encoders_matrices() -> None:
    assert divergence(GLOBAL, OWN, TABLE) == pytest.approx(3.0)


@pytest.mark.parametrize(("threshold", "predictor"), [(2.0, 20.0), (3.0, 20.0), (3.5, 10.0)])
def test_fedu_keeps_the_clients_predictor_where_encoders_are_far_apart(threshold: float, predictor: float) -> None:
    settings = PersonalisationSection(kind="predictor", threshold=threshold)
    blended = personalised_start(settings, GLOBAL, PersonalModels(OWN), TABLE)
    assert blended.weights.tolist() == [*GLOBAL[:-1].tolist(), predictor]
    assert blended.share == (1.0 if predictor == 20 else 0.0)
    assert GLOBAL[-1] == 10.0  # the global model itself is left alone


def test_fedema_measures_lambda_once_and_then_keeps_more_of_what_is_farther_away() -> None:
    settings = PersonalisationSection(kind="average", scaler=0.7)
    first = personalised_start(settings, GLOBAL, PersonalModels(OWN), TABLE)
    assert first.share == pytest.approx(0.7)
    assert first.scaler == pytest.approx(0.7 / 3)
    assert torch.allclose(first.weights, 0.7 * OWN + 0.3 * GLOBAL)
    half = personalised_start(settings, GLOBAL, PersonalModels(GLOBAL + (OWN - GLOBAL) / 2, first.scaler), TABLE)
    assert half.share == pytest.approx(0.35)
    twice = personalised_start(settings, GLOBAL, PersonalModels(GLOBAL + 2 * (OWN - GLOBAL), half.scaler), TABLE)
    assert twice.share == 1.0  # min(1, 1.4)
    assert twice.scaler == first.scaler


def test_fedema_does_not_measure_lambda_on_equal_models() -> None:
    blended = personalised_start(PersonalisationSection(kind="average"), GLOBAL, PersonalModels(GLOBAL), TABLE)
    assert blended.scaler is None
    assert torch.equal(blended.weights, GLOBAL)


@pytest.mark.parametrize("kind", ["predictor", "average"])
def test_client_that_holds_nothing_starts_from_the_global_model(kind: str) -> None:
    blended = personalised_start(PersonalisationSection(kind=kind), GLOBAL, PersonalModels(), TABLE)  # type: ignore[arg-type]
    assert torch.equal(blended.weights, GLOBAL)
    assert blended.share == 0.0


def test_keeping_a_predictor_without_byol_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"personalisation\.kind = 'predictor'.*'simclr'.*train\.recipe = 'byol'"):
        resolve({"personalisation.kind": "predictor"}, {})


def own_of(weights: Tensor, distance: float) -> Tensor:
    return weights + distance * torch.randn(weights.shape, generator=torch.Generator().manual_seed(7)).to(weights)


def run(config: Config, own: PersonalModels, radius: float = 0.0) -> tuple[Outcome, Tensor, Tensor]:
    """Train one round in float64 and return what it leaves, the global weights, and the shift."""
    model = build_model(config).double()
    table = TensorTable.of(model)
    weights = table.read(model)
    generator = torch.Generator().manual_seed(1)
    momentum = torch.randn(weights.shape, generator=generator).double()
    start = Start(2, Replica(2, weights, momentum), torch.full((len(table),), radius), 5, 4, personal=own)
    batches = [torch.randn(4, 3, 16, 16, generator=generator).double() for _ in range(config.train.local_steps)]
    outcome = train_locally(config, model, table, build_recipe(config), iter(batches), start)
    return outcome, weights, table.read(model) - weights - outcome.delta


STILL = {"train__recipe": "byol", "train__learning_rate": 1e-13}
"""So slow that a model stays where it starts, up to 1e-9."""


def test_update_is_relative_to_the_global_model_not_to_the_blend() -> None:
    config = tiny(**STILL, personalisation__kind="average", personalisation__scaler=0.25)
    weights = TensorTable.of(model := build_model(config).double()).read(model)
    own = own_of(weights, 0.1)
    outcome, weights, shift = run(config, PersonalModels(own), radius=0.05)
    assert float(shift.norm()) > 0
    assert torch.allclose(outcome.delta, 0.25 * (own - weights), atol=1e-8)
    assert outcome.personal.trained is not None
    assert torch.allclose(outcome.personal.trained, weights + outcome.delta, atol=1e-12)  # kept without the shift
    assert outcome.personal_share == pytest.approx(0.25)


def test_nothing_is_kept_where_the_method_keeps_nothing() -> None:
    outcome, _, _ = run(tiny(), PersonalModels())
    assert outcome.personal == PersonalModels()


def named(model: PretrainingModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_kept_teacher_follows_the_model_without_the_shift_worked_by_hand() -> None:
    """ξ ← τ ξ + (1-τ) w, twice, from a kept ξ of w + 1 and a model that stands still."""
    config = tiny(**STILL, train__teacher_decay=0.5)
    at = named(build_model(config).double())
    outcome, _, shift = run(config, PersonalModels(teacher={name: p + 1 for name, p in at.items()}), radius=0.05)
    assert float(shift.norm()) > 0
    assert set(outcome.personal.teacher) == {name for name in at if not name.startswith("predictor.")}
    for name, kept in outcome.personal.teacher.items():
        assert torch.allclose(kept, at[name] + 0.25, atol=1e-8), name


def test_first_teacher_is_the_global_model_though_the_model_starts_elsewhere() -> None:
    config = tiny(**STILL, train__teacher_decay=0.5, personalisation__kind="average", personalisation__scaler=1.0)
    model = build_model(config).double()
    table = TensorTable.of(model)
    weights = table.read(model)
    outcome, _, _ = run(config, PersonalModels(own := own_of(weights, 0.1)), radius=0.05)
    for name, expected in table.unflatten(0.25 * weights + 0.75 * own).items():
        if not name.startswith("predictor."):
            assert torch.allclose(outcome.personal.teacher[name], expected, atol=1e-8), name


def test_own_models_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    own = PersonalModels(torch.randn(5), 0.1 + 0.2, {"encoder.w": torch.randn(2, 2)})
    memory = ClientMemory(tmp_path, 1)
    memory.keep(Slot(1, Replica.first(torch.zeros(5)), personal=own))
    slot = memory.recall(1)
    assert slot is not None
    assert slot.personal.trained is not None
    assert own.trained is not None
    assert same_bits(slot.personal.trained, own.trained)
    assert slot.personal.scaler == own.scaler
    assert same_bits(slot.personal.teacher["encoder.w"], own.teacher["encoder.w"])


def test_fedema_coded_both_ways_continues_after_a_kill_to_the_same_bits(federation: Callable[..., Federation]) -> None:
    changes = {
        "preset": "fedema",
        "run.rounds": 2,
        "uplink.codec": "eden",
        "uplink.feedback": True,
        "downlink.codec": "eden",
    }

    def die(task: Message, reply: Message | None) -> Message:
        raise KeyboardInterrupt

    whole, killed = federation("whole", changes=changes), federation("killed", changes=changes)
    whole.run()
    killed.grid.faults = {(2, killed.node("gamma")): die}
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    again = federation("killed", changes=changes, first_node=900)
    again.run()
    assert same_bits(again.state().weights, whole.state().weights)
    for site in SITES:
        slot = ClientMemory(whole.folder.path / "clients" / site, whole.state().run_id).recall(2)
        assert slot is not None
        assert slot.personal.scaler is not None
        assert slot.personal.teacher
        assert slot.personal.trained is not None
