"""Extreme eigenvalues are exact on matrices whose spectrum is known, whatever their signs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fedsense_core.tools.analysis.curvature import extreme_eigenvalues

BULK = torch.linspace(-0.5, 0.5, 57)


def matrix(*outer: float) -> tuple[Tensor, Tensor]:
    """Return a symmetric matrix with the eigenvalues ``outer`` beside a bulk near 0, and a random
    start."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.cat([torch.tensor(outer), BULK]).double()
    n = len(spectrum)
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return q @ torch.diag(spectrum) @ q.T, torch.randn(n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("outer", [(20.0, 9.0, -15.0), (5.0, -100.0), (-100.0, 3.0, -99.0), (4.0, -4.0)])
def test_both_ends_are_found_whatever_their_signs(outer: tuple[float, ...]) -> None:
    h, start = matrix(*outer)
    found = extreme_eigenvalues(lambda v: h @ v, start, tolerance=1e-4, steps=60)
    assert found.largest.value == pytest.approx(max(outer), rel=1e-6)
    assert found.smallest.value == pytest.approx(min(outer), rel=1e-6)
    assert abs(found.dominant.value) == pytest.approx(max(map(abs, outer)), rel=1e-6)
    assert found.largest.converged
    assert found.smallest.converged


def test_enough_steps_give_the_spectrum_of_the_whole_space() -> None:
    h, start = matrix(-7.0)
    found = extreme_eigenvalues(lambda v: h @ v, start, tolerance=1e-9, steps=58)
    assert (found.smallest.value, found.largest.value) == pytest.approx((-7, 0.5))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_an_eigenvalue_lies_within_the_residual_however_early_the_search_ends(steps: int) -> None:
    h, start = matrix(20.0, 19.5, -30.0)
    found = extreme_eigenvalues(lambda v: h @ v, start, tolerance=0.0, steps=steps)
    assert found.products == steps
    for end in (found.largest, found.smallest):
        assert not end.converged
        assert (torch.linalg.eigvalsh(h) - end.value).abs().min() <= end.residual


def test_products_are_counted_and_end_at_the_tolerance() -> None:
    calls: list[Tensor] = []
    h, start = matrix(20.0, -20.0)

    def product(v: Tensor) -> Tensor:
        calls.append(v)
        return h @ v

    found = extreme_eigenvalues(product, start, tolerance=0.01, steps=50)
    assert found.products == len(calls) < 15
    assert found.largest.residual <= 0.01 * 20
    assert all(float(v.norm()) == pytest.approx(1) for v in calls)


def test_float32_finds_the_ends_of_a_space_of_many_dimensions() -> None:
    spectrum = torch.linspace(0, 1, 20000)
    spectrum[:5] = torch.tensor([300.0, 200.0, 50.0, -5.0, -4.0])
    found = extreme_eigenvalues(
        lambda v: spectrum * v, torch.randn(20000, generator=torch.Generator().manual_seed(0)), tolerance=0.01, steps=80
    )
    assert (found.largest.value, found.smallest.value) == pytest.approx((300, -5), rel=1e-3)


def test_a_random_start_in_a_flat_space_is_not_taken_for_its_end() -> None:
    # In many dimensions noise has nearly no curvature and nearly no residual: both small beside the
    # other end.
    spectrum = torch.zeros(4000)
    spectrum[:3] = torch.tensor([1000.0, -10.0, -5.0])
    found = extreme_eigenvalues(
        lambda v: spectrum * v, torch.randn(4000, generator=torch.Generator().manual_seed(0)), tolerance=0.1, steps=30
    )
    assert found.largest.value == pytest.approx(1000, rel=0.01)
    assert found.smallest.value == pytest.approx(-10, rel=0.01)


def test_a_loss_without_curvature_has_none() -> None:
    found = extreme_eigenvalues(torch.zeros_like, torch.ones(5), tolerance=0.01, steps=9)
    assert (found.largest.value, found.smallest.value, found.products) == (0, 0, 1)


def test_a_loss_without_a_second_derivative_gives_no_number() -> None:
    found = extreme_eigenvalues(lambda v: v * float("nan"), torch.ones(5), tolerance=0.01, steps=9)
    assert math.isnan(found.largest.value)
    assert math.isnan(found.smallest.residual)
    assert not found.largest.converged
    assert found.products == 1


def test_double_backward_gives_the_hessian_of_a_loss() -> None:
    h, start = matrix(6.0, -2.0)

    def hessian_product(loss: Callable[[Tensor], Tensor], w: Tensor) -> Callable[[Tensor], Tensor]:
        def product(v: Tensor) -> Tensor:
            at = w.clone().requires_grad_()
            (slope,) = torch.autograd.grad(loss(at), at, create_graph=True)
            return torch.autograd.grad(slope @ v, at)[0]

        return product

    product = hessian_product(lambda w: 0.5 * w @ h @ w + w.sum(), start)
    found = extreme_eigenvalues(product, start, tolerance=1e-6, steps=60)
    assert (found.largest.value, found.smallest.value) == pytest.approx((6, -2))
