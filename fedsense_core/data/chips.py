"""An institution's imagery as equal square chips, standardised on the way out.

Shapes: n chips, C bands, S chip size, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.data.cache import cached_cut
from fedsense_core.data.cutting import Cut, MemorySink, Request, cut_site, pooled
from fedsense_core.data.holdings import Site
from fedsense_core.data.limits import ReadLimits
from fedsense_core.data.rasters import GDAL_OPTIONS, Skipped
from fedsense_core.data.statistics import Moments
from fedsense_core.errors import SiteError

CLAMP = 6.0
"""Standardised values beyond six deviations are glint, clouds or faults; they would rule a batch."""


@dataclass(frozen=True)
class Chips:
    """The chips of one site. Each source (one sensor) is standardised by its own statistics."""

    values: NDArray[Any]
    """(n, C, S, S) as stored in the files; memory-mapped when cached."""
    mean: Tensor
    """(C,) float32, over all valid pixels: in stored units if the sources share scale and offset, else physical.

    For the record only: `batch` goes by ``origin_mean`` and ``origin_std``.
    """
    std: Tensor
    """(C,) float32, like ``mean``."""
    sources: tuple[str, ...]
    """Files that the chips came from, in order."""
    skipped: tuple[Skipped, ...]
    """Files left out, each with its reason."""
    bands: tuple[str, ...]
    """Band names, in channel order."""
    name: str
    """Name of the site."""
    origin: Tensor
    """(n,) int64: which source each chip belongs to, as an index into the next two."""
    origin_mean: Tensor
    """(sources, C) float32, in stored units."""
    origin_std: Tensor
    """(sources, C) float32, in stored units."""

    @classmethod
    def of(cls, values: NDArray[Any], bands: Sequence[str], name: str = "chips") -> Chips:
        """Wrap an array (n, C, S, S) whose pixels are all valid."""
        moments = Moments.of(values, np.ones((len(values), *values.shape[2:]), dtype=bool))
        mean, std = _tensor(moments.mean), _tensor(moments.std)
        origin = torch.zeros(len(values), dtype=torch.int64)
        return cls(values, mean, std, (), (), tuple(bands), name, origin, mean[None], std[None])

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Return (B, C, S, S) float32 chips, standardised by their own source and clamped to ±6."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        x_BCHW = torch.from_numpy(np.asarray(self.values[index.numpy()]).astype(np.float32))
        origin = self.origin[index]
        mean, std = (table[origin][:, :, None, None] for table in (self.origin_mean, self.origin_std))
        return x_BCHW.sub_(mean).div_(std).clamp_(-CLAMP, CLAMP)


def open_chips(
    site: Site,
    bands: Sequence[str],
    chip_size: int,
    cache_dir: Path | None,
    limits: ReadLimits | None = None,
) -> Chips:
    """Cut ``site`` into chips of ``chip_size`` pixels with the named bands, or map them from ``cache_dir``.

    Without ``limits`` those of the site file hold.
    Raises SiteError for a band that a source lacks, a file that contradicts its sensor card, or no usable chip.
    """
    request = Request(tuple(bands), chip_size, limits or site.limits)
    _check(site, request)
    with rasterio.Env(**GDAL_OPTIONS):
        if cache_dir is None:
            sink = MemorySink()
            cut = cut_site(site, request, sink)
            return _chips(site, request, sink.values(), cut)
        values, cut = cached_cut(site, request, cache_dir)
        return _chips(site, request, values, cut)


def _check(site: Site, request: Request) -> None:
    """Refuse a request that no file could meet, before any is opened."""
    if not request.bands or len(set(request.bands)) != len(request.bands):
        raise SiteError(f"{site.path}: the bands asked for must be a list without repeats, not {request.bands}")
    if not 8 <= request.size <= 4096:
        raise SiteError(f"{site.path}: chip size {request.size} is outside 8 to 4096 pixels")
    for number, source in enumerate(site.sources, start=1):
        source.card.positions(request.bands, f"{site.path}: sources[{number}]")


def _chips(site: Site, request: Request, values: NDArray[Any], cut: Cut) -> Chips:
    total = pooled(cut, site)
    counts = [file.count for file in cut.files]
    origin = np.repeat(np.array([file.source for file in cut.files], dtype=np.int64), counts)
    return Chips(
        values=values,
        mean=_tensor(total.mean),
        std=_tensor(total.std),
        sources=tuple(file.path for file in cut.files),
        skipped=cut.skipped,
        bands=request.bands,
        name=site.name,
        origin=torch.from_numpy(origin),
        origin_mean=torch.stack([_tensor(part.mean) for part in cut.moments]),
        origin_std=torch.stack([_tensor(part.std) for part in cut.moments]),
    )


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
