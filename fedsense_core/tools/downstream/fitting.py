"""Training of a head, alone or together with its encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import cos, pi

import torch
from torch import Tensor, nn

from fedsense_core.errors import FedSenseError
from fedsense_core.tools.downstream.options import TaskOptions

ENCODER_SHARE = 0.1
"""Of that rate, for a pre-trained encoder: it is to be adapted, not replaced."""
WEIGHT_DECAY = 1e-4
WARMUP = 0.1
"""Share of the steps over which the rate rises."""
LONGEST = 10.0
"""Gradients of a larger norm are shortened: the first ones of a detector are."""


@contextmanager
def weights_drawn_from(seed: int) -> Iterator[None]:
    """Draw the weights of new layers from ``seed`` and leave torch's global generators as they
    were."""
    devices = range(torch.cuda.device_count())  # seeding seeds them all
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def fit(
    model: nn.Module,
    encoder: nn.Module,
    loss_of_step: Callable[[], Tensor],
    steps: int,
    options: TaskOptions,
    what: str,
) -> None:
    """Train ``model``, of which ``encoder`` is a part that learns slowly or not at all, for so many
    steps.

    AdamW; the rate rises over the first tenth of the steps and falls to 0 by a cosine.
    ``loss_of_step`` draws the next batch and returns its loss. Raises FedSenseError where the loss
    is no number any more.
    """
    inside = {id(parameter) for parameter in encoder.parameters()}
    new = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    old = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    rate = options.learning_rate
    groups = [{"params": new, "lr": rate}, *([{"params": old, "lr": rate * ENCODER_SHARE}] if old else [])]
    optimiser = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _share(step, steps))
    model.train()
    for step in range(steps):
        loss = loss_of_step()
        if not torch.isfinite(loss):
            raise FedSenseError(f"{what}: the loss is {float(loss)} after {step} steps; lower the learning rate.")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([*new, *old], LONGEST)
        optimiser.step()
        schedule.step()
        options.progress(what, step + 1, steps)
    model.eval()


def _share(step: int, steps: int) -> float:
    warm = max(1, round(WARMUP * steps))
    return (step + 1) / warm if step < warm else 0.5 * (1 + cos(pi * (step - warm) / max(1, steps - warm)))
