"""Semantic segmentation: a linear head and a decoder after UPerNet, on a frozen encoder or trained
with it.

Shapes: H x W pixels of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
from torch import nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from fedsense_core.errors import SiteError
from fedsense_core.seeds import seed_of
from fedsense_core.tools.downstream.drawing import SWATCH_PIXELS
from fedsense_core.tools.downstream.heads import LinearHead, PyramidHead
from fedsense_core.tools.downstream.names import Heads, Mode
from fedsense_core.tools.downstream.options import TaskOptions
from fedsense_core.tools.downstream.pixels import (
    PixelModel,
    Read,
    predicted_classes,
    scored_pixels,
    trained_on_crops,
)
from fedsense_core.tools.downstream.reading import Described
from fedsense_core.tools.downstream.result import TaskResult
from fedsense_core.tools.downstream.samples import IGNORED, Array, TaskData, spread_over
from fedsense_core.tools.downstream.segmentation_layouts import LAYOUTS, load_segmentation
from fedsense_core.tools.downstream.tasks import DownstreamTask
from fedsense_core.tools.downstream.tiling import batched
from fedsense_core.tools.reporting.canvas import COLOURS
from fedsense_core.tools.reporting.tiles import Row, Tile, to_rgb

BUILD = {"linear": LinearHead, "upernet": PyramidHead}
RATES = {"linear": 10.0, "upernet": 1.0}
"""Learning rate of each head, as a multiple: a linear map is convex and bears a higher one."""
MOST_SHOWN = 8
MOST_SWATCHES = 7
"""Colours in a row of the legend."""
LEAST_KNOWN = 0.1
"""Share of an image's pixels with known truth below which a picture of it shows nothing."""


class Segmentation(DownstreamTask[Array]):
    """Pixels, scored by mean IoU over the classes that occur, and overall accuracy.

    Training takes random crops of ``options.side`` pixels (the images' own side, at most 256, where
    it is not given); testing goes over whole images in overlapping windows.
    """

    name = "segmentation"
    metric = "mean-iou"
    heads: ClassVar[Heads] = {"frozen": ("linear", "upernet"), "fine-tuned": ("upernet",)}
    layouts = LAYOUTS
    example = "tasks/segmentation/north-carolina"

    def load(self, folder: Path, described: Described) -> TaskData[Array]:
        """See `load_segmentation`."""
        return load_segmentation(folder, described)

    def prepare(
        self, encoder: nn.Module, data: TaskData[Array], options: TaskOptions
    ) -> Callable[[Mode, str], TaskResult]:
        """Raises SiteError for an empty part; what is returned does for truth without any
        class."""
        if not data.train or not data.test:
            raise SiteError(f"{data.name} has {len(data.train)} training and {len(data.test)} test images; needs both.")
        return partial(self._of, encoder, data, options)

    def _of(self, encoder: nn.Module, data: TaskData[Array], options: TaskOptions, mode: Mode, head: str) -> TaskResult:
        scores, evidence = [], []
        classes = len(data.classes)
        steep = replace(options, learning_rate=options.learning_rate * RATES[head])
        for seed in range(options.seeds):
            weights_seed = seed_of("segmentation", mode, head, seed)
            model = trained_on_crops(
                encoder,
                lambda pyramid: PixelModel(pyramid, BUILD[head](pyramid.channels, classes)),
                data.train,
                _reader(data),
                steep,
                (mode, head, seed),
                weights_seed,
            )
            metrics: dict[str, Metric] = {
                "mean-iou": MulticlassJaccardIndex(classes, ignore_index=IGNORED),
                "accuracy": MulticlassAccuracy(classes, average="micro", ignore_index=IGNORED),
            }
            what = f"{mode} {head}, seed {seed}: test images"
            one, counted = scored_pixels(model, data.test, _reader(data), options, metrics, classes, what)
            if not counted.counts_GKK.any():
                raise SiteError(f"{data.name}: no pixel of the test images has a class; all masks are {IGNORED}.")
            scores.append(one)
            evidence.append(counted.evidence("mean-iou"))
            if seed == 0 and options.show is not None:
                options.show(f"{mode}-{head}", _pictures(model, data, options))
        return self.result(data, mode, head, scores, evidence)


def _reader(data: TaskData[Array]) -> Read:
    return lambda sample, part: data.standardise(sample.image()[:, *part])


def _pictures(model: PixelModel, data: TaskData[Array], options: TaskOptions) -> list[Row]:
    rows = []
    for sample in spread_over(data.test, MOST_SHOWN):
        truth = sample.target()
        if (truth != IGNORED).mean() < LEAST_KNOWN:
            continue
        x_CHW = data.standardise(sample.image())
        found = predicted_classes(model, x_CHW.to(options.torch_device), options.batch_size)
        (image,) = to_rgb(x_CHW[None], data.bands)
        hidden = np.where(truth == IGNORED, IGNORED, found)
        pictures = ((image, sample.name), (coloured(truth), "truth"), (coloured(hidden), "predicted"))
        rows.append(Row("", tuple(Tile(picture, words) for picture, words in pictures)))
    return [*rows, *_legend(data.classes)]


def coloured(mask_HW: Array) -> Array:
    """Return a mask as a picture (H, W, 3) uint8: a colour a class, black where the truth is not
    known."""
    palette = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in COLOURS], np.uint8)
    picture = palette[mask_HW % len(palette)]
    # From the second pass through the palette on colours are darker, and again.
    picture = (picture / (1 + 0.6 * (mask_HW // len(palette)))[..., None]).astype(np.uint8)
    picture[mask_HW == IGNORED] = 0
    return cast(Array, picture)


def _legend(classes: Sequence[str]) -> list[Row]:
    """Return the colour of each class, as rows of a few small tiles: the names of many do not fit
    into one."""
    patch = np.ones((SWATCH_PIXELS // 2, SWATCH_PIXELS), np.int64)
    tiles = [Tile(coloured(patch * k), name) for k, name in enumerate(classes)]
    return [Row("", tuple(row)) for row in batched(tiles, MOST_SWATCHES)]
