"""Change detection: what differs between the features of two images of one place, at every scale.

One encoder reads both images; the absolute differences of its maps go to a small decoder, as in FC-Siam-diff (arXiv
1810.08462), which trained its encoder from nothing instead.

Shapes: B batch, C bands of one image, S side of what the encoder sees, D channels of a level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import BinaryF1Score, BinaryJaccardIndex

from fedsense_core.downstream.encoders import Pyramid
from fedsense_core.downstream.evidence import ConfusionEvidence
from fedsense_core.downstream.fitting import fit, weights_drawn_from
from fedsense_core.downstream.grouping import GroupedConfusion
from fedsense_core.downstream.heads import pixel_logits, resized
from fedsense_core.downstream.options import TaskOptions
from fedsense_core.downstream.result import Mode, TaskResult
from fedsense_core.downstream.samples import IGNORED, Array, Sample, TaskData
from fedsense_core.downstream.segmentation import PixelModel, predicted_classes
from fedsense_core.downstream.tiling import drawn, filled_up, random_window, splits
from fedsense_core.downstream.turning import TURNS, turned
from fedsense_core.errors import SiteError
from fedsense_core.reporting.tiles import Row, Tile, to_rgb
from fedsense_core.seeds import seed_of

HEAD = "difference"
USUAL_SIDE = 256
"""Side of crops where images are larger."""
WIDTH = 64
"""Channels of the decoder at every level."""
MOST_SHOWN = 8
GREY = 128
"""Of pixels in pictures whose truth is not known."""


class DifferenceHead(nn.Module):
    """From the differences of maps to two classes of pixels, unchanged and changed."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        # Not normalised image by image: where nothing changed, that would make much of what little differs.
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
    """One encoder for both images (B, 2C, S, S), before and after, and a head on the differences."""

    def forward(self, x_BCSS: Tensor) -> Tensor:
        """Return logits (B, 2, S, S) of unchanged and changed; swapping the two images changes nothing."""
        both = self.pyramid(torch.cat(x_BCSS.chunk(2, 1)))
        differences = [torch.sub(*level.chunk(2)).abs() for level in both]
        return pixel_logits(self.head(differences), self.pyramid.padded, self.pyramid.side)


def evaluate_change(encoder: nn.Module, data: TaskData[Array], options: TaskOptions) -> list[TaskResult]:
    """Train and score the difference decoder on ``encoder``, frozen, fine-tuned or both; see `tasks.evaluate_encoder`.

    Scores are ``f1``, the main metric, and ``iou`` of the changed class, by torchmetrics. Training takes random crops
    of ``options.side`` pixels (the images' own side, at most 256, where it is not given); testing goes over whole
    images in overlapping windows. Raises SiteError for an empty part, or truth without any change.
    """
    results = []
    for mode, head in options.chosen({"frozen": (HEAD,), "fine-tuned": (HEAD,)}):
        scores, evidence = [], []
        for seed in range(options.seeds):
            ((train, test),) = splits(data)
            model = _trained(encoder, data, train, options, mode, seed)
            one = _scored(model, data, test, options, f"{mode} {head}, seed {seed}: test images")
            scores.append(one[0])
            evidence.append(one[1])
            if seed == 0 and options.show is not None:
                options.show(f"{mode}-{head}", change_pictures(model, data, options))
        results.append(
            TaskResult("change", data.name, mode, head, "f1", tuple(scores), tuple(evidence), note=data.note)
        )
    return results


def change_pictures(model: ChangeModel, data: TaskData[Array], options: TaskOptions) -> list[Row]:
    """Return a row of before, after, truth and prediction for some test images; changed is white, unknown grey."""
    chosen = np.unique(np.linspace(0, len(data.test) - 1, min(len(data.test), MOST_SHOWN)).astype(int))
    rows = []
    for sample in (data.test[i] for i in chosen):
        pair = _pair(data, sample)
        found = predicted_classes(model, pair.to(options.place), options.batch_size)
        truth = sample.target()
        before, after = to_rgb(torch.stack(pair.chunk(2)), data.bands)
        unknown = np.where(truth == IGNORED, IGNORED, found)
        pictures = (before, after, _black_and_white(truth), _black_and_white(unknown))
        words = (sample.name, "after", "truth", "predicted")
        rows.append(Row("", tuple(Tile(picture, word) for picture, word in zip(pictures, words, strict=True))))
    return rows


def _trained(
    encoder: nn.Module,
    data: TaskData[Array],
    train: Sequence[Sample[Array]],
    options: TaskOptions,
    mode: Mode,
    seed: int,
) -> ChangeModel:
    side = options.side or min(USUAL_SIDE, max(train[0].image().shape[1:]))
    # Dropped paths are drawn while training, so all of it is done inside.
    with weights_drawn_from(seed_of("change", mode, seed)):
        pyramid = Pyramid(encoder, side, trained=mode == "fine-tuned")
        model = ChangeModel(pyramid, DifferenceHead(pyramid.channels)).to(options.place)
        generator = torch.Generator().manual_seed(seed_of("batches", seed))
        batches = drawn(len(train), min(options.batch_size, len(train)), generator)

        def loss_of_step() -> Tensor:
            crops = [_crop(data, train[i], side, generator) for i in next(batches)]
            x_BCSS, truth_BSS = (torch.stack(part).to(options.place) for part in zip(*crops, strict=True))
            summed = F.cross_entropy(model(x_BCSS), truth_BSS, ignore_index=IGNORED, reduction="sum")
            return summed / (truth_BSS != IGNORED).sum().clamp_min(1)  # a batch may be all unknown

        what = f"{mode} {HEAD}, seed {seed}"
        fit(model, pyramid.encoder, loss_of_step, options.steps(len(train)), options, what)
    return model


def _pair(data: TaskData[Array], sample: Sample[Array]) -> Tensor:
    """Return both images (2C, H, W), standardised alike. Raises SiteError where there is no second, or another size."""
    before = sample.image()
    after = sample.after() if sample.after is not None else None
    if after is None or after.shape != before.shape:
        sizes = [f"{image.shape[2]} x {image.shape[1]}" for image in (before, after) if image is not None]
        raise SiteError(f"{data.name}, {sample.name}: needs two images on one grid, and has {' and '.join(sizes)}.")
    return torch.cat([data.standardise(before), data.standardise(after)])


def _crop(data: TaskData[Array], sample: Sample[Array], side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a random crop (2C, S, S) of both, turned at random, and its truth; where the images end the truth does."""
    mask = sample.target()
    window = random_window(mask.shape[0], mask.shape[1], side, generator)
    x_CSS = filled_up(_pair(data, sample)[:, *window.slices], side, 0)
    truth_SS = torch.from_numpy(np.ascontiguousarray(mask[window.slices], dtype=np.int64))
    turn = int(torch.randint(TURNS, (1,), generator=generator))
    return turned(x_CSS, turn), turned(filled_up(truth_SS, side, IGNORED), turn)


def _predictions(
    model: ChangeModel, data: TaskData[Array], test: Sequence[Sample[Array]], options: TaskOptions, what: str
) -> Iterator[Array]:
    for number, sample in enumerate(test, start=1):
        yield predicted_classes(model, _pair(data, sample).to(options.place), options.batch_size)
        options.progress(what, number, len(test))


def _scored(
    model: ChangeModel, data: TaskData[Array], test: Sequence[Sample[Array]], options: TaskOptions, what: str
) -> tuple[dict[str, float], ConfusionEvidence]:
    counted = GroupedConfusion([sample.group for sample in test], 2)
    f1, iou = BinaryF1Score(ignore_index=IGNORED), BinaryJaccardIndex(ignore_index=IGNORED)
    for sample, found in zip(test, _predictions(model, data, test, options, what), strict=True):
        truth = sample.target()
        counted.add(sample.group, truth.ravel(), found.ravel())
        for metric in (f1, iou):
            metric.update(torch.from_numpy(found), torch.from_numpy(truth))
    if not counted.counts_GKK[:, 1].any():
        raise SiteError(f"{data.name}: nothing changed in the truth of the test images, so there is no F1 to compute.")
    return {"f1": float(f1.compute()), "iou": float(iou.compute())}, counted.evidence("positive-f1")


def _black_and_white(mask_HW: Array) -> Array:
    grey_HW = np.where(mask_HW == IGNORED, GREY, np.where(mask_HW == 1, 255, 0)).astype(np.uint8)
    return np.asarray(np.repeat(grey_HW[..., None], 3, 2))
