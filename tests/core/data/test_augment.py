from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedsense_core.data import Augmentation, augment
from fedsense_core.data.augment import crop_matrices

STILL = Augmentation(
    32, min_scale=1, flips=False, turns=False, image_gain=0, band_gain=0, image_offset=0, band_offset=0, grey=0
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chips(n: int = 8, bands: int = 3, size: int = 32) -> Tensor:
    return torch.randn(n, bands, size, size, generator=seeded(7))


@pytest.mark.parametrize("bands", range(1, 14))
@pytest.mark.parametrize("size", [16, 48])
def test_views_are_finite_of_the_asked_size_and_the_seed_decides_them(bands: int, size: int) -> None:
    policy = Augmentation(size, blur=0.5, noise=0.1)
    x = chips(bands=bands)
    view = augment(x, policy, seeded(1))
    assert view.shape == (8, bands, size, size)
    assert view.dtype == x.dtype
    assert torch.isfinite(view).all()
    assert torch.equal(view, augment(x, policy, seeded(1)))
    assert not torch.equal(view, augment(x, policy, seeded(2)))


def test_the_input_is_left_alone() -> None:
    x = chips()
    before = x.clone()
    augment(x, Augmentation(32, blur=1.0, noise=1.0), seeded())
    assert torch.equal(x, before)


def test_without_any_change_the_view_is_the_chip() -> None:
    x = chips()
    torch.testing.assert_close(augment(x, STILL, seeded()), x)


def test_flips_and_turns_give_exactly_the_eight_symmetries_of_the_square() -> None:
    x = chips(n=1).expand(200, -1, -1, -1)
    views = augment(x, replace(STILL, flips=True, turns=True), seeded())
    turned = [torch.rot90(y, k, (1, 2)) for y in (x[0], x[0].flip(2)) for k in range(4)]
    seen = [min(range(8), key=lambda k, v=view: float((v - turned[k]).abs().max())) for view in views]
    assert set(seen) == set(range(8))
    for view, k in zip(views, seen, strict=True):
        torch.testing.assert_close(view, turned[k], atol=1e-5, rtol=0)


def test_crops_stay_inside_the_chip_and_have_the_asked_areas() -> None:
    maps = crop_matrices(5000, Augmentation(16, min_scale=0.25, max_scale=0.5), seeded())
    area = maps[:, :, :2].det().abs()
    reach = maps[:, :, :2].abs().sum(2) + maps[:, :, 2].abs()
    assert 0.25 - 1e-5 <= area.min() < 0.26
    assert 0.49 < area.max() <= 0.5 + 1e-5
    assert 0.99 < reach.max() <= 1 + 1e-5


def test_grey_gives_every_band_the_mean_and_keeps_their_number() -> None:
    x = chips(bands=5)
    view = augment(x, replace(STILL, grey=1.0), seeded())
    torch.testing.assert_close(view, x.mean(1, keepdim=True).expand_as(x))


def test_gains_and_offsets_are_linear_within_each_band() -> None:
    x = chips()
    view = augment(x, replace(STILL, image_gain=0.4, band_gain=0.3, image_offset=0.4, band_offset=0.2), seeded())
    gain = (view - view.mean((2, 3), keepdim=True)) / (x - x.mean((2, 3), keepdim=True))
    spread = gain.flatten(2).quantile(0.9, dim=2) - gain.flatten(2).quantile(0.1, dim=2)
    assert spread.max() < 1e-3
    middle = gain.flatten(2).median(2).values
    assert 0.6 * 0.7 <= middle.min() < middle.max() <= 1.4 * 1.3


def test_blur_lowers_contrast_and_keeps_the_mean_of_a_constant() -> None:
    blur = replace(STILL, blur=1.0)
    assert augment(chips(), blur, seeded()).std() < 0.5 * chips().std()
    constant = torch.full((2, 3, 32, 32), 1.5)
    torch.testing.assert_close(augment(constant, blur, seeded()), constant)


def test_double_precision_stays_double() -> None:
    assert augment(chips().double(), Augmentation(16), seeded()).dtype == torch.float64


@pytest.mark.parametrize(
    "wrong", [{"size": 0}, {"min_scale": 0}, {"min_scale": 0.9, "max_scale": 0.5}, {"max_scale": 2}]
)
def test_an_impossible_policy_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Augmentation needs"):
        Augmentation(**({"size": 32} | wrong))  # type: ignore[arg-type]


@pytest.mark.gpu
def test_the_same_seed_gives_the_same_views_on_cuda() -> None:
    policy = Augmentation(48, blur=0.5, noise=0.1)
    on_cpu = augment(chips(), policy, seeded())
    on_gpu = augment(chips().cuda(), policy, seeded())
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-3, rtol=1e-3)
