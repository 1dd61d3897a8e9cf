"""Scene classification: nearest neighbours and a linear probe of frozen features, and fine-tuning
of the whole network.

Shapes: N training and M test images, D features, K classes, B batch, S side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, assert_never, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

from fedsense_core.errors import FedSenseError, SiteError
from fedsense_core.evaluation.embedding import evaluating, resize
from fedsense_core.evaluation.probes import knn_predictions, linear_predictions
from fedsense_core.seeds import seed_of
from fedsense_core.tools.downstream.classification_layouts import LAYOUTS, load_classification
from fedsense_core.tools.downstream.dihedral import SYMMETRIES, transformed
from fedsense_core.tools.downstream.encoders import fitted, own_side
from fedsense_core.tools.downstream.fitting import fit, weights_drawn_from
from fedsense_core.tools.downstream.group_counts import GroupedConfusion
from fedsense_core.tools.downstream.names import Heads, Mode
from fedsense_core.tools.downstream.options import TaskOptions
from fedsense_core.tools.downstream.reading import Described
from fedsense_core.tools.downstream.result import TaskResult
from fedsense_core.tools.downstream.samples import Array, Sample, TaskData, spread_over
from fedsense_core.tools.downstream.tasks import DownstreamTask
from fedsense_core.tools.downstream.tiling import batched, drawn
from fedsense_core.tools.reporting.tiles import Row, Tile, to_rgb

PREDICTIONS = {"knn": knn_predictions, "linear": linear_predictions}
"""Of frozen features, by head."""
SCORED_AT_ONCE = 64
"""Images in a batch without gradients."""
MOST_SHOWN = 24
"""Test images in a picture, in rows of six."""


@dataclass(frozen=True)
class _Work:
    """What every head needs."""

    encoder: nn.Module
    data: TaskData[int]
    options: TaskOptions
    side: int
    train_y: Array
    test_y: Array

    @cached_property
    def features(self) -> tuple[Array, Array]:
        """Features of the frozen encoder (N, D) and (M, D). Raises FedSenseError where they are not
        finite."""
        return _features(self)

    def predictions(self, mode: Mode, head: str) -> Iterator[Array]:
        """Yield the classes (M,) that each training predicts."""
        match mode:
            case "frozen":
                yield PREDICTIONS[head](self.features[0], self.train_y, self.features[1])
            case "fine-tuned":
                yield from (_fine_tuned(self, seed) for seed in range(self.options.seeds))
            case _:
                assert_never(mode)

    def images(self, samples: Sequence[Sample[int]]) -> Tensor:
        """Return images (B, C, S, S), standardised, on the device."""
        each = [resize(self.data.standardise(sample.image())[None], self.side) for sample in samples]
        return torch.cat(each).to(self.options.torch_device)


class Classification(DownstreamTask[int]):
    """Scenes, scored by macro F1 and overall accuracy.

    Images are resized to ``options.side``, else to the side that the encoder was trained on.
    Frozen: ``knn`` (20 neighbours) and ``linear`` (logistic regression), both without randomness
    and therefore run once. Fine-tuned: ``linear``, encoder and head trained together.
    """

    name = "classification"
    metric = "macro-f1"
    heads: ClassVar[Heads] = {"frozen": ("knn", "linear"), "fine-tuned": ("linear",)}
    layouts = LAYOUTS
    example = "labelled"

    def load(self, folder: Path, described: Described) -> TaskData[int]:
        """See `load_classification`."""
        return load_classification(folder, described)

    def prepare(
        self, encoder: nn.Module, data: TaskData[int], options: TaskOptions
    ) -> Callable[[Mode, str], TaskResult]:
        """Raises SiteError for an empty part or a class without training images; what is returned
        raises FedSenseError for an encoder whose features are not finite."""
        train_y, test_y = (np.array([sample.target() for sample in part]) for part in (data.train, data.test))
        _check(data, train_y, test_y)
        side = options.side or own_side(encoder) or data.train[0].image().shape[-1]
        return partial(self._of, _Work(encoder, data, options, side, train_y, test_y))

    def _of(self, work: _Work, mode: Mode, head: str) -> TaskResult:
        data, classes = work.data, len(work.data.classes)
        predicted = list(work.predictions(mode, head))
        scores, evidence = [], []
        for predicted_M in predicted:
            counted = GroupedConfusion([sample.group for sample in data.test], classes)
            for sample, truth, found in zip(data.test, work.test_y, predicted_M, strict=True):
                counted.add(sample.group, np.array([truth]), np.array([found]))
            evidence.append(counted.evidence("macro-f1"))
            pair = torch.from_numpy(predicted_M), torch.from_numpy(work.test_y)
            scores.append(
                {
                    "macro-f1": float(multiclass_f1_score(*pair, classes, average="macro")),
                    "accuracy": float(multiclass_accuracy(*pair, classes, average="micro")),
                }
            )
        if work.options.show is not None:
            work.options.show(f"{mode}-{head}", _pictures(data, predicted[0]))
        return self.result(data, mode, head, scores, evidence)


@torch.no_grad()
def _features(work: _Work) -> tuple[Array, Array]:
    encoder = fitted(work.encoder, work.side).to(work.options.torch_device)
    parts = []
    with evaluating(encoder):
        for name, samples in (("training", work.data.train), ("test", work.data.test)):
            done: list[Array] = []
            for batch in batched(samples, SCORED_AT_ONCE):
                done.append(encoder(work.images(batch)).float().cpu().numpy())
                work.options.progress(f"features of the {name} part", sum(map(len, done)), len(samples))
            parts.append(np.concatenate(done))
    if not all(np.isfinite(part).all() for part in parts):
        raise FedSenseError("features are not finite: the encoder diverged in its training; train it slower.")
    return parts[0], parts[1]


def _fine_tuned(work: _Work, seed: int) -> Array:
    """Return the classes (M,) that an encoder and a head predict after training together."""
    data, options, device = work.data, work.options, work.options.torch_device
    # Dropped paths are drawn while training, so all of it is done inside.
    with weights_drawn_from(seed_of("classification", seed)):
        encoder = fitted(work.encoder, work.side).requires_grad_(True)
        head = nn.Linear(int(cast(int, encoder.num_features)), len(data.classes))
        model = nn.Sequential(encoder, head).to(device)
        generator = torch.Generator().manual_seed(seed_of("batches", seed))
        batches = drawn(len(data.train), min(options.batch_size, len(data.train)), generator)

        def loss_of_step() -> Tensor:
            chosen = next(batches)
            symmetry = int(torch.randint(SYMMETRIES, (1,), generator=generator))
            logits: Tensor = model(transformed(work.images([data.train[i] for i in chosen]), symmetry))
            return F.cross_entropy(logits, torch.from_numpy(work.train_y[chosen]).to(device))

        fit(model, encoder, loss_of_step, options.steps(len(data.train)), options, f"fine-tuning, seed {seed}")
        with torch.no_grad():
            found = [model(work.images(batch)).argmax(1) for batch in batched(data.test, SCORED_AT_ONCE)]
    return np.asarray(torch.cat(found).cpu().numpy())


def _pictures(data: TaskData[int], predicted_M: Array) -> list[Row]:
    rows: list[Row] = []
    for positions in batched(spread_over(range(len(data.test)), MOST_SHOWN), 6):
        tiles = []
        for i in positions:
            sample, found = data.test[i], int(predicted_M[i])
            truth = sample.target()
            (image,) = to_rgb(data.standardise(sample.image())[None], data.bands)
            words = data.classes[truth] if truth == found else f"{data.classes[truth]}, taken for {data.classes[found]}"
            tiles.append(Tile(image, words, truth == found))
        rows.append(Row("", tuple(tiles)))
    return rows


def _check(data: TaskData[int], train_y: Array, test_y: Array) -> None:
    for part, labels in (("training", train_y), ("test", test_y)):
        if not len(labels):
            raise SiteError(f"the {part} part of {data.name} is empty: both parts need images.")
    missing = np.setdiff1d(test_y, train_y)
    if missing.size:
        names = ", ".join(data.classes[k] for k in missing)
        raise SiteError(f"{data.name}: no training image of {names}, which the test part has. Add some.")
    if len(np.unique(train_y)) < 2:
        raise SiteError(f"{data.name}: all training images are of one class; there is nothing to tell apart.")
