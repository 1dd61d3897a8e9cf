"""Similarity distillation: only relations count, and they are learned."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from federation import MASKED_VIT, tiny

from fedsense_core.config import OuterSection
from fedsense_core.data.batches.batch import Batch
from fedsense_core.data.sites.sensors import shipped_card
from fedsense_core.errors import SiteError
from fedsense_core.models.pretraining import PretrainingModel, build_model
from fedsense_core.seeds import seed_of
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.tensors import TensorTable
from server_app.distillation.distiller import Distiller
from server_app.distillation.objective import Student, Teacher
from server_app.distillation.similarity import Similarity, similarities, similarity_loss
from server_app.outer_optimiser.outer_optimiser import OuterOptimiser

RGB_BANDS = tuple(shipped_card("rgb", "test").bands)


def target_of(one: Distiller, teachers: list[Teacher], rows: torch.Tensor) -> torch.Tensor:
    """Return what the teachers make of some public chips (B, B)."""
    step, _ = one._step(Student(build_model(one.config), None, None), teachers, rows, 0)
    assert isinstance(one.objective, Similarity)
    return one.objective.target(step)


def features(seed: int, n: int = 12) -> torch.Tensor:
    return F.normalize(torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_loss_is_zero_where_the_student_has_the_teachers_structure() -> None:
    z = features(0)
    target = similarities(z, 0.1).softmax(dim=1)
    assert float(similarity_loss(z, target, 0.1)) == pytest.approx(0, abs=1e-6)
    assert float(similarity_loss(features(1), target, 0.1)) > 0.1


def test_target_and_loss_by_hand() -> None:
    # Two teachers of three chips, at τ_T = 1; the second counts three times as much as the first.
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    second = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    one, _, _ = distiller(distillation__teacher_temperature=1.0)
    target = target_of(one, [Teacher(1.0, first), Teacher(3.0, second)], torch.arange(3))
    near, far = math.e / (math.e + 1), 1 / (math.e + 1)  # a chip like it at similarity 1, another at 0
    assert target[0].tolist() == pytest.approx([0, near / 4 + 3 * far / 4, far / 4 + 3 * near / 4])
    assert target[1].tolist() == pytest.approx([near / 4 + 3 / 8, 0, far / 4 + 3 / 8])
    # A student that finds all chips alike has rows of halves: KL(p ‖ ½) = log 2 + Σ p log p.
    alike = torch.ones(3, 1)
    rows = [row[row > 0].tolist() for row in target]
    expected = sum(math.log(2) + sum(p * math.log(p) for p in row) for row in rows) / 3
    assert float(similarity_loss(alike, target, 0.5)) == pytest.approx(expected, rel=1e-5)


def test_plain_self_supervision_is_one_step_of_adam_on_the_recipes_own_loss() -> None:
    steps = {"distillation__kind": "public-ssl", "distillation__steps": 1, "distillation__batch_size": 40}
    one, model, table = distiller(**steps)
    before, seed = table.read(model), seed_of(one.config.run.seed, "distil", 1, 0)
    (batch,), _ = one._pick(next(one._rows(1)))
    model.train().zero_grad()
    one.recipe(model, None, batch, torch.Generator().manual_seed(seed)).ssl.backward()  # type: ignore[no-untyped-call]
    gradient = torch.cat([dict(model.named_parameters())[spec.name].grad.flatten() for spec in table.specs])
    after, _ = one.distil(model, table, [], 1)
    # The first step of Adam has both moments at the gradient's own: g / (|g| + ε).
    expected = before - one._rate(1) * gradient / (gradient.abs() + 1e-8)
    assert torch.allclose(after, expected, atol=1e-6)
    assert not torch.allclose(after, before, atol=1e-4)


def test_rotated_teacher_teaches_the_same() -> None:
    z = features(0)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2)))
    plain, turned = (similarities(x, 0.07).softmax(dim=1) for x in (z, z @ rotation))
    assert torch.allclose(plain, turned, atol=1e-5)


def test_an_image_is_never_compared_with_itself() -> None:
    assert not similarities(features(0), 0.1).softmax(dim=1).diagonal().any()


def distiller(**changes: object) -> tuple[Distiller, PretrainingModel, TensorTable]:
    config = tiny(
        **{
            "distillation__steps": 25,
            "distillation__batch_size": 16,
            "train__warmup": 0.0,
            "distillation__learning_rate_factor": 1.0,
            "distillation__public_weight": 0.0,
            **changes,
        }
    )
    public = [Batch(torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(4)), RGB_BANDS)]
    model = build_model(config)
    return Distiller(config, public, build_recipe(config), torch.device("cpu")), model, TensorTable.of(model)


def structure_gap(one: Distiller, model: PretrainingModel, teacher: Teacher) -> float:
    student = one.teacher(model, 1.0).features.float()
    target = similarities(teacher.features.float(), 0.07).softmax(dim=1)
    return float(similarity_loss(student, target, 0.1))


def test_distillation_brings_the_student_nearer_to_its_teachers() -> None:
    one, model, table = distiller()
    teacher = one.teacher(build_model(tiny(run__seed=9)), 1.0)
    before = structure_gap(one, model, teacher)
    weights, _ = one.distil(model, table, [teacher], 1)
    table.write(weights, model)
    assert structure_gap(one, model, teacher) < 0.9 * before


def test_heavier_teacher_counts_for_more() -> None:
    one, _, _ = distiller()
    a, b = (one.teacher(build_model(tiny(run__seed=s)), 1.0) for s in (7, 8))
    rows = torch.arange(10)
    alone = target_of(one, [a], rows)
    mixed = target_of(one, [Teacher(0.75, a.features), Teacher(0.25, b.features)], rows)
    assert torch.allclose(mixed, 0.75 * alone + 0.25 * target_of(one, [b], rows), atol=1e-6)


def test_distillation_leaves_the_projector_alone_and_its_control_does_not() -> None:
    for kind, moved in (("similarity", False), ("public-ssl", True)):
        one, model, table = distiller(distillation__kind=kind)
        before = table.unflatten(table.read(model))
        teachers = [one.teacher(build_model(tiny(run__seed=9)), 1.0)] if kind == "similarity" else []
        after = table.unflatten(one.distil(model, table, teachers, 1)[0])
        changed = [n for n in before if n.startswith("projector.") and not torch.equal(before[n], after[n])]
        assert bool(changed) == moved


@pytest.mark.parametrize("changes", [{}, MASKED_VIT], ids=["simclr", "mae"])
@pytest.mark.parametrize("kind", ["public-ssl", "similarity"])
def test_chips_that_are_alone_of_their_kind_stop_nothing(kind: str, changes: dict[str, Any]) -> None:
    own = {"data__bands": "all", "distillation__kind": kind, "distillation__public_weight": 1.0}
    config = tiny(**own, **changes, distillation__batch_size=4, distillation__steps=2)
    kinds = [shipped_card(sensor, "test").bands for sensor in ("rgb", "sentinel1-grd", "landsat8-l1")]
    public = [Batch(torch.randn(1, len(bands), 16, 16), tuple(bands)) for bands in kinds]
    one, model = Distiller(config, public, build_recipe(config), torch.device("cpu")), build_model(config)
    table = TensorTable.of(model)
    before = table.read(model)
    weights, loss = one.distil(model, table, [one.teacher(build_model(config), 1.0)], 1)
    assert weights.isfinite().all()
    # Alone, a chip has no negatives, but cells to hide.
    learns = kind == "similarity" or bool(changes)
    assert (loss > 0, not torch.equal(weights, before)) == (learns, learns)


def test_one_public_chip_is_refused_before_it_spoils_the_weights() -> None:
    config = tiny()
    with pytest.raises(SiteError, match=r"federation\.public.*1 chip"):
        Distiller(config, [Batch(torch.randn(1, 3, 16, 16), RGB_BANDS)], build_recipe(config), torch.device("cpu"))


def test_nesterov_equals_torchs_sgd_on_the_negative_mean_update(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(9, generator=generator))
    ours, weights = OuterOptimiser.of(OuterSection(kind="nesterov")), parameter.detach().clone()
    theirs = torch.optim.SGD([parameter], lr=0.7, momentum=0.9, nesterov=True)
    for _ in range(5):
        update = torch.randn(9, generator=generator)
        weights = ours.step(weights, update)
        parameter.grad = -update
        theirs.step()
        assert torch.allclose(weights, parameter.detach(), atol=1e-6)
