"""What several teachers say together, worked by hand (FLESD, FedMKD); and recipes that bring a
teacher of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from federation import MASKED_VIT, TINY, Federation, tiny
from torch import Tensor

from fedsense_core.data.batches.augment import Augmentation
from fedsense_core.data.batches.batch import Batch
from fedsense_core.data.sites.sensors import shipped_card
from fedsense_core.models.pretraining import PretrainingModel, build_model
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.ssl.step import StepLoss
from fedsense_core.tensors import TensorTable
from server_app.distillation.distiller import Distiller
from server_app.distillation.ensemble import ensemble_target
from server_app.distillation.multi_teacher import attention, contrast, integrated
from server_app.distillation.similarity import row_divergence

CPU = torch.device("cpu")
ENSEMBLE: dict[str, Any] = {"distillation__kind": "ensemble", "distillation__public_weight": 0.0}
MULTI: dict[str, Any] = {"distillation__kind": "multi-teacher", "distillation__public_weight": 0.0}
BYOL: dict[str, Any] = {"train__recipe": "byol"}
LONG: dict[str, Any] = {
    "distillation__steps": 25,
    "distillation__batch_size": 16,
    "train__warmup": 0.0,
    "distillation__learning_rate_factor": 1.0,
}


def public(*sensors: str, count: int = 40) -> list[Batch]:
    generator = torch.Generator().manual_seed(4)
    kinds = [tuple(shipped_card(sensor, "test").bands) for sensor in sensors or ("rgb",)]
    return [Batch(torch.randn(count, len(bands), 16, 16, generator=generator), bands) for bands in kinds]


def made(batches: list[Batch], **changes: Any) -> tuple[Distiller, PretrainingModel, TensorTable]:
    config = tiny(**changes)
    model = build_model(config)
    return Distiller(config, batches, build_recipe(config), CPU), model, TensorTable.of(model)


def stranger(seed: int, **changes: Any) -> PretrainingModel:
    return build_model(tiny(**changes, run__seed=seed))


def test_ensemble_rows_by_hand() -> None:
    apart, same = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    rows = ensemble_target(torch.stack([apart, same]), 1.0)
    other = (math.exp(-1) + 1) / 2  # e^(0-1) of the client that tells the chips apart, e^(1-1) of the other
    assert rows[0].tolist() == pytest.approx([1 / (1 + other), other / (1 + other)])
    assert rows[1].tolist() == pytest.approx([other / (1 + other), 1 / (1 + other)])
    # Not the mean of normalised rows, which gives every client an equal say.
    assert float(rows[0, 0]) != pytest.approx((1 / (1 + math.exp(-1)) + 0.5) / 2, abs=0.01)


def test_ensemble_is_matched_by_the_divergence_of_rows() -> None:
    target = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    assert float(row_divergence(target, target.log())) == pytest.approx(0, abs=1e-7)
    level = torch.zeros(2, 2)
    by_hand = (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)) / 2
    assert float(row_divergence(target, level)) == pytest.approx(by_hand)


def test_attention_and_joint_features_by_hand() -> None:
    z, teachers = torch.tensor([[1.0, 0.0]]), torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    weights = attention(z, teachers, 1 / math.log(3))  # logits ln 3 and 0
    assert weights[0].tolist() == pytest.approx([0.75, 0.25])
    size = math.hypot(0.75, 0.25)
    assert integrated(weights, teachers)[0].tolist() == pytest.approx([0.75 / size, 0.25 / size])


def test_contrast_by_hand() -> None:
    z, target = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    # The first chip meets two equal targets; the second is orthogonal to both.
    assert float(contrast(z, target, 0.5)) == pytest.approx(math.log(2))
    assert float(contrast(z, torch.eye(2), 1.0)) == pytest.approx(math.log(1 + math.exp(-1)))


def test_no_gradient_passes_through_the_attention() -> None:
    z = torch.eye(2).requires_grad_()
    assert not attention(z, torch.eye(2)[None], 1.0).requires_grad


def test_student_finds_the_joint_features_of_its_teachers() -> None:
    one, model, table = made(public(), **MULTI, **LONG)
    teachers = [one.teacher(stranger(seed), 0.5) for seed in (7, 8)]

    def gap() -> float:
        z, joint = one.teacher(model, 1.0).features.float(), torch.stack([t.features for t in teachers]).float()
        return float(contrast(z, integrated(attention(z, joint, 0.07), joint), 0.1))

    before = gap()
    weights, _ = one.distil(model, table, teachers, 1)
    table.write(weights, model)
    assert gap() < 0.9 * before


def test_student_learns_the_ensemble_of_its_teachers() -> None:
    losses = []
    for steps in (2, 25):  # the first two steps are the same
        one, model, table = made(public(), **ENSEMBLE, **LONG | {"distillation__steps": steps})
        teachers = [one.teacher(stranger(seed), 0.5) for seed in (7, 8)]
        losses.append(one.distil(model, table, teachers, 1)[1])
    assert losses[1] < 0.85 * losses[0]


@pytest.mark.parametrize("kind", [ENSEMBLE, MULTI], ids=["ensemble", "multi-teacher"])
@pytest.mark.parametrize("recipe", [{}, MASKED_VIT], ids=["simclr", "mae"])
def test_heads_are_distilled_where_the_recipe_trains_them(kind: dict[str, Any], recipe: dict[str, Any]) -> None:
    one, model, table = made(public(), **kind, **recipe)
    before = table.unflatten(table.read(model))
    after = table.unflatten(one.distil(model, table, [one.teacher(stranger(7, **recipe), 1.0)], 1)[0])
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == ({"encoder"} if recipe else {"encoder", "projector"})


@pytest.mark.parametrize("recipe", [{}, BYOL, {"train__recipe": "lejepa"}, MASKED_VIT], ids=lambda c: str(len(c)))
@pytest.mark.parametrize("kind", [ENSEMBLE, MULTI, {"distillation__kind": "public-ssl"}], ids=lambda c: str(c))
def test_every_recipe_goes_with_every_teaching_of_any_bands(kind: dict[str, Any], recipe: dict[str, Any]) -> None:
    changes = {**kind, **recipe, "data__bands": "all", "distillation__steps": 2, "distillation__public_weight": 1.0}
    # One kind has one chip, which has nothing to be compared with but chips of other kinds.
    batches = [*public("rgb", "sentinel1-grd", count=4), *public("landsat8-l1", count=1)]
    one, model, table = made(batches, **changes)
    before = table.read(model)
    teachers = [one.teacher(stranger(seed, **changes), 0.5) for seed in (7, 8)]
    weights, loss = one.distil(model, table, teachers, 1)
    assert weights.isfinite().all()
    assert math.isfinite(loss)
    assert not torch.equal(weights, before)


@pytest.mark.parametrize("local", ["projector.*", "encoder.conv1.*"])
@pytest.mark.parametrize("kind", [ENSEMBLE, MULTI, {"distillation__kind": "public-ssl"}], ids=lambda c: str(c))
def test_what_does_not_travel_is_not_trained_on_the_server(kind: dict[str, Any], local: str) -> None:
    """Or a round would depend on rounds that no checkpoint tells of."""
    config = tiny(**kind, **BYOL, model__local_parameters=[local], distillation__steps=3)
    model = build_model(config)
    table = TensorTable.of(model, config.model.local_parameters)
    one = Distiller(config, public(), build_recipe(config), CPU)
    start, teachers = table.read(model), [one.teacher(stranger(7, **BYOL), 1.0)]
    first, _ = one.distil(model, table, teachers, 1)
    table.write(start, model)
    again, _ = one.distil(model, table, teachers, 1)
    assert not torch.equal(first, start)
    assert torch.equal(first, again)


def test_dropout_of_a_round_is_the_same_whenever_it_runs() -> None:
    drops = {"model__args": {**TINY["model.args"], "drop_path_rate": 0.5}}
    one, model, table = made(public(), **drops, distillation__kind="public-ssl", distillation__steps=3)
    start = table.read(model)
    first, _ = one.distil(model, table, [], 1)
    before = torch.random.get_rng_state()
    table.write(start, model)
    again, _ = one.distil(model, table, [], 1)
    assert torch.equal(first, again)
    assert torch.equal(torch.random.get_rng_state(), before)  # nobody else's draws are moved


class Spy:
    """Stands for the byol recipe: keeps what it was shown, and pulls all weights to zero."""

    policy = Augmentation(16)

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def __call__(
        self, model: PretrainingModel, anchor: object, batch: Batch, generator: object, teacher: PretrainingModel
    ) -> StepLoss:
        table = TensorTable.of(model)
        self.pairs.append((table.read(model), table.read(teacher)))
        loss = torch.stack([p.square().sum() for p in model.parameters()]).sum()
        return StepLoss(loss, loss.new_zeros(()))


@pytest.mark.parametrize(
    "kind",
    [{"distillation__kind": "public-ssl"}, {**MULTI, "distillation__public_weight": 0.1}],
    ids=["alone", "beside"],
)
def test_byol_on_public_imagery_has_a_teacher_that_follows_every_step(kind: dict[str, Any]) -> None:
    config = tiny(**kind, **BYOL, **LONG, train__teacher_decay=0.9)
    spy, model = Spy(), build_model(config)
    one, table = Distiller(config, public(), spy, CPU), TensorTable.of(model)  # type: ignore[arg-type]
    one.distil(model, table, [one.teacher(stranger(7, **BYOL), 1.0)], 1)
    assert len(spy.pairs) == 25
    assert torch.equal(*spy.pairs[0])
    for (_, old), (student, teacher) in zip(spy.pairs, spy.pairs[1:], strict=False):
        assert torch.allclose(teacher, 0.9 * old + 0.1 * student, atol=1e-6)
    assert not torch.equal(*spy.pairs[-1])


@pytest.mark.parametrize("preset", ["fedmkd", "fedavg-public"])
def test_presets_that_train_on_public_imagery_run(federation: Callable[..., Federation], preset: str) -> None:
    fed = federation(changes={"preset": preset, "train.recipe": "byol", "run.rounds": 2})
    fed.run()
    assert all(line["distillation_loss"] > 0 for line in fed.lines())
