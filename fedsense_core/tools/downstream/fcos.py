"""An established detector on any encoder: FCOS, which needs no anchors (arXiv 1904.01355), on a
feature pyramid.

The head, the loss and the rule of detection are torchvision's; nothing is downloaded. Features are
wanted every 4, 8, 16 and 32 pixels, because a tree or a car at 0.2 to 1 m is 10 to 40 pixels wide.
Where the encoder has no such stride, the nearest one is resized: an encoder whose finest map is
every 16 pixels is enlarged and sees small objects less well.

Shapes: B batch, C bands, S side of the image.
"""

from __future__ import annotations

from collections import OrderedDict
from math import log2
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import FeaturePyramidNetwork

from fedsense_core.tools.downstream.boxes import MOST_DETECTIONS, Detections
from fedsense_core.tools.downstream.encoders import Pyramid
from fedsense_core.tools.downstream.samples import Boxes

STRIDES = (4, 8, 16, 32)
"""Pixels for each cell of the maps that the head reads. It looks for boxes of up to 16 cells in all
but the last."""
CONVOLUTIONS = 2
"""Of each branch of the head; the paper has 4, for 118,000 images."""
MOST_OVERLAP = 0.5
"""Of two detections of a class that overlap more, the surer one stays."""
LEAST_SCORE = 0.05
"""Detections below it are dropped, as in evaluations on COCO; a precision at full recall needs the
unsure ones."""


class Levels(nn.Module):
    """A pyramid network on an encoder's maps, resized to ``STRIDES``: what torchvision calls a
    backbone."""

    def __init__(self, pyramid: Pyramid, width: int) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.fuse = FeaturePyramidNetwork(list(pyramid.channels), width)
        self.out_channels = width
        self.nearest = tuple(
            min(range(len(pyramid.strides)), key=lambda i: abs(log2(pyramid.strides[i] / stride))) for stride in STRIDES
        )
        """For each of ``STRIDES`` the level whose stride is nearest."""

    def forward(self, x_BCSS: Tensor) -> OrderedDict[str, Tensor]:
        """Return a map (B, width, S/stride, S/stride) for each of ``STRIDES``; what shows padding
        is cut off."""
        whole, side = self.pyramid.padded, self.pyramid.side
        fused = list(self.fuse({str(i): level for i, level in enumerate(self.pyramid(x_BCSS))}).values())
        return OrderedDict(
            (str(stride), _resized(fused[i], round(whole / stride))[..., : side // stride, : side // stride])
            for stride, i in zip(STRIDES, self.nearest, strict=True)
        )


class Detector(nn.Module):
    """FCOS on a pyramid. Images are square, standardised, and their side is a multiple of 32
    pixels."""

    def __init__(self, pyramid: Pyramid, classes: int, width: int) -> None:
        """Make one with ``width`` channels (a multiple of 32) in head and pyramid network.

        Weights come from torch's global generator; hold it with ``torch.random.fork_rng``.
        """
        super().__init__()
        channels = len(cast(tuple[str, ...], pyramid.encoder.bands))
        head = FCOSHead(width, 1, classes, CONVOLUTIONS)
        for branch in (head.classification_head, head.regression_head):
            for layer in branch.conv:
                # torchvision starts from a deviation of 0.01, in which a step of AdamW would be a
                # tenth.
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight)
        # A cell answers with four distances, cut off below 0. Starting at 0 half of them would have
        # no gradient.
        nn.init.ones_(head.regression_head.bbox_reg.bias)
        self.fcos = FCOS(
            Levels(pyramid, width),
            classes,
            head=head,
            anchor_generator=AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES)),
            # Images come standardised and in the size that the pyramid was made for.
            image_mean=[0.0] * channels,
            image_std=[1.0] * channels,
            min_size=pyramid.side,
            max_size=pyramid.side,
            fixed_size=(pyramid.side, pyramid.side),
            score_thresh=LEAST_SCORE,
            nms_thresh=MOST_OVERLAP,
            detections_per_img=MOST_DETECTIONS,
        )

    def loss(self, x_BCSS: Tensor, truth: list[Boxes]) -> Tensor:
        """Return the sum of FCOS's three losses: class, box and centredness. Call it in training
        mode."""
        targets = [_target(boxes, x_BCSS.device) for boxes in truth]
        losses: dict[str, Tensor] = self.fcos(list(x_BCSS), targets)
        return torch.stack(list(losses.values())).sum()

    @torch.no_grad()
    def detect(self, x_BCSS: Tensor) -> list[Detections]:
        """Return what is found in each image. Call it in eval mode."""
        found: list[dict[str, Any]] = self.fcos(list(x_BCSS))
        return [
            Detections(*(one[key].cpu().numpy() for key in ("boxes", "labels", "scores")))
            for one in found
        ]  # fmt: skip


def _target(boxes: Boxes, device: torch.device) -> dict[str, Tensor]:
    easy = ~boxes.difficult_n
    return {
        "boxes": torch.from_numpy(boxes.xyxy_n4[easy]).to(device),
        "labels": torch.from_numpy(boxes.classes_n[easy]).to(device),
    }


def _resized(level: Tensor, side: int) -> Tensor:
    if level.shape[-1] == side:
        return level
    return F.interpolate(level, size=(side, side), mode="bilinear", antialias=side < level.shape[-1])
