"""The loss that is measured is one deterministic function of the weights, and its derivatives are
right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from federation import MASKED_CONV, MASKED_VIT, tiny
from torch import nn

from fedsense_core.data.batches.batch import Batch
from fedsense_core.data.sites.sensors import shipped_card
from fedsense_core.models.pretraining import build_model
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.tensors import TensorTable
from fedsense_core.tools.analysis.fixed_loss import Objective

CASES: dict[str, dict[str, Any]] = {
    "simclr": {},
    "byol": {"train__recipe": "byol"},
    "lejepa": {"train__recipe": "lejepa"},
    "mae, attention": MASKED_VIT,
    "mae, convolutions": MASKED_CONV,
    "any bands": {"data__bands": "all"},
    "local projector": {"model__local_parameters": ["projector.*"]},
}


def objective_of(
    changes: dict[str, Any], seed: int = 0, dtype: torch.dtype = torch.float32, count: int = 2
) -> tuple[Objective, torch.Tensor]:
    """Return a small loss over two clients with ``count`` batches each, and the weights it was
    built with."""
    config = tiny(**changes)
    generator = torch.Generator().manual_seed(1)
    bands = tuple(shipped_card("rgb", "test").bands)
    size = config.data.view_size
    batches = {
        name: [Batch(torch.randn(6, 3, size, size, generator=generator, dtype=dtype), bands) for _ in range(count)]
        for name in ("a", "b")
    }
    model = build_model(config).to(dtype)
    table = TensorTable.of(model, config.model.local_parameters)
    objective = Objective(model, table, build_recipe(config), batches, seed)
    w = table.read(model)
    objective.teach(w)
    return objective, w


def smooth(model: nn.Module) -> None:
    """Take the kinks out of a network: differences across one say nothing of the second
    derivative."""
    for part in list(model.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.ReLU):
                setattr(part, name, nn.Softplus())
            if isinstance(child, nn.MaxPool2d):
                setattr(part, name, nn.AvgPool2d(3, stride=2, padding=1))


def direction(w: torch.Tensor, seed: int) -> torch.Tensor:
    v = torch.randn(w.shape, dtype=w.dtype, generator=torch.Generator().manual_seed(seed))
    return v / v.norm()


@pytest.mark.parametrize("case", CASES)
def test_gradient_and_hessian_are_the_derivatives_of_the_loss(case: str) -> None:
    objective, w = objective_of(CASES[case], dtype=torch.float64, count=1)
    smooth(objective.model)
    value, slope = objective.gradient(w)
    assert value == pytest.approx(objective.loss(w), rel=1e-6)
    u, v, h = slope.double() / slope.norm(), direction(w, 1), 1e-4
    rise = (objective.loss(w + h * u) - objective.loss(w - h * u)) / (2 * h)
    assert rise == pytest.approx(float(slope.norm()), rel=1e-3)
    image = objective.curvature(w, u)
    change = (objective.gradient(w + h * u)[1] - objective.gradient(w - h * u)[1]) / (2 * h)
    assert float((image - change).norm() / change.norm()) < 1e-3
    # A Hessian is symmetric, exactly but for rounding.
    sizes = float(image.norm() + objective.curvature(w, v).norm())
    assert abs(float(v.float() @ image) - float(u.float() @ objective.curvature(w, v))) < 1e-5 * sizes


def test_the_same_weights_give_the_same_bits_whatever_was_asked_in_between() -> None:
    objective, w = objective_of({})
    first = objective.losses(w), objective.gradient(w)[1]
    objective.curvature(w + 1, direction(w, 0))
    again, slope = objective.losses(w), objective.gradient(w)[1]
    assert first[0] == again
    assert torch.equal(first[1], slope)
    assert objective_of({}, seed=1)[0].losses(w) != again


def test_clients_count_alike_however_many_batches_they_have() -> None:
    objective, w = objective_of({})
    objective.batches = {"a": objective.batches["a"], "b": objective.batches["b"][:1]}
    by_client = objective.losses(w)
    assert objective.gradient(w)[0] == pytest.approx(sum(by_client.values()) / 2)


def test_the_teacher_stays_where_it_was_set() -> None:
    objective, w = objective_of(CASES["byol"])
    moved = w + 0.1 * direction(w, 0) * w.norm()
    before = objective.loss(moved)
    objective.teach(moved)
    assert objective.loss(moved) != before


def test_denormals_are_flushed_nowhere_else() -> None:
    objective, w = objective_of({})
    objective.loss(w)
    assert float(torch.tensor(1e-30) * torch.tensor(1e-10)) > 0
