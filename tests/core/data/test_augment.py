"""Views of rasters: what each change does, on any number of bands, and what the seed decides."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedsense_core.config import Config, DataSection
from fedsense_core.data.batches.augment import Augmentation, augment, crop_matrices
from fedsense_core.ssl.views import contrastive_policy, geometric_policy

SCRIPT = Path(__file__).parents[3] / "docs" / "experiments" / "augmentations.py"
STILL = Augmentation(
    32, min_scale=1, flips=False, turns=False, image_gain=0, band_gain=0, image_offset=0, band_offset=0, grey=0
)
ALONE = {
    "crop": replace(STILL, min_scale=0.3),
    "flip": replace(STILL, flips=True),
    "turn": replace(STILL, turns=True),
    "image gain": replace(STILL, image_gain=0.4),
    "band gain": replace(STILL, band_gain=0.3),
    "image offset": replace(STILL, image_offset=0.4),
    "band offset": replace(STILL, band_offset=0.2),
    "grey": replace(STILL, grey=0.5),
    "blur": replace(STILL, blur=0.5),
    "noise": replace(STILL, noise=0.5),
    "drop_bands": replace(STILL, drop_bands=0.5),
    "all": Augmentation(24, grey=0.5, blur=0.5, noise=0.5, drop_bands=0.5),
}
"""One change each, then all of them."""
COLOURLESS = ("grey", "drop_bands")
"""Changes that need two bands to change anything."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chips(n: int = 8, bands: int = 3, size: int = 32) -> Tensor:
    return torch.randn(n, bands, size, size, generator=seeded(7))


def turned(x: Tensor) -> list[Tensor]:
    """Return the eight symmetries of the square."""
    return [torch.rot90(y, k, (-2, -1)) for y in (x, x.flip(-1)) for k in range(4)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bands", range(1, 14))
@pytest.mark.parametrize("name", ALONE)
def test_each_change_gives_finite_views_that_the_seed_alone_decides(name: str, bands: int, dtype: torch.dtype) -> None:
    policy, x = ALONE[name], chips(bands=bands).to(dtype)
    before = x.clone()
    view = augment(x, policy, seeded(1))
    assert torch.equal(x, before)
    assert view.shape == (8, bands, policy.size, policy.size)
    assert view.dtype == dtype
    assert torch.isfinite(view).all()
    assert torch.equal(view, augment(x, policy, seeded(1)))
    if name in COLOURLESS and bands == 1:
        assert torch.equal(view, x)
    else:
        assert not torch.equal(view, augment(x, policy, seeded(2)))
    assert augment(x[:1], policy, seeded(1)).shape == view[:1].shape


@pytest.mark.parametrize("size", [16, 48])
def test_views_have_the_asked_size_whatever_the_chip(size: int) -> None:
    assert augment(chips(), Augmentation(size), seeded()).shape == (8, 3, size, size)


@pytest.mark.parametrize("name", ALONE)
def test_a_second_look_from_the_same_state_is_the_same_view(name: str) -> None:
    generator = seeded(4)
    augment(chips(), ALONE["all"], generator)
    state = generator.get_state()
    first, after = augment(chips(), ALONE[name], generator), generator.get_state()
    generator.set_state(state)
    assert torch.equal(augment(chips(), ALONE[name], generator), first)
    assert torch.equal(generator.get_state(), after)


@pytest.mark.parametrize("name", ALONE)
def test_a_view_does_not_depend_on_the_other_images(name: str) -> None:
    x = chips()
    others = torch.cat([x[:1], 100 + 3 * x[1:].flip(0)])
    assert torch.equal(augment(x, ALONE[name], seeded())[0], augment(others, ALONE[name], seeded())[0])


@pytest.mark.parametrize("name", ALONE)
def test_mixed_precision_around_it_changes_no_view(name: str) -> None:
    alone = augment(chips(), ALONE[name], seeded())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(chips(), ALONE[name], seeded()), alone)


def test_options_that_are_off_draw_nothing_and_views_of_today_s_runs_stay_as_they_are() -> None:
    generator = seeded(5)
    x = torch.arange(2 * 3 * 64 * 64).remainder(17).float().reshape(2, 3, 64, 64) / 8 - 1
    view = augment(x, contrastive_policy(Config()), generator)
    pixels = [[-0.25727782, -0.1506175, -0.44171742], [0.17797571, -0.05193698, -0.0539611587]]
    torch.testing.assert_close(view[:, :, 10, 20], torch.tensor(pixels), atol=1e-4, rtol=0)
    assert torch.randint(2**31, (2,), generator=generator).tolist() == [101684586, 2113708009]


def test_without_any_change_the_view_is_the_chip() -> None:
    assert torch.equal(augment(chips(), STILL, seeded()), chips())


@pytest.mark.parametrize("bands", range(1, 14))
def test_flips_and_turns_move_pixels_and_change_none(bands: int) -> None:
    x = chips(n=1, bands=bands, size=8)
    views = augment(x.expand(60, -1, -1, -1), replace(STILL, size=8, flips=True, turns=True), seeded())
    seen = [[k for k, y in enumerate(turned(x[0])) if torch.equal(y, view)] for view in views]
    assert {tuple(k) for k in seen} == {(k,) for k in range(8)}


def test_crops_commute_with_any_order_of_the_bands() -> None:
    x, order = chips(bands=13), torch.randperm(13, generator=seeded(3))
    policy = replace(ALONE["crop"], flips=True, turns=True)
    assert torch.equal(augment(x[:, order], policy, seeded()), augment(x, policy, seeded())[:, order])


def test_crops_stay_inside_the_chip_and_have_the_asked_areas() -> None:
    maps = crop_matrices(5000, Augmentation(16, min_scale=0.25, max_scale=0.5), seeded())
    area = maps[:, :, :2].det().abs()
    reach = maps[:, :, :2].abs().sum(2) + maps[:, :, 2].abs()
    assert 0.25 - 1e-5 <= area.min() < 0.26
    assert 0.49 < area.max() <= 0.5 + 1e-5
    assert 0.99 < reach.max() <= 1 + 1e-5


def test_crops_look_where_their_matrices_say() -> None:
    ramp = torch.linspace(-1, 1, 65)[:-1] + 1 / 64  # the coordinate of each pixel's centre
    x = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64)]).expand(8, 2, 64, 64)
    view = augment(x, replace(ALONE["crop"], size=48, flips=True, turns=True), seeded())
    maps = crop_matrices(8, replace(ALONE["crop"], flips=True, turns=True), seeded())
    expected = F.affine_grid(maps, [8, 2, 48, 48], align_corners=False).permute(0, 3, 1, 2)
    torch.testing.assert_close(view, expected.clamp(-1 + 1 / 64, 1 - 1 / 64), atol=1e-4, rtol=0)


def test_coarser_pixels_are_means_over_their_footprint() -> None:
    x = chips(size=64)
    assert torch.equal(augment(x, replace(STILL, size=16), seeded()), F.avg_pool2d(x, 4))
    stripes = torch.tensor([1.0, -1.0]).repeat(64).expand(8, 1, 128, 128)
    assert augment(stripes, replace(ALONE["crop"], size=24), seeded()).abs().mean() < 0.15


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


@pytest.mark.parametrize("kind", ["gain", "offset"])
def test_changes_of_an_image_are_shared_by_its_bands_and_those_of_a_band_are_not(kind: str) -> None:
    x = torch.ones(8, 13, 32, 32)
    shared = augment(x, ALONE[f"image {kind}"], seeded())
    assert torch.equal(shared, shared[:, :1].expand_as(shared))
    own = augment(x, ALONE[f"band {kind}"], seeded())[:, :, 0, 0]
    assert len(set(own.flatten().tolist())) > 100  # of 104


def test_blur_is_a_low_pass_that_leaves_constants_and_removes_the_finest_stripes() -> None:
    blur = replace(STILL, blur=1.0)
    constant = torch.full((2, 3, 32, 32), 1.5)
    assert torch.equal(augment(constant, blur, seeded()), constant)
    impulse = F.one_hot(torch.tensor([16 * 32 + 16]), 32 * 32).float().reshape(1, 1, 32, 32)
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    assert torch.equal(augment(impulse, blur, seeded())[0, 0, 14:19, 14:19], torch.outer(line, line))
    stripes = torch.tensor([1.0, -1.0]).repeat(16).expand(1, 2, 32, 32)
    assert augment(stripes, blur, seeded())[..., 2:-2].abs().max() == 0


@pytest.mark.parametrize("bands", [1, 2, 13])
@pytest.mark.parametrize("name", ["grey", "blur", "drop_bands"])
def test_a_probability_chooses_whole_images_and_leaves_the_others_exactly(name: str, bands: int) -> None:
    x = chips(n=400, bands=bands, size=8)
    view = augment(x, replace(ALONE[name], size=8), seeded())
    share = (view != x).flatten(1).any(1).float().mean()
    assert share == 0 if bands == 1 and name in COLOURLESS else 0.4 < share < 0.6


def test_noise_is_white_and_each_image_has_its_own_deviation() -> None:
    x = chips(n=200, bands=4)
    noise = augment(x, replace(STILL, noise=0.5), seeded()) - x
    deviation = noise.flatten(1).std(1)
    assert deviation.max() < 0.52
    assert 0.2 < deviation.mean() < 0.3
    assert deviation.min() < 0.03
    unit = noise / deviation[:, None, None, None]
    for neighbour in (unit.roll(1, 3), unit.roll(1, 2), unit.roll(1, 1), unit.roll(1, 0)):
        assert (unit * neighbour).mean().abs() < 0.01
    assert unit.mean().abs() < 0.01


def test_what_is_drawn_after_noise_does_not_depend_on_how_much_of_it_there_was() -> None:
    """So nothing on the CPU depends on what another device draws."""
    small, large = seeded(), seeded()
    augment(chips(), replace(STILL, size=8, noise=0.3), small)
    augment(chips(), replace(STILL, size=32, noise=0.3), large)
    assert torch.equal(small.get_state(), large.get_state())


@pytest.mark.parametrize("bands", range(2, 14))
def test_dropped_bands_are_zero_and_neither_none_nor_all_of_them(bands: int) -> None:
    x = chips(n=300, bands=bands, size=4)
    policy = replace(STILL, size=4, drop_bands=1.0)
    view = augment(x, policy, seeded())
    dropped = (view == 0).flatten(2).all(2)
    assert torch.equal(view, x.masked_fill(dropped[:, :, None, None], 0))
    assert set(dropped.sum(1).tolist()) == set(range(1, bands))
    assert dropped.float().mean(0).sub(0.5).abs().max() < 0.15  # no band is preferred
    noisy = augment(x, replace(policy, noise=1.0, band_offset=1.0, blur=0.5), seeded())
    assert (noisy == 0).flatten(2).all(2).sum(1).min() >= 1


def test_settings_reach_contrastive_views_and_leave_the_imagery_of_masked_ones_alone() -> None:
    data = DataSection(blur=0.25, noise=0.5, drop_bands=0.75, jitter=100.0)
    policy = contrastive_policy(Config(data=data))
    assert (policy.blur, policy.noise, policy.drop_bands) == (0.25, 0.5, 0.75)
    assert max(policy.image_gain, policy.band_gain) <= 1  # a larger one could turn an image into its negative
    x = chips(size=48, bands=4)
    geometric = replace(geometric_policy(Config(data=data)), min_scale=1.0)
    for chip, view in zip(x, augment(x, geometric, seeded()), strict=True):
        assert any(torch.equal(view, y) for y in turned(chip))


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"min_scale": 0},
        {"min_scale": 0.9, "max_scale": 0.5},
        {"max_scale": 2},
        {"grey": 1.5},
        {"blur": -0.1},
        {"drop_bands": float("nan")},
    ],
)
def test_an_impossible_policy_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Augmentation needs"):
        Augmentation(**({"size": 32} | wrong))  # type: ignore[arg-type]


def test_chips_that_are_not_square_are_refused_since_turns_would_stretch_them() -> None:
    with pytest.raises(ValueError, match=r"square chips .* not \(8, 3, 32, 16\)"):
        augment(chips()[..., :16], STILL, seeded())


def test_the_picture_of_the_docs_is_drawn_from_the_sample_and_the_same_each_time(tmp_path: Path) -> None:
    script = runpy.run_path(str(SCRIPT))
    rows = [script["pictures"](example, script["SEED"] + n) for n, example in enumerate(script["EXAMPLES"])]
    again = script["pictures"](script["EXAMPLES"][0], script["SEED"])
    assert all((a == b).all() for a, b in zip(rows[0], again, strict=True))
    script["draw"](rows, tmp_path / "drawn.png")
    drawn = (tmp_path / "drawn.png").read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert len(drawn) < 500_000


@pytest.mark.gpu
def test_the_same_seed_gives_the_same_views_on_cuda_and_noise_drawn_there() -> None:
    policy = Augmentation(48, blur=0.5, drop_bands=0.5)
    on_cpu = augment(chips(), policy, seeded())
    on_gpu = augment(chips().cuda(), policy, seeded())
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-3, rtol=1e-3)
    noisy, here, there = replace(policy, noise=0.1), seeded(), seeded()
    first = augment(chips().cuda(), noisy, there)
    augment(chips(), noisy, here)
    assert torch.equal(there.get_state(), here.get_state())
    assert torch.equal(first, augment(chips().cuda(), noisy, seeded()))
    assert 0 < (first - on_gpu).abs().mean() < 0.5
