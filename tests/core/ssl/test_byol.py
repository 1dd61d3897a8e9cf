"""BYOL: distances worked by hand, the teacher that only follows, and features that do not
collapse."""

from __future__ import annotations

import math

import pytest
import torch
from federation import tiny
from torch import nn

from fedsense_core.data.batches.augment import Augmentation
from fedsense_core.models.pretraining import PretrainingModel, build_model
from fedsense_core.ssl.byol import byol_distance
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.ssl.teacher import MovingTeacher


def test_distance_worked_by_hand_ignores_lengths() -> None:
    predicted = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    target = torch.tensor([[1.0, 1.0], [0.0, -5.0]])
    expected = ((2 - 2 / math.sqrt(2)) + 4) / 2
    assert float(byol_distance(predicted, target)) == pytest.approx(expected, rel=1e-6)
    assert float(byol_distance(predicted, 7 * predicted)) == pytest.approx(0, abs=1e-6)


def test_each_view_is_predicted_from_the_other() -> None:
    torch_generator = torch.Generator().manual_seed(0)
    policy = Augmentation(2, 1.0, grey=0.0)
    x = torch.randn(3, 1, 2, 2, generator=torch_generator)
    predictor = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        predictor.weight.copy_(torch.randn(4, 4, generator=torch_generator))
    model = PretrainingModel(nn.Flatten(), nn.Identity(), None, predictor)
    teacher = PretrainingModel(nn.Flatten(), nn.Identity(), None)
    seen: list[torch.Tensor] = []

    def spy(_model: object, _anchor: object, views: object) -> torch.Tensor:
        seen.extend(image.flatten(1) for image in views.images)  # type: ignore[attr-defined]
        return torch.zeros(())

    recipe = build_recipe(tiny(train__recipe="byol"))
    recipe.policy, recipe.align = policy, spy  # type: ignore[assignment]
    loss = recipe(model, None, x, torch.Generator().manual_seed(1), teacher)
    first, second = seen
    q_first, q_second = first @ predictor.weight.T, second @ predictor.weight.T
    cosines = torch.cosine_similarity(q_first, second) + torch.cosine_similarity(q_second, first)
    assert float(loss.ssl.detach()) == pytest.approx(float((2 - cosines).mean().detach()), rel=1e-5)


def test_missing_teacher_says_what_to_pass() -> None:
    config = tiny(train__recipe="byol")
    with pytest.raises(ValueError, match=r"byol.*teacher.*recipe\(\.\.\., teacher="):
        build_recipe(config)(build_model(config), None, torch.randn(4, 3, 16, 16), torch.Generator())


def test_a_teacher_is_ignored_by_a_recipe_without_one() -> None:
    config = tiny()
    model, x = build_model(config), torch.randn(4, 3, 16, 16)
    with_one, without = (
        build_recipe(config)(model, None, x, torch.Generator().manual_seed(0), teacher) for teacher in (model, None)
    )
    assert torch.equal(with_one.ssl, without.ssl)


def test_loss_reaches_every_parameter_but_the_teachers() -> None:
    config = tiny(train__recipe="byol")
    model = build_model(config)
    teacher = build_model(config)  # would take gradients if it were given any
    x = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    step = build_recipe(config)(model, None, x, torch.Generator().manual_seed(0), teacher)
    step.ssl.backward()  # type: ignore[no-untyped-call]
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert [name for name, parameter in teacher.named_parameters() if parameter.grad is not None] == []


def test_double_precision_is_kept() -> None:
    config = tiny(train__recipe="byol")
    model, anchor = build_model(config).double(), build_model(tiny(train__recipe="byol", run__seed=5)).double()
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    step = build_recipe(config)(model, anchor, x, torch.Generator().manual_seed(0), anchor)
    assert step.ssl.dtype == step.alignment.dtype == torch.float64
    alignment = step.alignment.detach()
    assert float(alignment) != float(alignment.float())


def test_teacher_follows_by_the_share_that_it_does_not_keep() -> None:
    model = PretrainingModel(nn.Linear(1, 1, bias=False), nn.Identity(), None)
    with torch.no_grad():
        model.encoder.weight.fill_(1.0)  # type: ignore[operator]
    teacher = MovingTeacher(model, 0.75)
    with torch.no_grad():
        model.encoder.weight.fill_(5.0)  # type: ignore[operator]
    teacher.ema_update(model)
    assert float(teacher.model.encoder.weight) == 2.0  # type: ignore[arg-type]
    teacher.ema_update(model)
    assert float(teacher.model.encoder.weight) == 2.75  # type: ignore[arg-type]
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())


def spread_after(x: torch.Tensor, steps: int, *, predicted: bool) -> float:
    """Train on the chips; return the deviation over chips of normalised projections, near 1 where
    they differ."""
    config = tiny(train__recipe="byol", train__teacher_decay=0.9)
    model, recipe = build_model(config), build_recipe(config)
    if not predicted:
        model.predictor = nn.Identity()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    teacher = MovingTeacher(model, config.train.teacher_decay)
    for step in range(steps):
        optimiser.zero_grad()
        frozen = teacher.model if predicted else model
        recipe(model, None, x, torch.Generator().manual_seed(step), frozen).ssl.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        teacher.ema_update(model)
    with torch.no_grad():
        return float(nn.functional.normalize(model.project(x), dim=1).std(0).norm())


def test_features_collapse_without_predictor_and_teacher_and_not_with_them(waves: torch.Tensor) -> None:
    assert spread_after(waves, 30, predicted=False) < 0.2
    assert spread_after(waves, 30, predicted=True) > 0.6
