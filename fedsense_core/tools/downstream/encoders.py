"""Feature maps of any timm encoder, at several scales.

Convolutional and windowed networks have stages, each half as fine as the one before. A plain vision
transformer has one scale: maps from four depths of it are resized to a pyramid, an idea of ViTDet
(arXiv 2203.16527) without its weights.

Shapes: B batch, C bands, S side of the image, D channels of a map.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from copy import deepcopy
from math import ceil, lcm
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsense_core.errors import ConfigError

LEVELS = 4
"""Maps that are taken, the coarsest ones."""
FACTORS = (4.0, 2.0, 1.0, 0.5)
"""By which the maps of one scale are resized to a pyramid."""
LEAST_SIDE = 64
"""Smaller images are padded to it, so that the coarsest map has more than one cell to normalise."""


def feature_maps(encoder: nn.Module, x_BCHW: Tensor) -> list[Tensor]:
    """Return up to four maps (B, D, H', W') of a timm encoder, the finest first; those of one scale
    by depth.

    The images must be of a size that the encoder takes; `Pyramid` sees to that. Raises ConfigError
    for an architecture whose inside timm cannot show.
    """
    scales = _scales(encoder)
    flat = len(set(scales)) == 1
    chosen = {ceil((i + 1) * len(scales) / LEVELS) - 1 for i in range(LEVELS)} if flat else range(len(scales))
    forward = cast(Callable[..., Iterable[Tensor]], encoder.forward_intermediates)
    maps = forward(x_BCHW, indices=sorted(chosen)[-LEVELS:], norm=flat, intermediates_only=True, output_fmt="NCHW")
    return list(maps)


def fitted(encoder: nn.Module, side: int) -> nn.Module:
    """Return a copy of an encoder (B, C, S, S) -> (B, D) that takes images of ``side`` pixels."""
    copied = deepcopy(encoder)
    if side != own_side(encoder):
        _fit(copied, side)
    return copied


def own_side(encoder: nn.Module) -> int | None:
    """Return the side of the images that an encoder was trained on, in pixels; None where it does
    not say."""
    size = (getattr(encoder, "pretrained_cfg", None) or {}).get("input_size")
    return int(size[-1]) if size else None


def random_encoder(folder: Path, encoder: nn.Module, seed: int) -> nn.Module:
    """Return the architecture of an exported ``encoder``, for the same bands, with random weights:
    the control.

    What an encoder adds is the difference to it. ``folder`` is the one that the encoder was
    exported to.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    arguments = {**config["model_args"], "in_chans": len(cast(tuple[str, ...], encoder.bands))}
    with torch.random.fork_rng(devices=[]):  # timm draws initial weights from the global generator
        torch.manual_seed(seed)
        drawn: nn.Module = timm.create_model(config["architecture"], num_classes=0, **arguments)
    for name in ("pretrained_cfg", "bands"):
        setattr(drawn, name, getattr(encoder, name))
    return drawn.eval()


def _scales(encoder: nn.Module) -> list[int]:
    """Return the stride of each map that timm can show of the encoder."""
    if not hasattr(encoder, "forward_intermediates"):
        raise ConfigError(
            f"timm cannot show the feature maps of {type(encoder).__name__}; segmentation, detection and change "
            "detection need an architecture with forward_intermediates, such as resnet50, convnext_tiny or "
            "vit_small_patch16_224. Classification takes any"
        )
    return [int(info["reduction"]) for info in cast(Iterable[dict[str, Any]], encoder.feature_info)]


def _fit(encoder: nn.Module, side: int) -> None:
    """Let an encoder of one input size take images of ``side`` pixels: timm resizes position
    embeddings and windows."""
    if hasattr(encoder, "set_input_size"):
        cast(Callable[..., None], encoder.set_input_size)(img_size=(side, side))


class Pyramid(nn.Module):
    """An encoder as a source of maps, each level coarser than the one before, for images of one
    side.

    It holds a copy of the encoder, so that training it leaves the encoder as it was.
    """

    def __init__(self, encoder: nn.Module, side: int, trained: bool) -> None:
        """Make one for images of ``side`` x ``side`` pixels; without ``trained`` the encoder stays
        as it is."""
        super().__init__()
        self.side = side
        step = lcm(*_scales(encoder))
        self.padded = ceil(max(side, LEAST_SIDE) / step) * step
        self.encoder = deepcopy(encoder)
        self.trained = trained
        _fit(self.encoder, self.padded)
        self.encoder.requires_grad_(trained).eval()
        with torch.no_grad():
            first = next(encoder.parameters())
            x = first.new_zeros(1, len(cast(tuple[str, ...], encoder.bands)), side, side)
            maps = self.forward(x)
        self.channels: tuple[int, ...] = tuple(int(level.shape[1]) for level in maps)
        """Of each level."""
        self.strides: tuple[float, ...] = tuple(self.padded / int(level.shape[-1]) for level in maps)
        """Pixels of the image for each cell, by level; measured."""

    def forward(self, x_BCSS: Tensor) -> list[Tensor]:
        """Return a map (B, D, P/stride, P/stride) for each level.

        P is ``padded``: images below 64 pixels, or of a side that the coarsest stride does not
        divide, are padded at the right and the bottom by their own last pixels. Cells beyond
        side/stride show padding.
        """
        room = self.padded - self.side
        x_BCPP = F.pad(x_BCSS, (0, room, 0, room), mode="replicate") if room else x_BCSS
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            maps = feature_maps(self.encoder, x_BCPP)
        if len({level.shape[-1] for level in maps}) > 1 or len(maps) == 1:
            return maps
        return [
            level if factor == 1 else F.interpolate(level, scale_factor=factor, mode="bilinear", antialias=factor < 1)
            for level, factor in zip(maps, FACTORS, strict=False)
        ]

    def train(self, mode: bool = True) -> Pyramid:
        """Set the mode; a frozen encoder stays in eval mode (its norms and dropped paths would
        change features)."""
        super().train(mode)
        self.encoder.train(mode and self.trained)
        return self
