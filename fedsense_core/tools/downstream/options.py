"""How a task is to be done: what is trained, how long, and where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch

from fedsense_core.device import chosen_device
from fedsense_core.errors import ConfigError, nearest
from fedsense_core.tools.downstream.names import Mode
from fedsense_core.tools.downstream.result import TaskResult
from fedsense_core.tools.reporting.tiles import Row

LEAST_STEPS = 200
"""Of training where ``epochs`` is not given: ten epochs of a small set are too few."""
USUAL_EPOCHS = 10
QUICK_STEPS = 60


def _ignore_result(result: TaskResult) -> None:
    """Take a result that nobody asked for."""


def _ignore_progress(what: str, done: int, total: int) -> None:
    """Take progress that nobody asked for."""


@dataclass(frozen=True)
class TaskOptions:
    """What every task takes. The defaults take some minutes on two cores for a shipped example."""

    modes: tuple[Mode, ...] = ("frozen",)
    heads: tuple[str, ...] = ()
    """Which of the task's heads; none given means all of them."""
    seeds: int = 3
    """Trainings with other random choices, numbered from 0; a head without any (``knn``) runs
    once."""
    epochs: int | None = None
    """Passes over the training part. None: ten, and at least 200 steps."""
    most_steps: int | None = None
    """Upper end of the steps of one training, whatever ``epochs`` says."""
    batch_size: int = 16
    learning_rate: float = 1e-3
    """Of the head, at the peak of the cosine schedule; a fine-tuned encoder has a tenth of it."""
    side: int | None = None
    """Pixels along the side of what the encoder sees: scenes are resized to it, other images cut.
    None: by the task."""
    device: str = "auto"
    """``auto``: CUDA where there is one."""
    progress: Callable[[str, int, int], None] = _ignore_progress
    """Is told (what, done, total) while a task runs."""
    show: Callable[[str, Sequence[Row]], None] | None = None
    """Is given pictures of seed 0, one row of tiles a test image (image, truth, prediction), under
    the name ``MODE-HEAD``. None: no pictures are made."""

    finished: Sequence[TaskResult] = ()
    """Results of an interrupted call with these options, which are not made again."""
    on_result: Callable[[TaskResult], None] = _ignore_result
    """Is given each new result when it is there."""

    def once(self, mode: Mode, head: str, make: Callable[[], TaskResult]) -> TaskResult:
        """Return the finished result of a mode and head; where there is none, make it and report
        it."""
        for result in self.finished:
            if (result.mode, result.head) == (mode, head):
                return result
        made = make()
        self.on_result(made)
        return made

    @property
    def torch_device(self) -> torch.device:
        """Where to compute. Raises ConfigError for a device that is not there."""
        return chosen_device(self.device)

    def steps(self, samples: int) -> int:
        """Return the steps of one training on so many samples."""
        epoch = ceil(samples / self.batch_size)
        steps = self.epochs * epoch if self.epochs is not None else max(LEAST_STEPS, USUAL_EPOCHS * epoch)
        return max(1, min(steps, self.most_steps or steps))

    def chosen(self, offered: Mapping[Mode, Sequence[str]]) -> list[tuple[Mode, str]]:
        """Return the (mode, head) to do, of the heads that a task offers in each mode.

        Raises ConfigError for a head that the task does not have, and where nothing is left to do.
        """
        known = sorted({head for heads in offered.values() for head in heads})
        for head in self.heads:
            if head not in known:
                raise ConfigError(f"this task has no head {head!r}, but {', '.join(known)}.{nearest(head, known)}")
        pairs = [
            (mode, head) for mode in self.modes for head in offered[mode] if not self.heads or head in self.heads
        ]  # fmt: skip
        if not pairs:
            choices = "; ".join(f"{mode}: {', '.join(heads)}" for mode, heads in offered.items())
            raise ConfigError(
                f"no head of {', '.join(self.heads)} can be {' or '.join(self.modes)}. The choices are {choices}"
            )
        return pairs

    def quick(self) -> TaskOptions:
        """Return options for a first look: seconds instead of minutes, frozen, one seed."""
        return replace(self, modes=("frozen",), seeds=1, most_steps=min(self.most_steps or QUICK_STEPS, QUICK_STEPS))
