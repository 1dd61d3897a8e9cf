"""Random views of a batch, for any number of bands: one affine crop, then what light and detector
change.

Shapes: B batch, C bands, H x H chip, S view size. Crops, gains, offsets and every choice are drawn
on the CPU, so a seed gives the same ones on every device. White noise alone is drawn where the
batch is, by a generator whose seed is drawn on the CPU: its values differ between kinds of device,
and nothing that is drawn later does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """How strongly views differ. Inputs are standardised, so gains and offsets are in deviations of
    the band."""

    size: int
    """Height and width S of a view, in pixels."""
    min_scale: float = 0.3
    """Smallest crop, as a fraction of the chip's area."""
    max_scale: float = 1.0
    """Largest crop, as a fraction of the chip's area."""
    flips: bool = True
    """Mirror left-right half of the time; with ``turns`` this gives all eight symmetries of the
    square."""
    turns: bool = True
    """Turn by a random multiple of 90 degrees: from above there is no up."""
    image_gain: float = 0.4
    """All bands of an image are multiplied by a number from 1 ± this."""
    band_gain: float = 0.3
    """Each band is multiplied by a number from 1 ± this."""
    image_offset: float = 0.4
    """Deviation of an offset that all bands of an image share."""
    band_offset: float = 0.2
    """Deviation of an offset of each band."""
    grey: float = 0.2
    """Probability that every band is replaced by the mean over bands: texture must do without
    colour."""
    blur: float = 0.0
    """Probability of a binomial 5 x 5 blur: softer optics, haze."""
    noise: float = 0.0
    """Largest deviation of white noise; each image draws its own from 0 to this."""
    drop_bands: float = 0.0
    """Probability that some bands of an image, never all, are 0, their mean; an image of one band
    keeps it."""

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.min_scale <= self.max_scale <= 1:
            raise ValueError(f"Augmentation needs size >= 1 and 0 < min_scale <= max_scale <= 1, not {self}")
        if not all(0 <= probability <= 1 for probability in (self.grey, self.blur, self.drop_bands)):
            raise ValueError(f"Augmentation needs grey, blur and drop_bands from 0 to 1, not {self}")


def augment(batch_BCHW: Tensor, policy: Augmentation, generator: torch.Generator) -> Tensor:
    """Return one random view (B, C, S, S) of each image, on the batch's device and in its type.

    ``generator`` must be a CPU generator; from the same state it gives the same views. Raises
    ValueError if the chips are not square.
    """
    if batch_BCHW.shape[2] != batch_BCHW.shape[3]:
        raise ValueError(f"augment needs square chips (B, C, H, H), not {tuple(batch_BCHW.shape)}")
    with torch.autocast(batch_BCHW.device.type, enabled=False):  # bf16 would round where crops look
        view = _recolour(_crop(batch_BCHW, policy, generator), policy, generator)
        if policy.blur > 0:
            _change_some(view, policy.blur, _blurred, generator)
        if policy.noise > 0:
            view = _noisy(view, policy.noise, generator)
        if policy.drop_bands > 0 and view.shape[1] > 1:  # last: a missing band has no noise either
            view = _without_bands(view, policy.drop_bands, generator)
    return view


def crop_matrices(n: int, policy: Augmentation, generator: torch.Generator) -> Tensor:
    """Return (n, 2, 3) maps from view to chip in [-1, 1] coordinates: a square window, mirrored and
    turned."""
    low, high = policy.min_scale, policy.max_scale
    side = (low + (high - low) * torch.rand(n, generator=generator)).sqrt()
    centre = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - side)[:, None]
    mirrored = _chosen(n, 0.5, generator).float() if policy.flips else torch.zeros(n)
    quarter = torch.randint(4 if policy.turns else 1, (n,), generator=generator)
    cosine, sine = torch.tensor([1.0, 0.0, -1.0, 0.0])[quarter], torch.tensor([0.0, 1.0, 0.0, -1.0])[quarter]
    sign = 1 - 2 * mirrored
    rows = [torch.stack([cosine * sign, -sine], -1), torch.stack([sine * sign, cosine], -1)]
    square = torch.stack(rows, 1) * side[:, None, None]
    return torch.cat([square, centre[:, :, None]], dim=2)


def _crop(batch_BCHW: Tensor, policy: Augmentation, generator: torch.Generator) -> Tensor:
    n, bands, side = batch_BCHW.shape[:3]
    maps = crop_matrices(n, policy, generator).to(batch_BCHW)
    # A coarser pixel is the mean over its footprint: bilinear samples about one chip pixel apart,
    # averaged.
    fine = max(1, round(side * policy.max_scale**0.5 / policy.size))
    grid = F.affine_grid(maps, [n, bands, fine * policy.size, fine * policy.size], align_corners=False)
    # Where samples are pixels, interpolation would only round them: flips and turns are then exact.
    mode = "nearest" if policy.min_scale == 1 and side == fine * policy.size else "bilinear"
    view = F.grid_sample(batch_BCHW, grid, mode=mode, padding_mode="reflection", align_corners=False)
    return F.avg_pool2d(view, fine) if fine > 1 else view


def _recolour(view: Tensor, policy: Augmentation, generator: torch.Generator) -> Tensor:
    n, bands = view.shape[:2]
    gain = _around_one((n, 1, 1, 1), policy.image_gain, generator) * _around_one(
        (n, bands, 1, 1), policy.band_gain, generator
    )
    offset = policy.image_offset * torch.randn(n, 1, 1, 1, generator=generator)
    offset = offset + policy.band_offset * torch.randn(n, bands, 1, 1, generator=generator)
    view = torch.addcmul(offset.to(view), view, gain.to(view))
    if policy.grey > 0:
        _change_some(view, policy.grey, lambda chosen: chosen.mean(1, keepdim=True), generator)
    return view


def _noisy(view: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    deviation = largest * torch.rand(len(view), 1, 1, 1, generator=generator)
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    noise = torch.empty_like(view).normal_(generator=torch.Generator(view.device).manual_seed(seed))
    return torch.addcmul(view, deviation.to(view), noise)


def _without_bands(view: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    n, bands = view.shape[:2]
    chosen = _chosen(n, probability, generator)
    count = torch.randint(1, bands, (n, 1), generator=generator)
    dropped = torch.rand(n, bands, generator=generator).argsort(1) < count
    return view.masked_fill((dropped & chosen[:, None])[:, :, None, None].to(view.device), 0.0)


def _around_one(shape: tuple[int, ...], spread: float, generator: torch.Generator) -> Tensor:
    return 1 + spread * (2 * torch.rand(shape, generator=generator) - 1)


def _chosen(n: int, probability: float, generator: torch.Generator) -> Tensor:
    """Return (n,) bool."""
    return torch.rand(n, generator=generator) < probability


def _change_some(
    view: Tensor, probability: float, change: Callable[[Tensor], Tensor], generator: torch.Generator
) -> None:
    """Replace images chosen at random by changed ones; the others cost nothing."""
    rows = _chosen(len(view), probability, generator).nonzero()[:, 0].to(view.device)
    if len(rows):
        view[rows] = change(view[rows])


def _blurred(view: Tensor) -> Tensor:
    """Return the images after four means over 2 x 2 pixels: 1 4 6 4 1 along each axis."""
    view = F.pad(view, (2, 2, 2, 2), mode="replicate")
    for _ in range(4):
        view = F.avg_pool2d(view, 2, stride=1)
    return view
