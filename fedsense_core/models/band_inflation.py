"""A first convolution for other bands than it was trained on, by what the bands are.

Inflation of filters is from I3D (arXiv 1705.07750), where copies over time are divided by their
number. Here kernels are shared out over bands by wavelength, so that an image whose bands are all
alike is answered as before. Shapes: C bands that are read, S bands of the given kernels, D outputs,
K a kernel's side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedsense_core.data.sites.sensors import Band

FLOAT = torch.float64


def inflate(kernel_DSKK: Tensor, given: Sequence[Band], bands: Sequence[Band]) -> Tensor:
    """Return the kernels (D, C, K, K) for ``bands`` of kernels for the ``given`` ones.

    The same bands in another order are a reordering, bit for bit. Otherwise each kernel is shared
    out among bands, as `shares` says, and their sum over bands stays.
    """
    shares_CS = shares(given, bands)
    if bool(((shares_CS == 0) | (shares_CS == 1)).all()) and len(given) == len(bands):
        return kernel_DSKK[:, shares_CS.argmax(dim=1)].clone()
    return torch.einsum("cs,dsij->dcij", shares_CS, kernel_DSKK.to(FLOAT)).to(kernel_DSKK.dtype)


def shares(given: Sequence[Band], bands: Sequence[Band]) -> Tensor:
    """Return what part of each given band's kernel goes to each band, float64 (C, S); columns sum
    to 1.

    A band asks for the kernel of its name; else for those of the two nearest wavelengths, weighted
    linearly, or of the one at the end; radar for that of its polarisation; else for all alike. A
    kernel that several ask for is divided by what they ask. One that nobody asks for goes to the
    band that is nearest to it, so that nothing of the response is lost.
    """
    asked_CS = torch.stack([_asked(band, given) for band in bands])
    for column in (asked_CS.sum(dim=0) == 0).nonzero().flatten().tolist():
        asked_CS[:, column] = _asked(given[column], bands)
    return asked_CS / asked_CS.sum(dim=0)


def _asked(band: Band, among: Sequence[Band]) -> Tensor:
    """Return how much of each of some bands a band takes, float64 (len(among),), summing to 1."""
    found = torch.zeros(len(among), dtype=FLOAT)
    same = [i for i, other in enumerate(among) if other.name == band.name and _comparable(other, band)]
    same = same or [i for i, other in enumerate(among) if band.polarisation and other.polarisation == band.polarisation]
    light = sorted((other.wavelength_um, i) for i, other in enumerate(among) if other.wavelength_um is not None)
    if same:
        found[same[0]] = 1.0
    elif band.wavelength_um is None or not light:
        found[:] = 1 / len(among)
    else:
        shorter = [pair for pair in light if pair[0] <= band.wavelength_um][-1:] or light[:1]
        longer = [pair for pair in light if pair[0] >= band.wavelength_um][:1] or light[-1:]
        (below, low), (above, high) = shorter[0], longer[0]
        weight = (band.wavelength_um - below) / (above - below) if above > below else 0.0
        found[low] += 1 - weight
        found[high] += weight
    return found


def _comparable(one: Band, other: Band) -> bool:
    """Return whether two bands are both of light, or both of radar."""
    return (one.polarisation is None) == (other.polarisation is None)
