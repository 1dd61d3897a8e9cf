"""Change detection: what differs between the features of two images of one place, at every scale.

One encoder reads both images; the absolute differences of its maps go to a small decoder, as in
FC-Siam-diff (arXiv 1810.08462), which trained its encoder from nothing instead.

Shapes: B batch, C bands of one image, S side of what the encoder sees, D channels of a level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import BinaryF1Score, BinaryJaccardIndex

from fedsense_core.errors import SiteError
from fedsense_core.seeds import seed_of
from fedsense_core.tools.downstream.change_layouts import LAYOUTS, load_change
from fedsense_core.tools.downstream.heads import pixel_logits, resized
from fedsense_core.tools.downstream.names import Heads, Mode
from fedsense_core.tools.downstream.options import TaskOptions
from fedsense_core.tools.downstream.pixels import (
    WHOLE,
    Part,
    PixelModel,
    predicted_classes,
    scored_pixels,
    trained_on_crops,
)
from fedsense_core.tools.downstream.reading import Described
from fedsense_core.tools.downstream.result import TaskResult
from fedsense_core.tools.downstream.samples import IGNORED, Array, Sample, TaskData, spread_over
from fedsense_core.tools.downstream.tasks import DownstreamTask
from fedsense_core.tools.downstream.tiling import splits
from fedsense_core.tools.reporting.tiles import Row, Tile, to_rgb

HEAD = "difference"
WIDTH = 64
"""Channels of the decoder at every level."""
MOST_SHOWN = 8
GREY = 128
"""Of pixels in pictures whose truth is not known."""


class DifferenceHead(nn.Module):
    """From the differences of maps to two classes of pixels, unchanged and changed."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        # Not normalised image by image: where nothing changed, that would make much of what little
        # differs.
        self.norms = nn.ModuleList(nn.BatchNorm2d(count, affine=False) for count in channels)
        self.maps = nn.ModuleList(nn.Conv2d(count, WIDTH, 1) for count in channels)
        self.fuse = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.classify = nn.Conv2d(WIDTH, 2, 1)

    def forward(self, differences: Sequence[Tensor]) -> Tensor:
        """Return logits (B, 2, h, w) on the grid of the finest level."""
        parts = [map_(norm(one)) for map_, norm, one in zip(self.maps, self.norms, differences, strict=True)]
        level = torch.stack([resized(part, differences[0]) for part in parts]).sum(0)
        logits: Tensor = self.classify(F.relu(self.fuse(F.relu(level))))
        return logits


class ChangeModel(PixelModel):
    """One encoder for both images (B, 2C, S, S), before and after, and a head on the
    differences."""

    def forward(self, x_BCSS: Tensor) -> Tensor:
        """Return logits (B, 2, S, S) of unchanged and changed; swapping the two images changes
        nothing."""
        both = self.pyramid(torch.cat(x_BCSS.chunk(2, 1)))
        differences = [torch.sub(*level.chunk(2)).abs() for level in both]
        return pixel_logits(self.head(differences), self.pyramid.padded, self.pyramid.side)


class Change(DownstreamTask[Array]):
    """What changed between two images, scored by F1 and IoU of the changed class.

    Training takes random crops of ``options.side`` pixels (the images' own side, at most 256, where
    it is not given); testing goes over whole images in overlapping windows.
    """

    name = "change"
    metric = "f1"
    heads: ClassVar[Heads] = {"frozen": (HEAD,), "fine-tuned": (HEAD,)}
    layouts = LAYOUTS
    example = "tasks/change/egypt-fields"

    def load(self, folder: Path, described: Described) -> TaskData[Array]:
        """See `load_change`."""
        return load_change(folder, described)

    def prepare(
        self, encoder: nn.Module, data: TaskData[Array], options: TaskOptions
    ) -> Callable[[Mode, str], TaskResult]:
        """What is returned raises SiteError for an empty part, or truth without any change."""
        return partial(self._of, encoder, data, options)

    def _of(self, encoder: nn.Module, data: TaskData[Array], options: TaskOptions, mode: Mode, head: str) -> TaskResult:
        scores, evidence = [], []
        read = partial(_pair, data)
        ((train, test),) = splits(data)
        for seed in range(options.seeds):
            plan, weights_seed = (mode, head, seed), seed_of("change", mode, seed)
            model = trained_on_crops(
                encoder,
                lambda pyramid: ChangeModel(pyramid, DifferenceHead(pyramid.channels)),
                train,
                read,
                options,
                plan,
                weights_seed,
            )
            metrics: dict[str, Metric] = {
                "f1": BinaryF1Score(ignore_index=IGNORED),
                "iou": BinaryJaccardIndex(ignore_index=IGNORED),
            }
            what = f"{mode} {head}, seed {seed}: test images"
            one, counted = scored_pixels(model, test, read, options, metrics, 2, what)
            if not counted.counts_GKK[:, 1].any():
                raise SiteError(
                    f"{data.name}: nothing changed in the truth of the test images, so there is no F1 to compute."
                )
            scores.append(one)
            evidence.append(counted.evidence("positive-f1"))
            if seed == 0 and options.show is not None:
                options.show(f"{mode}-{head}", change_pictures(model, data, options))
        return self.result(data, mode, head, scores, evidence)


def change_pictures(model: PixelModel, data: TaskData[Array], options: TaskOptions) -> list[Row]:
    """Return a row of before, after, truth and prediction for some test images; changed is white,
    unknown grey."""
    rows = []
    for sample in spread_over(data.test, MOST_SHOWN):
        pair = _pair(data, sample, WHOLE)
        found = predicted_classes(model, pair.to(options.torch_device), options.batch_size)
        truth = sample.target()
        before, after = to_rgb(torch.stack(pair.chunk(2)), data.bands)
        unknown = np.where(truth == IGNORED, IGNORED, found)
        pictures = (before, after, _black_and_white(truth), _black_and_white(unknown))
        words = (sample.name, "after", "truth", "predicted")
        rows.append(Row("", tuple(Tile(picture, word) for picture, word in zip(pictures, words, strict=True))))
    return rows


def _pair(data: TaskData[Array], sample: Sample[Array], part: Part) -> Tensor:
    """Return a part of both images (2C, h, w), standardised alike.

    Raises SiteError where there is no second, or another size.
    """
    before = sample.image()
    after = sample.after() if sample.after is not None else None
    if after is None or after.shape != before.shape:
        sizes = [f"{image.shape[2]} x {image.shape[1]}" for image in (before, after) if image is not None]
        raise SiteError(f"{data.name}, {sample.name}: needs two images on one grid, and has {' and '.join(sizes)}.")
    return torch.cat([data.standardise(before[:, *part]), data.standardise(after[:, *part])])


def _black_and_white(mask_HW: Array) -> Array:
    grey_HW = np.where(mask_HW == IGNORED, GREY, np.where(mask_HW == 1, 255, 0)).astype(np.uint8)
    return np.asarray(np.repeat(grey_HW[..., None], 3, 2))
