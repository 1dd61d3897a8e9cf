"""Decoders from the maps of a `Pyramid` to classes of pixels.

Shapes: B batch, D channels of a level, K classes, W width of a decoder, h x w cells of a level, P
side of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 64
"""Channels inside the decoder, at every level. The paper has 512, for 150 classes and twenty
thousand images."""
POOLS = (1, 2, 3, 6)
"""Cells along the sides of the pooled maps, as in the paper."""


class LinearHead(nn.Module):
    """One linear map from the features of all levels to classes, the least that a head can be.

    Its value equals that of a 1 x 1 convolution on all levels, upsampled to the finest and
    concatenated: upsampling and a linear map commute, and this order is the cheaper one. Features
    are normalised by a running mean and deviation, since levels differ in scale.
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(count, affine=False) for count in channels)
        self.maps = nn.ModuleList(nn.Conv2d(count, classes, 1) for count in channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, h, w) on the grid of the finest level."""
        parts = [map_(norm(level)) for map_, norm, level in zip(self.maps, self.norms, maps, strict=True)]
        return torch.stack([resized(part, maps[0]) for part in parts]).sum(0)


class PyramidHead(nn.Module):
    """A decoder after UPerNet (arXiv 1807.10221): pyramid pooling on the coarsest level, then a
    feature pyramid.

    Pooling tells each cell what the whole image holds; going down, each level adds what it sees to
    what the coarser ones know; all levels together vote.
    """

    def __init__(self, channels: Sequence[int], classes: int, width: int = WIDTH) -> None:
        super().__init__()
        self.pooled = nn.ModuleList(_block(channels[-1], width, 1) for _ in POOLS)
        self.top = _block(channels[-1] + len(POOLS) * width, width, 3)
        self.lateral = nn.ModuleList(_block(count, width, 1) for count in channels[:-1])
        self.smooth = nn.ModuleList(_block(width, width, 3) for _ in channels[:-1])
        self.fused = _block(len(channels) * width, width, 3)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, h, w) on the grid of the finest level."""
        coarsest = maps[-1]
        pools = [
            resized(block(F.adaptive_avg_pool2d(coarsest, cells)), coarsest)
            for block, cells in zip(self.pooled, POOLS, strict=True)
        ]
        level = self.top(torch.cat([coarsest, *pools], 1))
        levels = [level]
        for lateral, smooth, finer in reversed(list(zip(self.lateral, self.smooth, maps[:-1], strict=True))):
            level = lateral(finer) + resized(level, finer)
            levels.insert(0, smooth(level))
        fused = self.fused(torch.cat([resized(level, maps[0]) for level in levels], 1))
        return cast(Tensor, self.classify(fused))


def pixel_logits(logits_BKhw: Tensor, padded: int, side: int) -> Tensor:
    """Return logits (B, K, side, side) of the pixels, from those of cells that show ``padded``
    pixels."""
    whole = F.interpolate(logits_BKhw, size=(padded, padded), mode="bilinear", align_corners=False)
    return whole[..., :side, :side]


def resized(x_BDHW: Tensor, like: Tensor) -> Tensor:
    """Return maps with as many cells as ``like``."""
    if x_BDHW.shape[-2:] == like.shape[-2:]:
        return x_BDHW
    return F.interpolate(x_BDHW, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _block(inner: int, outer: int, kernel: int) -> nn.Module:
    # Normalised by groups: batches of a few crops, and pooled maps of one cell, have no statistics
    # of their own.
    return nn.Sequential(
        nn.Conv2d(inner, outer, kernel, padding=kernel // 2, bias=False), nn.GroupNorm(8, outer), nn.ReLU()
    )
