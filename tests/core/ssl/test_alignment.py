"""The relations of FedX worked by hand, and what of it learns from which model."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from federation import tiny
from torch import nn

from fedsense_core.errors import ConfigError
from fedsense_core.models.pretraining import PretrainingModel, build_model
from fedsense_core.ssl.alignment import cross_distillation, js_divergence, relations
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.ssl.simclr import nt_xent
from fedsense_core.ssl.views import Views

FEDX = {"alignment__kind": "cross", "alignment__weight": 1.0}


def test_relations_are_a_softmax_over_the_other_chips_alone() -> None:
    z = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    e = math.exp(1 / 0.5)  # cosine 1 at temperature 0.5; cosine 0 gives 1
    expected = torch.tensor([[1 / (1 + e), e / (1 + e)], [0.5, 0.5], [e / (1 + e), 1 / (1 + e)]])
    assert torch.allclose(relations(z, z, 0.5).exp(), expected)


def test_relations_ignore_the_chip_itself_and_all_lengths() -> None:
    generator = torch.Generator().manual_seed(0)
    z, others = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    moved = others.clone()
    moved[2] = -moved[2]
    assert torch.equal(relations(z, others, 0.1)[2], relations(z, moved, 0.1)[2])
    assert torch.allclose(relations(z, others, 0.1), relations(7 * z, 0.1 * others, 0.1), atol=1e-5)


def test_js_divergence_worked_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.5], [0.2, 0.8]]), torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    # m = (0.7, 0.3); the second row does not differ.
    of_p = 0.5 * math.log(0.5 / 0.7) + 0.5 * math.log(0.5 / 0.3)
    of_q = 0.9 * math.log(0.9 / 0.7) + 0.1 * math.log(0.1 / 0.3)
    expected = (of_p + of_q) / 2 / 2
    assert float(js_divergence(p.log(), q.log())) == pytest.approx(expected, rel=1e-6)
    assert float(js_divergence(q.log(), p.log())) == pytest.approx(expected, rel=1e-6)


def test_js_divergence_is_bounded_by_log_two_where_nothing_is_shared() -> None:
    p, q = torch.tensor([[0.0, -2000.0]]), torch.tensor([[-2000.0, 0.0]])
    assert float(js_divergence(p, q)) == pytest.approx(math.log(2), rel=1e-6)


def flat(predictor: nn.Module | None) -> PretrainingModel:
    """Return a model that reads images of two pixels as they are."""
    return PretrainingModel(nn.Flatten(), nn.Identity(), None, predictor)


def test_cross_distillation_is_the_sum_of_its_three_terms() -> None:
    swap = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        swap.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    second = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    views = Views((first.view(3, 1, 1, 2), second.view(3, 1, 1, 2)), (first, second))
    with torch.no_grad():
        loss = float(cross_distillation(flat(swap), flat(None), views, temperature=1.0))

    e = math.e
    high, low = math.log(e / (1 + e)), math.log(1 / (1 + e))
    even = math.log(0.5)
    # How the two views relate to the second views of the other two chips: chip 0 to (1, 2), 1 to
    # (0, 2), 2 to (0, 1).
    local = js_divergence(
        torch.tensor([[low, high], [low, high], [even, even]]), torch.tensor([[high, low], [high, low], [even, even]])
    )
    across = local  # predictions have their coordinates swapped, so both views relate the other way round
    contrast = nt_xent(first.flip(1), second, 1.0)
    assert loss == pytest.approx(float(local + across + contrast), rel=1e-5)


@pytest.mark.parametrize("recipe", ["simclr", "byol"])
def test_fedx_needs_the_anchor_and_teaches_encoder_projector_and_predictor(recipe: str) -> None:
    config = tiny(**FEDX, train__recipe=recipe)
    model, anchor = build_model(config), build_model(tiny(**FEDX, run__seed=5))  # would take gradients if given any
    teacher = deepcopy(anchor)
    x = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    loss = build_recipe(config)
    alone = loss(model, None, x, torch.Generator().manual_seed(1), teacher)
    assert float(alone.alignment) == 0.0
    step = loss(model, anchor, x, torch.Generator().manual_seed(1), teacher)
    assert float(step.ssl.detach()) == float(alone.ssl.detach())
    assert float(step.alignment.detach()) > 1.0  # most of it is the contrast with 11 others
    step.alignment.backward()  # type: ignore[no-untyped-call]
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(parameter.grad is None for parameter in (*anchor.parameters(), *teacher.parameters()))


@pytest.mark.parametrize("recipe", ["mae", "lejepa"])
def test_fedx_on_a_recipe_without_contrast_is_refused_before_a_run_begins(recipe: str) -> None:
    with pytest.raises(ConfigError, match=rf"alignment\.kind = 'cross'.*'{recipe}'.*Use 'simclr' or 'byol'"):
        tiny(**FEDX, train__recipe=recipe)
