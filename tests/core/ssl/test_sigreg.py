"""SIGReg and the loss of LeJEPA: integrals in closed form, sums that add up, and shapes that are
not Gaussian."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from federation import tiny
from torch import Tensor

from fedsense_core.data.batches.augment import augment
from fedsense_core.models.pretraining import build_model
from fedsense_core.ssl.lejepa import lejepa_distance
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.ssl.sigreg import random_directions, sigreg, sigreg_from, sigreg_statistics

ONE = torch.ones(1, 1, dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian_integral(rate: float, reach: float = 3.0) -> float:
    """Return the integral of exp(-rate t²) from -reach to reach."""
    return math.sqrt(math.pi / rate) * math.erf(reach * math.sqrt(rate))


def test_one_sample_at_zero_is_an_integral_in_closed_form() -> None:
    # Its characteristic function is 1 everywhere: φ (1 - φ)² = φ - 2 φ² + φ³ with φ = exp(-t²/2).
    expected = gaussian_integral(0.5) - 2 * gaussian_integral(1.0) + gaussian_integral(1.5)
    assert float(sigreg(torch.zeros(1, 1, dtype=torch.float64), ONE)) == pytest.approx(expected, rel=2e-3)


def test_two_samples_worked_by_hand_knot_by_knot() -> None:
    z = [0.5, -2.0]
    expected = 0.0
    for j in range(17):
        t = 3 * j / 16
        phi = math.exp(-t * t / 2)
        cosine, sine = (math.cos(t * z[0]) + math.cos(t * z[1])) / 2, (math.sin(t * z[0]) + math.sin(t * z[1])) / 2
        trapezoid = 3 / 16 if j in (0, 16) else 3 / 8
        expected += 2 * trapezoid * phi * ((cosine - phi) ** 2 + sine**2)
    loss = float(sigreg(torch.tensor(z, dtype=torch.float64)[:, None], ONE))
    assert loss == pytest.approx(expected, rel=1e-12)


def test_directions_are_looked_along_and_averaged() -> None:
    z = torch.randn(5, 2, generator=generator(), dtype=torch.float64)
    along = [float(sigreg(z[:, [axis]], ONE)) for axis in (0, 1)]
    assert float(sigreg(z, torch.eye(2))) == pytest.approx(sum(along) / 2, rel=1e-12)


def test_gaussian_samples_give_the_same_small_value_whatever_their_number() -> None:
    # Expected: the integral of φ (1 - φ²), the variance of a mean of N samples times N.
    expected = gaussian_integral(0.5) - gaussian_integral(1.5)
    drawn, directions = generator(), random_directions(32, 8, generator(1))
    for n in (16, 128):
        losses = [float(sigreg(torch.randn(n, 8, generator=drawn), directions)) for _ in range(300)]
        assert sum(losses) / 300 == pytest.approx(expected, rel=0.08)  # deviation of the mean: 0.02


NOT_GAUSSIAN: dict[str, Tensor] = {
    "collapsed": torch.zeros(512, 2),
    "two points": torch.randn(512, 2, generator=generator()).sign(),
    "uniform": (torch.rand(512, 2, generator=generator()) - 0.5) * math.sqrt(12),
    "skewed": -(1 - torch.rand(512, 2, generator=generator())).log() - 1,
    "shifted": torch.randn(512, 2, generator=generator()) + 0.3,
    "wide": 1.5 * torch.randn(512, 2, generator=generator()),
    "flat": torch.randn(512, 1, generator=generator()).expand(512, 2),
}
"""Mean 0 and deviation 1 on each axis, but for what the name says."""


@pytest.mark.parametrize("name", NOT_GAUSSIAN)
def test_any_other_distribution_stands_out_and_more_so_with_more_samples(name: str) -> None:
    z, directions = NOT_GAUSSIAN[name], random_directions(64, 2, generator(1))
    normal = float(sigreg(torch.randn(512, 2, generator=generator(3)), directions))
    whole, quarter = float(sigreg(z, directions)), float(sigreg(z[:128], directions))
    assert whole > 2 * normal
    assert whole > quarter


def test_statistics_of_two_halves_add_up_to_those_of_the_whole() -> None:
    z = 2 * torch.randn(30, 4, generator=generator(), dtype=torch.float64) + 1
    directions = random_directions(7, 4, generator(1))
    parts = sigreg_statistics(z[:11], directions) + sigreg_statistics(z[11:], directions)
    assert parts.count == 30
    assert float(sigreg_from(parts)) == pytest.approx(float(sigreg(z, directions)), rel=1e-14)
    apart = [float(sigreg(half, directions)) for half in (z[:11], z[11:])]
    assert float(sigreg_from(parts)) != pytest.approx(sum(apart) / 2, rel=0.01)


def test_directions_are_unit_vectors_that_the_generator_names() -> None:
    drawn = random_directions(50, 3, generator())
    assert torch.allclose(drawn.norm(dim=1), torch.ones(50))
    assert torch.equal(drawn, random_directions(50, 3, generator()))
    assert not torch.equal(drawn, random_directions(50, 3, generator(1)))


def test_lejepa_distance_worked_by_hand() -> None:
    # Two views of one chip, two coordinates: each is 1 from its mean along the first, 0 along the
    # second.
    z = torch.tensor([[[1.0, 4.0]], [[3.0, 4.0]]], dtype=torch.float64)
    directions = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    along = partial(sigreg, directions_MD=directions)
    shape = (float(sigreg(z[0], directions)) + float(sigreg(z[1], directions))) / 2
    assert float(lejepa_distance(z, along, 0.25)) == pytest.approx(0.75 * 0.5 + 0.25 * shape, rel=1e-12)
    assert float(lejepa_distance(z, along, 0.0)) == pytest.approx(0.5, rel=1e-12)


def test_lejepa_distance_looks_at_lengths() -> None:
    z = torch.randn(2, 64, 4, generator=generator())
    along = partial(sigreg, directions_MD=random_directions(32, 4, generator(1)))
    assert float(lejepa_distance(3 * z, along, 0.0)) == pytest.approx(9 * float(lejepa_distance(z, along, 0)))


def test_lejepa_looks_at_as_many_views_and_directions_as_configured() -> None:
    config = tiny(train__recipe="lejepa", train__views=3, train__sigreg_directions=5, train__sigreg_weight=0.3)
    model, recipe, x = build_model(config), build_recipe(config), torch.randn(4, 3, 16, 16, generator=generator())
    drawn = generator(1)
    with torch.no_grad():
        loss = recipe(model, None, x, generator(1)).ssl
        views = [augment(x, recipe.policy, drawn) for _ in range(3)]
        z = torch.stack([model.project(view) for view in views])
    expected = lejepa_distance(z, partial(sigreg, directions_MD=random_directions(5, 16, drawn)), 0.3)
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def test_steps_on_sigreg_alone_turn_any_cloud_into_a_gaussian_one() -> None:
    z = (0.1 * torch.rand(128, 3, generator=generator()) + 1).requires_grad_()
    optimiser, drawn = torch.optim.Adam([z], lr=0.05), generator(1)
    for _ in range(150):
        optimiser.zero_grad()
        sigreg(z, random_directions(16, 3, drawn)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    cloud = z.detach()
    assert cloud.mean(0).abs().max() < 0.1
    assert (torch.cov(cloud.T) - torch.eye(3)).abs().max() < 0.15
