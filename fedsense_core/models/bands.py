"""Any bands, one model: weights are made from what a band is, not from its position in a file.

A band's code says its wavelength or its polarisation. A small network turns the code into a
mixture, and the mixture weighs a bank of learned kernels, so that sensors share every parameter
whatever bands they have. Generating kernels from wavelengths is the idea of DOFA (arXiv
2403.15356); the bank keeps the generator small. Each band's kernel comes from its own code alone,
so the order of the bands carries nothing.

Shapes: B batch, C bands, H W pixels, D features, K a kernel's side, E a code's length, R kernels of
the bank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsense_core.data.sites.sensors import Band, Polarisation
from fedsense_core.models.first_convolution import USUAL_BANDS, first_convolution

PERIODS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25)
"""Of a code's sines and cosines, in natural logarithms of micrometres. The longest is more than 0.2
to 20 um; on the shortest, neighbouring red-edge bands are a sixth of a turn apart and the reds of
two sensors a sixteenth."""
CODE = 2 * len(PERIODS)
"""E, the length of a code."""
HIDDEN = 48
"""Width of the mixing network: its matrices stay below the size from which tensors travel as
codes."""


class BandCodes(nn.Module):
    """What each band is, as numbers: fixed waves of log wavelength, or a learned row for each
    polarisation."""

    def __init__(self) -> None:
        super().__init__()
        # As long as the codes of wavelengths: each sine and cosine together have length 1.
        self.polarisations = nn.Parameter(torch.randn(len(get_args(Polarisation)), CODE) * math.sqrt(0.5))

    def forward(self, bands: Sequence[Band]) -> Tensor:
        """Return the codes (C, E) of ``bands``."""
        waves_CE = self.polarisations.new_tensor([_waves(band.wavelength_um) for band in bands])
        # A product instead of a lookup: on optical bands the rows have a gradient of zero, not
        # none.
        choice = [[float(band.polarisation == one) for one in get_args(Polarisation)] for band in bands]
        return waves_CE + self.polarisations.new_tensor(choice) @ self.polarisations


class BandWeights(nn.Module):
    """One generated tensor for each band: a mixture of a learned bank, weighed by the band's
    code."""

    def __init__(self, kernels: int, shape: Sequence[int], std: float) -> None:
        super().__init__()
        self.codes = BandCodes()
        self.mix = nn.Sequential(nn.Linear(CODE, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, kernels))
        self.bank = nn.Parameter(torch.randn(kernels, *shape) * std)
        self.bands: tuple[Band, ...] = ()
        """The bands of the next batch, set by `read_bands`; not a parameter: it never travels."""
        # Hidden units of unit variance, so that the mixture bends with the wavelength from the
        # start.
        nn.init.normal_(self.mix[0].weight, std=math.sqrt(2 / CODE))  # type: ignore[arg-type]
        nn.init.zeros_(self.mix[0].bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.mix[2].bias)  # type: ignore[arg-type]

    def forward(self, bands: Sequence[Band]) -> Tensor:
        """Return the tensors (C, *shape) of ``bands``; each depends on its own band alone.

        Mixtures have length 1, so that the tensors start with the bank's deviation, and a
        wavelength that was never seen in training gives no outsized kernel.
        """
        with torch.autocast(self.bank.device.type, enabled=False):  # bf16 would blur what tells two bands apart
            mixture_CR = F.normalize(self.mix(self.codes(bands)), dim=1)
            return (mixture_CR @ self.bank.flatten(1)).view(len(bands), *self.bank.shape[1:])

    def current(self, channels: int | None = None) -> Tensor:
        """Return the tensors of the bands that were read last.

        Raises ValueError where none were, or where they are not as many as the ``channels`` of the
        batch.
        """
        if not self.bands:
            raise ValueError("which bands the images have is not known: call read_bands(bands) on the model first")
        if channels is not None and channels != len(self.bands):
            names = ", ".join(band.name for band in self.bands)
            raise ValueError(
                f"the images have {channels} channels, but the bands read last are {len(self.bands)} ({names}): "
                "call read_bands(bands) on the model with the bands of this batch"
            )
        tensors: Tensor = self(self.bands)
        return tensors


class BandConv2d(nn.Module):
    """A first convolution for any bands, instead of an encoder's own.

    Its output is 3 times the mean over bands of each band's convolution. So listing every band
    twice changes nothing, a subset of bands keeps the scale, and on 3 independent bands the first
    output has the variance of timm's own.
    """

    def __init__(self, replaced: nn.Conv2d, kernels: int) -> None:
        super().__init__()
        shape = (replaced.out_channels, *replaced.kernel_size)
        self.weights = BandWeights(kernels, shape, float(replaced.weight.detach().std()))
        self.bias = replaced.bias
        self.stride, self.padding, self.dilation = replaced.stride, replaced.padding, replaced.dilation

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the features (B, D, H', W') of images whose bands were read last; see
        `BandWeights.current`."""
        kernel_DCKK = _mean_kernel(self.weights.current(x_BCHW.shape[1]))
        return F.conv2d(x_BCHW, kernel_DCKK, self.bias, self.stride, self.padding, self.dilation)

    @torch.no_grad()
    def plain(self, bands: Sequence[Band]) -> nn.Conv2d:
        """Return the ordinary convolution that does the same for these bands."""
        kernel_DCKK = _mean_kernel(self.weights(bands))
        conv = nn.Conv2d(
            kernel_DCKK.shape[1],
            kernel_DCKK.shape[0],
            (kernel_DCKK.shape[2], kernel_DCKK.shape[3]),
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.dilation,  # type: ignore[arg-type]
            bias=self.bias is not None,
            device=kernel_DCKK.device,
            dtype=kernel_DCKK.dtype,
        )
        conv.weight.copy_(kernel_DCKK)
        if self.bias is not None and conv.bias is not None:
            conv.bias.copy_(self.bias)
        return conv.requires_grad_(self.weights.bank.requires_grad)


class BandLinear(nn.Module):
    """Predicts the pixels of any bands: (..., W) -> (..., C*pixels), all pixels of a band before
    the next band's."""

    def __init__(self, width: int, pixels: int, kernels: int) -> None:
        super().__init__()
        # The last column is the bias. The deviation is that of torch's own linear layers.
        self.weights = BandWeights(kernels, (pixels, width + 1), 1 / math.sqrt(3 * width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the pixels of the bands that were read last; see `BandWeights.current`."""
        rows = self.weights.current().flatten(0, 1)
        return F.linear(x, rows[:, :-1], rows[:, -1])


def read_bands(module: nn.Module, bands: Sequence[Band]) -> None:
    """Tell every part of ``module`` that is made from bands which bands the next batches have."""
    for part in module.modules():
        if isinstance(part, BandWeights):
            part.bands = tuple(bands)


def condition(encoder: nn.Module, kernels: int) -> None:
    """Replace the first convolution of an encoder of 3 bands by one for any bands. Raises as
    `first_convolution`."""
    path = first_convolution(encoder)
    conv = encoder.get_submodule(path)
    assert isinstance(conv, nn.Conv2d)
    encoder.set_submodule(path, BandConv2d(conv, kernels))


def band_stem(encoder: nn.Module) -> tuple[str, BandConv2d] | None:
    """Return where an encoder's convolution for any bands is, and the convolution; None for a plain
    encoder."""
    return next(((path, part) for path, part in encoder.named_modules() if isinstance(part, BandConv2d)), None)


def encoder_for(encoder: nn.Module, bands: Sequence[Band]) -> nn.Module:
    """Return a plain timm encoder with the features that ``encoder`` has on ``bands``: itself where
    it is plain."""
    found = band_stem(encoder)
    if found is None:
        return encoder
    path, stem = found
    plain = deepcopy(encoder)
    plain.set_submodule(path, stem.plain(bands))
    return plain


def _mean_kernel(kernels_CDKK: Tensor) -> Tensor:
    """Return the kernel (D, C, K, K) of a convolution that takes ``USUAL_BANDS`` times the mean
    over bands."""
    return kernels_CDKK.transpose(0, 1).mul(USUAL_BANDS / len(kernels_CDKK)).contiguous()


def _waves(wavelength_um: float | None) -> list[float]:
    """Return the fixed part (E,) of a code; zeros for radar."""
    if wavelength_um is None:
        return [0.0] * CODE
    turns = [2 * math.pi * math.log(wavelength_um) / period for period in PERIODS]
    return [*map(math.sin, turns), *map(math.cos, turns)]
