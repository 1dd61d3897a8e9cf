"""Losses worked by hand, and the alignment that is zero only at the anchor."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from federation import MASKED_CONV, MASKED_VIT, tiny

from fedsense_core.models import build_model
from fedsense_core.ssl import build_recipe
from fedsense_core.ssl.simclr import nt_xent


def test_nt_xent_of_two_orthogonal_pairs_worked_by_hand() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    # Each of the four rows sees its partner at cosine 1 and two others at cosine 0, temperature 0.5.
    expected = math.log(math.exp(2) + 2) - 2
    assert float(nt_xent(a, 2 * a, 0.5)) == pytest.approx(expected, rel=1e-6)


def test_nt_xent_falls_when_pairs_agree_and_ignores_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(8, 16, generator=generator), torch.randn(8, 16, generator=generator)
    assert nt_xent(a, a + 0.1 * b, 0.1) < nt_xent(a, b, 0.1)
    assert float(nt_xent(5 * a, b, 0.1)) == pytest.approx(float(nt_xent(a, b, 0.1)), rel=1e-5)


@pytest.mark.parametrize("changes", [{}, MASKED_VIT, MASKED_CONV], ids=["simclr", "mae-vit", "mae-conv"])
def test_alignment_is_positive_away_from_the_anchor_and_absent_without_one(changes: dict[str, object]) -> None:
    config = tiny(**changes)
    model, recipe = build_model(config), build_recipe(config)
    other = build_model(tiny(**{**changes, "run__seed": 5})).requires_grad_(False)
    x = torch.randn(6, 3, config.data.chip_size, config.data.chip_size)

    def losses(anchor: object) -> tuple[float, float]:
        step = recipe(model, anchor, x, torch.Generator().manual_seed(1))  # type: ignore[arg-type]
        return float(step.ssl), float(step.alignment)

    assert losses(None)[1] == 0.0
    assert losses(other)[1] > 1e-3
    assert losses(None)[0] == losses(other)[0]


@pytest.mark.parametrize("changes", [{}, MASKED_VIT, MASKED_CONV], ids=["simclr", "mae-vit", "mae-conv"])
def test_alignment_is_zero_at_the_anchor(changes: dict[str, object]) -> None:
    config = tiny(**changes)
    model = build_model(config)
    anchor = copy.deepcopy(model).requires_grad_(False)
    step = build_recipe(config)(model, anchor, torch.randn(4, 3, 16, 16), torch.Generator().manual_seed(0))
    assert float(step.alignment) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("changes", [{}, MASKED_VIT, MASKED_CONV], ids=["simclr", "mae-vit", "mae-conv"])
def test_every_travelling_parameter_of_the_loss_learns_and_the_anchor_does_not(changes: dict[str, object]) -> None:
    config = tiny(**changes)
    model = build_model(config)
    anchor = build_model(tiny(**{**changes, "run__seed": 5})).requires_grad_(False)
    step = build_recipe(config)(model, anchor, torch.randn(6, 3, 16, 16), torch.Generator().manual_seed(0))
    step.total(0.5).backward()  # type: ignore[no-untyped-call]
    unused = "projector." if config.train.recipe == "mae" else "masked."
    silent = [n for n, p in model.named_parameters() if p.grad is None and not n.startswith(unused)]
    assert silent == []
    assert all(p.grad is None for p in anchor.parameters())


def test_a_few_steps_on_one_batch_lower_every_loss() -> None:
    for changes in ({}, MASKED_VIT):
        config = tiny(**changes)
        model, recipe = build_model(config), build_recipe(config)
        x = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        values = []
        for _ in range(30):
            optimiser.zero_grad()
            loss = recipe(model, None, x, torch.Generator().manual_seed(0)).ssl
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            values.append(float(loss.detach()))
        assert values[-1] < 0.9 * values[0]
