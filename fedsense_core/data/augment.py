"""Random views of a batch, for any number of bands: one affine crop, then changes of brightness.

Shapes: B batch, C bands, H x W chip, S view size. All random numbers are drawn on the CPU, so a seed gives the same
crops and gains on every device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """How strongly views differ. Inputs are standardised, so gains and offsets are in deviations of the band."""

    size: int
    """Height and width S of a view, in pixels."""
    min_scale: float = 0.3
    """Smallest crop, as a fraction of the chip's area."""
    max_scale: float = 1.0
    """Largest crop, as a fraction of the chip's area."""
    flips: bool = True
    """Mirror left-right half of the time; with ``turns`` this gives all eight symmetries of the square."""
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
    """Probability that every band is replaced by the mean over bands: texture must do without colour."""
    blur: float = 0.0
    """Probability of a binomial 5 x 5 blur."""
    noise: float = 0.0
    """Largest deviation of white noise; each image draws its own from 0 to this."""

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.min_scale <= self.max_scale <= 1:
            raise ValueError(f"Augmentation needs size >= 1 and 0 < min_scale <= max_scale <= 1, not {self}")


def augment(batch_BCHW: Tensor, policy: Augmentation, generator: torch.Generator) -> Tensor:
    """Return one random view (B, C, S, S) of each image, on the batch's device and in its type.

    ``generator`` must be a CPU generator.
    """
    view = _crop(batch_BCHW, policy, generator)
    view = _recolour(view, policy, generator)
    if policy.blur > 0:
        chosen = _choose(len(view), policy.blur, generator).to(view)
        view = torch.lerp(view, _blurred(view), chosen)
    if policy.noise > 0:
        strength = policy.noise * torch.rand(len(view), 1, 1, 1, generator=generator)
        view = view + (strength * torch.randn(view.shape, generator=generator)).to(view)
    return view


def crop_matrices(n: int, policy: Augmentation, generator: torch.Generator) -> Tensor:
    """Return (n, 2, 3) maps from view to chip in [-1, 1] coordinates: a square window, mirrored and turned."""
    low, high = policy.min_scale, policy.max_scale
    side = (low + (high - low) * torch.rand(n, generator=generator)).sqrt()
    centre = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - side)[:, None]
    mirrored = _choose(n, 0.5, generator)[:, 0, 0, 0] if policy.flips else torch.zeros(n)
    quarter = torch.randint(4 if policy.turns else 1, (n,), generator=generator)
    cosine, sine = torch.tensor([1.0, 0.0, -1.0, 0.0])[quarter], torch.tensor([0.0, 1.0, 0.0, -1.0])[quarter]
    sign = 1 - 2 * mirrored
    rows = [torch.stack([cosine * sign, -sine], -1), torch.stack([sine * sign, cosine], -1)]
    square = torch.stack(rows, 1) * side[:, None, None]
    return torch.cat([square, centre[:, :, None]], dim=2)


def _crop(batch_BCHW: Tensor, policy: Augmentation, generator: torch.Generator) -> Tensor:
    n, bands = batch_BCHW.shape[:2]
    maps = crop_matrices(n, policy, generator).to(batch_BCHW)
    grid = F.affine_grid(maps, [n, bands, policy.size, policy.size], align_corners=False)
    return F.grid_sample(batch_BCHW, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _recolour(view: Tensor, policy: Augmentation, generator: torch.Generator) -> Tensor:
    n, bands = view.shape[:2]
    gain = _around_one((n, 1, 1, 1), policy.image_gain, generator) * _around_one(
        (n, bands, 1, 1), policy.band_gain, generator
    )
    offset = policy.image_offset * torch.randn(n, 1, 1, 1, generator=generator)
    offset = offset + policy.band_offset * torch.randn(n, bands, 1, 1, generator=generator)
    view = torch.addcmul(offset.to(view), view, gain.to(view))
    if policy.grey > 0:
        chosen = _choose(n, policy.grey, generator).to(view)
        view = torch.lerp(view, view.mean(1, keepdim=True).expand_as(view), chosen)
    return view


def _around_one(shape: tuple[int, ...], spread: float, generator: torch.Generator) -> Tensor:
    return 1 + spread * (2 * torch.rand(shape, generator=generator) - 1)


def _choose(n: int, probability: float, generator: torch.Generator) -> Tensor:
    """Return (n, 1, 1, 1) ones and zeros."""
    return (torch.rand(n, 1, 1, 1, generator=generator) < probability).float()


def _blurred(view: Tensor) -> Tensor:
    bands = view.shape[1]
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = torch.outer(line, line).to(view).expand(bands, 1, 5, 5)
    return F.conv2d(F.pad(view, (2, 2, 2, 2), mode="replicate"), kernel, groups=bands)
