"""What every recipe promises: losses worked by hand, alignment to the anchor, and steps that lower
the loss."""

from __future__ import annotations

import copy
import math
from typing import Any, get_args

import pytest
import torch
from federation import MASKED_CONV, MASKED_VIT, tiny

from fedsense_core.config import Config
from fedsense_core.data.batches.batch import Batch
from fedsense_core.data.sites.sensors import shipped_card
from fedsense_core.models.pretraining import PretrainingModel, build_model
from fedsense_core.ssl.recipe import build_recipe, recipe_class
from fedsense_core.ssl.settings import RecipeName
from fedsense_core.ssl.simclr import nt_xent
from fedsense_core.ssl.step import StepLoss
from fedsense_core.ssl.teacher import MovingTeacher

VIT = {key: value for key, value in MASKED_VIT.items() if key != "train__recipe"}
FEDX = {"alignment__kind": "cross", "alignment__weight": 1.0}
CASES: dict[str, dict[str, Any]] = {
    "simclr": {},
    "byol": {"train__recipe": "byol"},
    "lejepa": {"train__recipe": "lejepa"},
    "lejepa-vit": VIT | {"train__recipe": "lejepa", "train__views": 2},
    "byol-vit": VIT | {"train__recipe": "byol"},
    "mae-vit": MASKED_VIT,
    "mae-conv": MASKED_CONV,
    "fedx": FEDX,
    "fedx-byol": FEDX | {"train__recipe": "byol"},
}
NEAR = [name for name in CASES if not name.startswith("fedx")]
"""Those whose alignment is a distance to the anchor's representation."""


@pytest.mark.parametrize("name", get_args(RecipeName))
def test_every_name_of_the_settings_has_a_recipe_that_names_itself_so(name: str) -> None:
    recipe = build_recipe(tiny(train__recipe=name, data__view_size=64))
    assert type(recipe) is recipe_class(name)
    assert recipe.name == name


def step_of(
    config: Config,
    model: PretrainingModel,
    anchor: PretrainingModel | None,
    batch: Batch | torch.Tensor,
    seed: int = 0,
) -> StepLoss:
    """Return one step's losses; the teacher, where one is needed, is the model of another seed."""
    teacher = build_model(config, torch.Generator().manual_seed(9)).requires_grad_(False)
    return build_recipe(config)(model, anchor, batch, torch.Generator().manual_seed(seed), teacher)


def test_nt_xent_of_two_orthogonal_pairs_worked_by_hand() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    # Each of the four rows sees its partner at cosine 1 and two others at cosine 0, temperature
    # 0.5.
    expected = math.log(math.exp(2) + 2) - 2
    assert float(nt_xent(a, 2 * a, 0.5)) == pytest.approx(expected, rel=1e-6)


def test_nt_xent_falls_when_pairs_agree_and_ignores_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(8, 16, generator=generator), torch.randn(8, 16, generator=generator)
    assert nt_xent(a, a + 0.1 * b, 0.1) < nt_xent(a, b, 0.1)
    assert float(nt_xent(5 * a, b, 0.1)) == pytest.approx(float(nt_xent(a, b, 0.1)), rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_alignment_is_positive_away_from_the_anchor_and_absent_without_one(name: str) -> None:
    config = tiny(**CASES[name])
    model = build_model(config)
    other = build_model(config, torch.Generator().manual_seed(5)).requires_grad_(False)
    x = torch.randn(6, 3, config.data.chip_size, config.data.chip_size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        alone, beside = step_of(config, model, None, x), step_of(config, model, other, x)
    assert float(alone.alignment) == 0.0
    assert float(beside.alignment) > 1e-3
    assert float(alone.ssl) == float(beside.ssl)


@pytest.mark.parametrize("name", NEAR)
def test_alignment_is_zero_at_the_anchor(name: str) -> None:
    config = tiny(**CASES[name])
    model = build_model(config)
    anchor = copy.deepcopy(model).requires_grad_(False)
    step = step_of(config, model, anchor, torch.randn(4, 3, 16, 16))
    assert float(step.alignment.detach()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_every_travelling_parameter_of_the_loss_learns_and_the_anchor_does_not(name: str) -> None:
    config = tiny(**CASES[name])
    model = build_model(config)
    anchor = build_model(config, torch.Generator().manual_seed(5)).requires_grad_(False)
    step = step_of(config, model, anchor, torch.randn(6, 3, 16, 16))
    step.total(0.5).backward()  # type: ignore[no-untyped-call]
    unused = "projector." if config.train.traits.masks else "masked."
    silent = [n for n, p in model.named_parameters() if p.grad is None and not n.startswith(unused)]
    assert silent == []
    assert all(p.grad is None for p in anchor.parameters())


@pytest.mark.parametrize("name", CASES)
def test_generator_alone_decides_what_is_drawn(name: str) -> None:
    config = tiny(**CASES[name])
    model = build_model(config)
    anchor = build_model(config, torch.Generator().manual_seed(5)).requires_grad_(False)
    x = torch.randn(4, 3, config.data.chip_size, config.data.chip_size)
    global_state = torch.get_rng_state()
    with torch.no_grad():
        first, again, other = (step_of(config, model, anchor, x, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), global_state)
    assert torch.equal(first.ssl, again.ssl)
    assert torch.equal(first.alignment, again.alignment)
    assert not torch.equal(first.ssl, other.ssl)


@pytest.mark.parametrize("name", CASES)
def test_bf16_autocast_gives_about_the_same_losses_in_float32(name: str) -> None:
    config = tiny(**CASES[name], data__bands="all", train__band_subset=0.0)
    model = build_model(config)
    anchor = build_model(config, torch.Generator().manual_seed(5)).requires_grad_(False)
    bands = tuple(shipped_card("landsat8-l2", "test").bands)
    batch = Batch(torch.randn(8, len(bands), 16, 16, generator=torch.Generator().manual_seed(0)), bands)
    plain = step_of(config, model, anchor, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = step_of(config, model, anchor, batch)
    assert rounded.ssl.dtype == rounded.alignment.dtype == torch.float32
    for a, b in ((plain.ssl, rounded.ssl), (plain.alignment, rounded.alignment)):
        assert float(b.detach()) == pytest.approx(float(a.detach()), rel=0.1)
    rounded.total(1.0).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", CASES)
def test_a_few_steps_lower_every_loss(name: str, waves: torch.Tensor) -> None:
    config = tiny(**CASES[name], train__teacher_decay=0.9)
    model, recipe = build_model(config), build_recipe(config)
    anchor = build_model(config, torch.Generator().manual_seed(5)).requires_grad_(False)
    teacher = MovingTeacher(model, config.train.teacher_decay)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    values = []
    for step in range(16):
        optimiser.zero_grad()
        loss = recipe(model, anchor, waves, torch.Generator().manual_seed(step % 2), teacher.model).total(0.5)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        teacher.ema_update(model)
        values.append(float(loss.detach()))
    assert sum(values[-2:]) < 0.9 * sum(values[:2])
