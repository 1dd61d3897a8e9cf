"""Semantic segmentation: a linear head and a decoder after UPerNet, on a frozen encoder or trained with it.

Shapes: B batch, C bands, H x W pixels of an image, S side of what the encoder sees, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from fedsense_core.downstream.drawing import SWATCH_PIXELS
from fedsense_core.downstream.encoders import Pyramid
from fedsense_core.downstream.evidence import ConfusionEvidence
from fedsense_core.downstream.fitting import fit, weights_drawn_from
from fedsense_core.downstream.grouping import GroupedConfusion
from fedsense_core.downstream.heads import LinearHead, PyramidHead, pixel_logits
from fedsense_core.downstream.options import TaskOptions
from fedsense_core.downstream.result import Mode, TaskResult
from fedsense_core.downstream.samples import IGNORED, Array, Sample, TaskData
from fedsense_core.downstream.tiling import batched, drawn, filled_up, random_window
from fedsense_core.downstream.turning import TURNS, turned
from fedsense_core.errors import SiteError
from fedsense_core.reporting.canvas import COLOURS
from fedsense_core.reporting.tiles import Row, Tile, to_rgb
from fedsense_core.seeds import seed_of

HEADS: dict[Mode, tuple[str, ...]] = {"frozen": ("linear", "upernet"), "fine-tuned": ("upernet",)}
BUILD = {"linear": LinearHead, "upernet": PyramidHead}
RATES = {"linear": 10.0, "upernet": 1.0}
"""Learning rate of each head, as a multiple: a linear map is convex and bears a higher one."""
USUAL_SIDE = 256
"""Side of crops where images are larger."""
OVERLAP = 0.25
"""Share of a window's side that the next window shows again: predictions at borders know little."""
MOST_SHOWN = 8
MOST_SWATCHES = 7
"""Colours in a row of the legend."""
LEAST_KNOWN = 0.1
"""Share of an image's pixels with known truth below which a picture of it shows nothing."""


class PixelModel(nn.Module):
    """An encoder's maps with a head on them: images (B, C, S, S) to logits (B, K, S, S)."""

    def __init__(self, pyramid: Pyramid, head: nn.Module) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.head = head

    def forward(self, x_BCSS: Tensor) -> Tensor:
        """Return logits (B, K, S, S)."""
        return pixel_logits(self.head(self.pyramid(x_BCSS)), self.pyramid.padded, self.pyramid.side)


def evaluate_segmentation(encoder: nn.Module, data: TaskData[Array], options: TaskOptions) -> list[TaskResult]:
    """Score ``encoder`` on pixels: mean IoU over the classes that occur, the main metric, and overall accuracy.

    Training takes random crops of ``options.side`` pixels (the images' own side, at most 256, where it is not given);
    testing goes over whole images in overlapping windows. Frozen: ``linear`` and ``upernet``; fine-tuned: ``upernet``.
    Raises SiteError for an empty part, or truth without any class; ConfigError for an unknown head.
    """
    pairs = options.chosen(HEADS)
    if not data.train or not data.test:
        raise SiteError(f"{data.name} has {len(data.train)} training and {len(data.test)} test images; needs both.")
    results = []
    for mode, head in pairs:
        scores, evidence = [], []
        for seed in range(options.seeds):
            model = _trained(encoder, data, options, (mode, head, seed))
            one = _scored(model, data, options, f"{mode} {head}, seed {seed}: test images")
            scores.append(one[0])
            evidence.append(one[1])
            if seed == 0 and options.show is not None:
                options.show(f"{mode}-{head}", _pictures(model, data, options))
        measured = (tuple(scores), tuple(evidence))
        results.append(TaskResult("segmentation", data.name, mode, head, "mean-iou", *measured, note=data.note))
    return results


def _trained(
    encoder: nn.Module, data: TaskData[Array], options: TaskOptions, plan: tuple[Mode, str, int]
) -> PixelModel:
    mode, head, seed = plan
    place = options.place
    side = options.side or min(USUAL_SIDE, max(data.train[0].image().shape[1:]))
    # Dropped paths are drawn while training, so all of it is done inside.
    with weights_drawn_from(seed_of("segmentation", mode, head, seed)):
        pyramid = Pyramid(encoder, side, trained=mode == "fine-tuned")
        model = PixelModel(pyramid, BUILD[head](pyramid.channels, len(data.classes))).to(place)
        generator = torch.Generator().manual_seed(seed_of("batches", seed))
        batches = drawn(len(data.train), min(options.batch_size, len(data.train)), generator)

        def loss_of_step() -> Tensor:
            crops = [_crop(data, data.train[i], side, generator) for i in next(batches)]
            x_BCSS, truth_BSS = (torch.stack(part).to(place) for part in zip(*crops, strict=True))
            summed = F.cross_entropy(model(x_BCSS), truth_BSS, ignore_index=IGNORED, reduction="sum")
            return summed / (truth_BSS != IGNORED).sum().clamp_min(1)  # a batch may be all unknown

        what = f"{mode} {head}, seed {seed}"
        steep = replace(options, learning_rate=options.learning_rate * RATES[head])
        fit(model, pyramid.encoder, loss_of_step, options.steps(len(data.train)), steep, what)
    return model


def _crop(data: TaskData[Array], sample: Sample[Array], side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a random crop (C, S, S), turned at random, and its truth (S, S); where the image ends the truth does."""
    image, mask = sample.image(), sample.target()
    window = random_window(image.shape[1], image.shape[2], side, generator)
    x_CSS = filled_up(data.standardise(image[:, *window.slices]), side, 0.0)
    truth_SS = torch.from_numpy(np.ascontiguousarray(mask[window.slices], dtype=np.int64))
    turn = int(torch.randint(TURNS, (1,), generator=generator))
    return turned(x_CSS, turn), turned(filled_up(truth_SS, side, IGNORED), turn)


@torch.no_grad()
def predicted_classes(model: PixelModel, x_CHW: Tensor, batch_size: int) -> Array:
    """Return the class (H, W) of each pixel of a standardised image of any size.

    Windows overlap by a quarter; where they do, their probabilities are averaged.
    """
    side = model.pyramid.side
    height, width = x_CHW.shape[1:]
    filled = F.pad(x_CHW, (0, max(0, side - width), 0, max(0, side - height)))
    corners = [(top, left) for top in starts(height, side) for left in starts(width, side)]
    total: Tensor | None = None
    for batch in batched(corners, batch_size):
        x_BCSS = torch.stack([filled[:, top : top + side, left : left + side] for top, left in batch])
        shares_BKSS = model(x_BCSS).softmax(1)
        if total is None:
            total = shares_BKSS.new_zeros(shares_BKSS.shape[1], *filled.shape[1:])
        for (top, left), shares_KSS in zip(batch, shares_BKSS, strict=True):
            total[:, top : top + side, left : left + side] += shares_KSS
    assert total is not None
    return np.asarray(total[:, :height, :width].argmax(0).cpu().numpy())


def starts(length: int, side: int) -> list[int]:
    """Return where windows of ``side`` pixels begin that cover ``length``, evenly spread, overlapping by a quarter."""
    room = max(0, length - side)
    count = 1 + int(np.ceil(room / (side * (1 - OVERLAP))))
    return [round(i * room / max(1, count - 1)) for i in range(count)]


def _predictions(model: PixelModel, data: TaskData[Array], options: TaskOptions, what: str) -> Iterator[Array]:
    for number, sample in enumerate(data.test, start=1):
        x_CHW = data.standardise(sample.image()).to(options.place)
        yield predicted_classes(model, x_CHW, options.batch_size)
        options.progress(what, number, len(data.test))


def _scored(
    model: PixelModel, data: TaskData[Array], options: TaskOptions, what: str
) -> tuple[dict[str, float], ConfusionEvidence]:
    classes = len(data.classes)
    counted = GroupedConfusion([sample.group for sample in data.test], classes)
    overlap = MulticlassJaccardIndex(classes, ignore_index=IGNORED)
    accuracy = MulticlassAccuracy(classes, average="micro", ignore_index=IGNORED)
    for sample, found in zip(data.test, _predictions(model, data, options, what), strict=True):
        truth = sample.target()
        counted.add(sample.group, truth.ravel(), found.ravel())
        for metric in (overlap, accuracy):
            metric.update(torch.from_numpy(found)[None], torch.from_numpy(truth)[None])
    if not counted.counts_GKK.any():
        raise SiteError(f"{data.name}: no pixel of the test images has a class; all masks are {IGNORED}.")
    return {"mean-iou": float(overlap.compute()), "accuracy": float(accuracy.compute())}, counted.evidence("mean-iou")


def _pictures(model: PixelModel, data: TaskData[Array], options: TaskOptions) -> list[Row]:
    chosen = np.unique(np.linspace(0, len(data.test) - 1, min(len(data.test), MOST_SHOWN)).astype(int))
    rows = []
    for i in chosen:
        sample = data.test[i]
        truth = sample.target()
        if (truth != IGNORED).mean() < LEAST_KNOWN:
            continue
        x_CHW = data.standardise(sample.image())
        found = predicted_classes(model, x_CHW.to(options.place), options.batch_size)
        (image,) = to_rgb(x_CHW[None], data.bands)
        hidden = np.where(truth == IGNORED, IGNORED, found)
        pictures = ((image, sample.name), (coloured(truth), "truth"), (coloured(hidden), "predicted"))
        rows.append(Row("", tuple(Tile(picture, words) for picture, words in pictures)))
    return [*rows, *_legend(data.classes)]


def coloured(mask_HW: Array) -> Array:
    """Return a mask as a picture (H, W, 3) uint8: a colour a class, black where the truth is not known."""
    palette = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in COLOURS], np.uint8)
    picture = palette[mask_HW % len(palette)]
    # From the second turn through the palette on colours are darker, and again.
    picture = (picture / (1 + 0.6 * (mask_HW // len(palette)))[..., None]).astype(np.uint8)
    picture[mask_HW == IGNORED] = 0
    return cast(Array, picture)


def _legend(classes: Sequence[str]) -> list[Row]:
    """Return the colour of each class, as rows of a few small tiles: the names of many do not fit into one."""
    patch = np.ones((SWATCH_PIXELS // 2, SWATCH_PIXELS), np.int64)
    tiles = [Tile(coloured(patch * k), name) for k, name in enumerate(classes)]
    return [Row("", tuple(row)) for row in batched(tiles, MOST_SWATCHES)]
