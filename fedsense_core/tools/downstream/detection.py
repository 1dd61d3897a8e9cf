"""Object detection: FCOS on an encoder's feature maps, scored by mean average precision.

Images are cut into square tiles, since objects at 0.2 to 1 m are small and scenes are large. Each
tile is scored as an image of its own: an object on a seam is asked for in both tiles, clipped,
where enough of it shows.

Shapes: B batch, C bands, S side of a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fedsense_core.errors import SiteError
from fedsense_core.seeds import seed_of
from fedsense_core.tools.downstream.boxes import Detections, detection_evidence, mean_precisions, within
from fedsense_core.tools.downstream.detection_layouts import LAYOUTS, load_detection
from fedsense_core.tools.downstream.dihedral import SYMMETRIES, transformed, transformed_boxes
from fedsense_core.tools.downstream.encoders import Pyramid
from fedsense_core.tools.downstream.fcos import STRIDES, Detector
from fedsense_core.tools.downstream.fitting import fit, weights_drawn_from
from fedsense_core.tools.downstream.names import Heads, Mode
from fedsense_core.tools.downstream.options import TaskOptions
from fedsense_core.tools.downstream.reading import Described
from fedsense_core.tools.downstream.result import TaskResult
from fedsense_core.tools.downstream.samples import Array, Boxes, Sample, TaskData, spread_over
from fedsense_core.tools.downstream.segmentation import coloured
from fedsense_core.tools.downstream.tasks import DownstreamTask
from fedsense_core.tools.downstream.tiling import batched, drawn, filled_up, random_window, splits, windows
from fedsense_core.tools.reporting.tiles import Row, Tile, to_rgb

HEAD = "fcos"
SIDE = 224
"""Pixels of a tile where the options do not say."""
WIDTH = 64
"""Channels of pyramid network and head. 256 is usual, for data sets of a hundred thousand
images."""
CHIPS_A_TILE = 8
"""A tile counts as so many images of ``batch_size``: it has many objects, and its finest maps cost
as much."""
MOST_SHOWN = 8


@dataclass(frozen=True)
class Scored:
    """A tile with its truth and what was found in it."""

    name: str
    group: str
    x_CHW: Tensor
    """Standardised."""
    truth: Boxes
    found: Detections


class Detection(DownstreamTask[Boxes]):
    """Objects, scored by COCO's mean average precision of torchmetrics: at an overlap of 0.5
    (``map-50``), and over overlaps (``map``).

    The evidence is that of ``map-50``, by groups of samples. Data without a test part is
    cross-validated, its folds scored together.
    """

    name = "detection"
    metric = "map-50"
    heads: ClassVar[Heads] = {"frozen": (HEAD,), "fine-tuned": (HEAD,)}
    layouts = LAYOUTS
    example = "tasks/detection/yellowstone-trees"

    def load(self, folder: Path, described: Described) -> TaskData[Boxes]:
        """See `load_detection`."""
        return load_detection(folder, described)

    def prepare(
        self, encoder: nn.Module, data: TaskData[Boxes], options: TaskOptions
    ) -> Callable[[Mode, str], TaskResult]:
        """What is returned raises SiteError for an empty part, or a test part without objects."""
        return partial(self._of, encoder, data, options)

    def _of(self, encoder: nn.Module, data: TaskData[Boxes], options: TaskOptions, mode: Mode, head: str) -> TaskResult:
        scores, evidence = [], []
        for seed in range(options.seeds):
            tiles = detect(encoder, data, options, mode, seed)
            found, truth = [tile.found for tile in tiles], [tile.truth for tile in tiles]
            if not any((~boxes.difficult_n).any() for boxes in truth):
                raise SiteError(f"{data.name}: the test images have no object that counts.")
            scores.append(mean_precisions(found, truth))
            evidence.append(detection_evidence(found, truth, [tile.group for tile in tiles], len(data.classes)))
            if seed == 0 and options.show is not None:
                options.show(f"{mode}-{head}", detection_pictures(tiles, data.bands))
        return self.result(data, mode, head, scores, evidence)


def detect(
    encoder: nn.Module, data: TaskData[Boxes], options: TaskOptions, mode: Mode = "frozen", seed: int = 0
) -> list[Scored]:
    """Train on each split of ``data`` and return the tiles of its test part with what was found."""
    side = ceil((options.side or SIDE) / STRIDES[-1]) * STRIDES[-1]
    scored: list[Scored] = []
    for fold, (train, test) in enumerate(splits(data)):
        # Dropped paths are drawn while training, so all of it is done inside.
        with weights_drawn_from(seed_of("detection", mode, seed, fold)):
            pyramid = Pyramid(encoder, side, trained=mode == "fine-tuned")
            detector = Detector(pyramid, len(data.classes), WIDTH).to(options.torch_device)
            generator = torch.Generator().manual_seed(seed_of("batches", seed, fold))
            loss = _loss_of_step(detector, data, train, side, options, generator)
            what = f"{mode} {HEAD}, seed {seed}, fold {fold + 1}"
            fit(detector, pyramid.encoder, loss, options.steps(len(train)), options, what)
        scored += _scored(detector, data, test, side, options)
    return scored


def detection_pictures(tiles: Sequence[Scored], bands: Sequence[str]) -> list[Row]:
    """Return a row for some tiles: the image, what is there (white; difficult: black), and over it
    the surest detections, as many as there are objects, in a colour for each class.

    All of them, most of which are unsure, would cover the image.
    """
    rows = []
    for tile in spread_over(tiles, MOST_SHOWN):
        (image,) = to_rgb(tile.x_CHW[None], bands)
        truth, surest = tile.truth, np.argsort(-tile.found.scores_d, kind="stable")[: len(tile.truth.classes_n)]
        found = tile.found.only(np.isin(np.arange(len(tile.found.scores_d)), surest))
        shades_n3 = np.where(truth.difficult_n, 0, 255)[:, None].repeat(3, 1)
        there = outlined(image, truth.xyxy_n4, shades_n3)
        both = outlined(there, found.xyxy_d4, coloured(found.classes_d[None])[0])
        words = (tile.name, f"truth: {len(truth.classes_n)}", f"predicted: the surest {len(found.classes_d)}")
        rows.append(Row("", tuple(Tile(one, word) for one, word in zip((image, there, both), words, strict=True))))
    return rows


def outlined(image: Array, xyxy_n4: Array, colours_n3: Array) -> Array:
    """Return a picture (H, W, 3) uint8 with outlines of boxes, inside of them and a hundredth of
    its side wide."""
    picture = image.copy()
    height, width = image.shape[:2]
    line = max(1, round(max(height, width) / 100))
    limits = np.array([width, height, width, height])
    for (left, top, right, bottom), colour in zip(xyxy_n4.round().clip(0, limits).astype(int), colours_n3, strict=True):
        picture[top : min(top + line, bottom), left:right] = colour
        picture[max(top, bottom - line) : bottom, left:right] = colour
        picture[top:bottom, left : min(left + line, right)] = colour
        picture[top:bottom, max(left, right - line) : right] = colour
    return picture


def _loss_of_step(
    detector: Detector,
    data: TaskData[Boxes],
    train: Sequence[Sample[Boxes]],
    side: int,
    options: TaskOptions,
    generator: torch.Generator,
) -> Callable[[], Tensor]:
    batches = drawn(len(train), max(1, options.batch_size // CHIPS_A_TILE), generator)

    def loss() -> Tensor:
        tiles = [_random_tile(data, train[i], side, generator) for i in next(batches)]
        x_BCSS = torch.stack([x for x, _ in tiles]).to(options.torch_device)
        return detector.loss(x_BCSS, [boxes for _, boxes in tiles])

    return loss


def _random_tile(
    data: TaskData[Boxes], sample: Sample[Boxes], side: int, generator: torch.Generator
) -> tuple[Tensor, Boxes]:
    """Return a tile (C, S, S) from anywhere in the image, rotated and mirrored at random, and its
    boxes."""
    image = sample.image()
    window = random_window(image.shape[1], image.shape[2], side, generator)
    x_CSS = filled_up(data.standardise(image[:, *window.slices]), side)
    boxes = within(sample.target(), window.top, window.left, window.height, window.width)
    symmetry = int(torch.randint(SYMMETRIES, (1,), generator=generator))
    return transformed(x_CSS, symmetry), transformed_boxes(boxes, symmetry, side)


def _scored(
    detector: Detector, data: TaskData[Boxes], test: Sequence[Sample[Boxes]], side: int, options: TaskOptions
) -> list[Scored]:
    scored = []
    for sample in test:
        image, boxes = sample.image(), sample.target()
        parts = windows(image.shape[1], image.shape[2], side)
        for some in batched(parts, options.batch_size):
            tiles = [data.standardise(image[:, *window.slices]) for window in some]
            found = detector.detect(torch.stack([filled_up(x, side) for x in tiles]).to(options.torch_device))
            for window, x_CHW, one in zip(some, tiles, found, strict=True):
                truth = within(boxes, window.top, window.left, window.height, window.width)
                where = f", row {window.top}, column {window.left}" if len(parts) > 1 else ""
                inside = _inside(one, window.height, window.width)
                scored.append(Scored(sample.name + where, sample.group, x_CHW, truth, inside))
    return scored


def _inside(found: Detections, height: int, width: int) -> Detections:
    """Return detections clipped to the part of the tile that is no padding; those wholly in it are
    gone."""
    corners_d4 = np.clip(found.xyxy_d4, 0, np.array([width, height, width, height], np.float32))
    kept_d = np.asarray((corners_d4[:, 2:] > corners_d4[:, :2]).all(1))
    return Detections(corners_d4, found.classes_d, found.scores_d).only(kept_d)
