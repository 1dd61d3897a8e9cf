"""One model and batches of other bands in turn: subsets, and losses that fall on all of them."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from typing import Any

import pytest
import torch
from federation import MASKED_CONV, MASKED_VIT, tiny

from fedsense_core.data.batches.batch import Batch, drop_band_subset
from fedsense_core.data.sites.sensors import Band, shipped_card
from fedsense_core.models.pretraining import build_model
from fedsense_core.ssl.recipe import build_recipe

SEVEN = tuple(shipped_card("landsat8-l2", "test").bands)
RADAR = (Band(name="vv", polarisation="VV"), Band(name="vh", polarisation="VH"))
RECIPES: dict[str, dict[str, Any]] = {
    "simclr": {},
    "byol": {"train__recipe": "byol"},
    "lejepa": {"train__recipe": "lejepa"},
    "mae-vit": MASKED_VIT,
    "mae-conv": MASKED_CONV,
}


def chips(bands: tuple[Band, ...], n: int = 6, side: int = 16, seed: int = 0) -> Batch:
    """Return textures that differ from chip to chip and lie in all bands, some noise apart."""
    generator = torch.Generator().manual_seed(seed)
    waves = torch.randn(n, 2, generator=generator)[:, :, None, None]
    row, column = torch.meshgrid(torch.arange(side) / 3, torch.arange(side) / 3, indexing="ij")
    texture = torch.sin(waves[:, 0] * row + waves[:, 1] * column)[:, None]
    return Batch(texture + 0.1 * torch.randn(n, len(bands), side, side, generator=generator), bands)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_subset_keeps_bands_with_their_pixels_in_their_order() -> None:
    batch = chips(SEVEN)
    drawn = generator()
    for _ in range(50):
        shown = drop_band_subset(batch, 1.0, drawn)
        places = [SEVEN.index(band) for band in shown.bands]
        assert places == sorted(set(places))
        assert places
        assert torch.equal(shown.pixels, batch.pixels[:, places])


def test_every_subset_is_as_likely_as_every_other() -> None:
    batch, drawn, times = Batch(torch.zeros(1, 3, 1, 1), SEVEN[:3]), generator(), 3500
    seen = Counter(drop_band_subset(batch, 1.0, drawn).bands for _ in range(times))
    assert len(seen) == 7
    assert all(abs(count - times / 7) < 4 * (times * 6 / 49) ** 0.5 for count in seen.values())
    kept = sum(drop_band_subset(batch, 0.35, drawn) is batch for _ in range(times))
    assert abs(kept / times - 0.65) < 0.04


def test_nothing_is_dropped_from_one_band_or_without_probability() -> None:
    one, seven = chips(SEVEN[:1]), chips(SEVEN)
    assert drop_band_subset(one, 1.0, generator()) is one
    assert drop_band_subset(seven, 0.0, generator()) is seven


@pytest.mark.parametrize("name", RECIPES)
def test_batch_and_its_bare_pixels_are_the_same_to_a_model_of_fixed_bands(name: str) -> None:
    config = tiny(**RECIPES[name])
    batch = chips(SEVEN[1:4], side=config.data.chip_size)
    model, recipe = build_model(config), build_recipe(config)
    assert recipe.band_subset == 0
    a, b = (recipe(model, None, given, generator(), model).ssl for given in (batch, batch.pixels))
    assert torch.equal(a, b)


@pytest.mark.parametrize("name", RECIPES)
def test_anchor_and_teacher_see_the_bands_that_the_model_sees(name: str) -> None:
    config = tiny(**RECIPES[name], data__bands="all", train__band_subset=1.0)
    model, recipe = build_model(config), build_recipe(config)
    anchor, teacher = (deepcopy(model).requires_grad_(False) for _ in range(2))
    for seed, bands in enumerate((SEVEN, RADAR, SEVEN)):
        step = recipe(model, anchor, chips(bands), generator(seed), teacher)
        assert float(step.alignment.detach()) == pytest.approx(0, abs=1e-6)
        assert float(step.ssl.detach()) > 0


def test_bare_pixels_need_a_model_that_was_told_its_bands() -> None:
    config = tiny(data__bands="all")
    model, recipe = build_model(config), build_recipe(config)
    with pytest.raises(ValueError, match="call read_bands"):
        recipe(model, None, chips(RADAR).pixels, generator())
    model.read_bands(RADAR)
    assert recipe(model, None, chips(RADAR).pixels, generator()).ssl.isfinite()


@pytest.mark.parametrize("name", ["simclr", "mae-vit", "mae-conv"])
def test_steps_on_two_sensors_in_turn_lower_the_loss_on_both(name: str) -> None:
    config = tiny(**RECIPES[name], data__bands="all", train__band_subset=0.0)
    model, recipe = build_model(config), build_recipe(config)
    batches = chips(SEVEN), chips(RADAR, seed=1)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)

    def losses() -> list[float]:
        with torch.no_grad():
            return [sum(float(recipe(model, None, batch, generator(s)).ssl) for s in (0, 1)) for batch in batches]

    before = losses()
    for step in range(40):
        optimiser.zero_grad()
        recipe(model, None, batches[step % 2], generator(step // 2 % 2)).ssl.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert all(after < 0.9 * start for after, start in zip(losses(), before, strict=True))
