"""What the tasks on pixels share: training on random crops, and predictions of whole images from
overlapping windows.

Shapes: B batch, C channels of what a model sees, H x W pixels of an image, S side of a crop, K
classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from fedsense_core.seeds import seed_of
from fedsense_core.tools.downstream.dihedral import SYMMETRIES, transformed
from fedsense_core.tools.downstream.encoders import Pyramid
from fedsense_core.tools.downstream.fitting import fit, weights_drawn_from
from fedsense_core.tools.downstream.group_counts import GroupedConfusion
from fedsense_core.tools.downstream.heads import pixel_logits
from fedsense_core.tools.downstream.names import Mode
from fedsense_core.tools.downstream.options import TaskOptions
from fedsense_core.tools.downstream.samples import IGNORED, Array, Sample
from fedsense_core.tools.downstream.tiling import batched, drawn, filled_up, random_window

USUAL_SIDE = 256
"""Side of crops where images are larger."""
OVERLAP = 0.25
"""Share of a window's side that the next window shows again: predictions at borders know little."""

Part = tuple[slice, slice]
WHOLE: Part = (slice(None), slice(None))
Read = Callable[[Sample[Array], Part], Tensor]
"""Returns the part (C, h, w) of a sample, standardised."""


class PixelModel(nn.Module):
    """An encoder's maps with a head on them: images (B, C, S, S) to logits (B, K, S, S)."""

    def __init__(self, pyramid: Pyramid, head: nn.Module) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.head = head

    def forward(self, x_BCSS: Tensor) -> Tensor:
        """Return logits (B, K, S, S)."""
        return pixel_logits(self.head(self.pyramid(x_BCSS)), self.pyramid.padded, self.pyramid.side)


Build = Callable[[Pyramid], PixelModel]
"""Puts a new head on an encoder's maps."""


def trained_on_crops(
    encoder: nn.Module,
    build: Build,
    train: Sequence[Sample[Array]],
    read: Read,
    options: TaskOptions,
    plan: tuple[Mode, str, int],
    weights_seed: int,
) -> PixelModel:
    """Return what ``build`` makes, trained on random crops of ``options.side`` pixels, else of the
    images' own side.

    ``plan`` is mode, head and the number of the training; ``weights_seed`` draws the new weights.
    """
    mode, head, number = plan
    device, side = options.torch_device, options.side or min(USUAL_SIDE, max(train[0].image().shape[1:]))
    # Dropped paths are drawn while training, so all of it is done inside.
    with weights_drawn_from(weights_seed):
        pyramid = Pyramid(encoder, side, trained=mode == "fine-tuned")
        model = build(pyramid).to(device)
        generator = torch.Generator().manual_seed(seed_of("batches", number))
        batches = drawn(len(train), min(options.batch_size, len(train)), generator)

        def loss_of_step() -> Tensor:
            crops = [random_crop(train[i], read, side, generator) for i in next(batches)]
            x_BCSS, truth_BSS = (torch.stack(part).to(device) for part in zip(*crops, strict=True))
            summed = F.cross_entropy(model(x_BCSS), truth_BSS, ignore_index=IGNORED, reduction="sum")
            return summed / (truth_BSS != IGNORED).sum().clamp_min(1)  # a batch may be all unknown

        what = f"{mode} {head}, seed {number}"
        fit(model, pyramid.encoder, loss_of_step, options.steps(len(train)), options, what)
    return model


def random_crop(sample: Sample[Array], read: Read, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a random crop (C, S, S), rotated and mirrored at random, and its truth (S, S); where
    the image ends the truth does."""
    mask = sample.target()
    window = random_window(mask.shape[0], mask.shape[1], side, generator)
    x_CSS = filled_up(read(sample, window.slices), side, 0.0)
    truth_SS = torch.from_numpy(np.ascontiguousarray(mask[window.slices], dtype=np.int64))
    symmetry = int(torch.randint(SYMMETRIES, (1,), generator=generator))
    return transformed(x_CSS, symmetry), transformed(filled_up(truth_SS, side, IGNORED), symmetry)


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
    """Return where windows of ``side`` pixels begin that cover ``length``, evenly spread,
    overlapping by a quarter."""
    room = max(0, length - side)
    count = 1 + int(np.ceil(room / (side * (1 - OVERLAP))))
    return [round(i * room / max(1, count - 1)) for i in range(count)]


def scored_pixels(
    model: PixelModel,
    test: Sequence[Sample[Array]],
    read: Read,
    options: TaskOptions,
    metrics: Mapping[str, Metric],
    classes: int,
    what: str,
) -> tuple[dict[str, float], GroupedConfusion]:
    """Return the value of each metric over all pixels of known truth, and how often each class was
    taken for which."""
    counted = GroupedConfusion([sample.group for sample in test], classes)
    for number, sample in enumerate(test, start=1):
        truth = sample.target()
        found = predicted_classes(model, read(sample, WHOLE).to(options.torch_device), options.batch_size)
        counted.add(sample.group, truth.ravel(), found.ravel())
        for metric in metrics.values():
            metric.update(torch.from_numpy(found)[None], torch.from_numpy(truth)[None])
        options.progress(what, number, len(test))
    return {name: float(metric.compute()) for name, metric in metrics.items()}, counted
