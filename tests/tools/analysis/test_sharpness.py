"""Sharpness is exact on quadratics, and noise is relative to each tensor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fedsense_core.tensors import TensorTable
from fedsense_core.tools.analysis.sharpness import noise_sharpness, sam_sharpness

CURVATURE = torch.tensor([9.0, 4.0, 1.0, 0.5], dtype=torch.float64)
W = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
TABLE = TensorTable.from_shapes({"a": (1, 1), "b": (3,)})


def bowl(w: Tensor) -> float:
    return float(0.5 * (CURVATURE * w.square()).sum())


def bowl_gradient(w: Tensor) -> tuple[float, Tensor]:
    return bowl(w), CURVATURE * w


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("radius", [0.01, 0.3, 2.0])
def test_one_ascent_on_a_quadratic_rises_by_its_taylor_series(radius: float) -> None:
    slope = CURVATURE * W
    unit = slope / slope.norm()
    expected = float(radius * slope.norm() + 0.5 * radius**2 * (CURVATURE * unit.square()).sum())
    assert sam_sharpness(bowl, bowl_gradient, W, bowl_gradient(W), radius) == pytest.approx(expected)


def test_more_ascents_never_find_less_and_reach_the_maximum_on_the_sphere() -> None:
    radius, start = 2.0, torch.tensor([0.01, 0.1, 1.0, 1.0], dtype=torch.float64)
    found = [sam_sharpness(bowl, bowl_gradient, start, bowl_gradient(start), radius, n) for n in (1, 2, 5, 50)]
    assert found == sorted(found)
    # The true maximum solves (λ - A) e = A w with ‖e‖ = ρ: bisection on λ above the largest
    # curvature.
    low, high = 9.0, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        e = CURVATURE * start / (middle - CURVATURE)
        low, high = (middle, high) if e.norm() > radius else (low, middle)
    assert found[-1] == pytest.approx(bowl(start + e) - bowl(start), rel=1e-6)


def test_where_there_is_no_slope_the_ascent_stays() -> None:
    nowhere = torch.zeros(4, dtype=torch.float64)
    assert sam_sharpness(bowl, bowl_gradient, nowhere, bowl_gradient(nowhere), 1.0, 3) == 0


def test_noise_sees_no_slope() -> None:
    found = noise_sharpness(lambda w: float(w @ W), W, float(W @ W), TABLE, 0.1, 3, noise())
    assert (found.mean, found.standard_error) == pytest.approx((0, 0), abs=1e-12)


def test_noise_on_a_quadratic_rises_by_half_the_trace_of_each_tensor_scaled_by_its_norm() -> None:
    sigma = 0.2
    sizes = torch.tensor([1.0, *[(4 + 0.25 + 9) / 3] * 3], dtype=torch.float64)  # ‖w_l‖² / n_l
    expected = float(0.5 * sigma**2 * (CURVATURE * sizes).sum())
    found = noise_sharpness(bowl, W, bowl(W), TABLE, sigma, 400, noise())
    assert found.standard_error < 0.1 * expected
    assert abs(found.mean - expected) < 4 * found.standard_error


def test_the_scale_of_a_tensor_whose_scale_means_nothing_does_not_count() -> None:
    def normalised(w: Tensor) -> float:
        return float((CURVATURE[1:] * (w[1:] / w[1:].norm()).square()).sum() + w[0] ** 2)

    large = W * torch.tensor([1.0, 50.0, 50.0, 50.0], dtype=torch.float64)
    one, other = (noise_sharpness(normalised, w, normalised(w), TABLE, 0.1, 5, noise(3)) for w in (W, large))
    assert one.mean == pytest.approx(other.mean)
    assert one.mean != 0
