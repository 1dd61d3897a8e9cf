"""What a downstream task is, and the calls that load and run one by its name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, cast

from torch import nn

from fedsense_core.data.sites.locations import sample_folder
from fedsense_core.encoder import load_encoder
from fedsense_core.errors import SiteError
from fedsense_core.models.stored_stem import STEM
from fedsense_core.registry import implementation
from fedsense_core.tools.downstream.evidence import ConfusionEvidence, DetectionEvidence
from fedsense_core.tools.downstream.names import Heads, Mode, TaskName
from fedsense_core.tools.downstream.options import TaskOptions
from fedsense_core.tools.downstream.reading import Described
from fedsense_core.tools.downstream.result import TaskResult
from fedsense_core.tools.downstream.samples import Target, TaskData

UNDESCRIBED = Described()


class DownstreamTask(ABC, Generic[Target]):
    """One task: the folders that it reads, the heads that it has, and how they are scored.

    A new task is a subclass in ``fedsense_core/tools/downstream/NAME.py`` and its name in
    `TaskName`.
    """

    name: ClassVar[TaskName]
    metric: ClassVar[str]
    """The main one of its scores, which its evidence computes."""
    heads: ClassVar[Heads]
    """In each mode that it can be done in."""
    layouts: ClassVar[str]
    """The folders that `load` reads, in words for error messages."""
    example: ClassVar[str]
    """Folder of its small real example, below the shipped sample."""

    @abstractmethod
    def load(self, folder: Path, described: Described) -> TaskData[Target]:
        """Read a labelled folder. Raises SiteError that names the layouts."""

    @abstractmethod
    def prepare(
        self, encoder: nn.Module, data: TaskData[Target], options: TaskOptions
    ) -> Callable[[Mode, str], TaskResult]:
        """Check the data and return what makes the result of a mode and head.

        ``encoder`` carries ``bands`` (as `load_encoder` returns it), which the images have in its
        order. Raises SiteError for data that cannot be learned from or scored.
        """

    def evaluate(self, encoder: nn.Module, data: TaskData[Target], options: TaskOptions) -> list[TaskResult]:
        """Return one result for each chosen mode and head. Raises ConfigError for an unknown
        head."""
        pairs = options.chosen(self.heads)
        make = self.prepare(encoder, data, options)
        return [options.once(mode, head, partial(make, mode, head)) for mode, head in pairs]

    def result(
        self,
        data: TaskData[Target],
        mode: Mode,
        head: str,
        scores: Sequence[dict[str, float]],
        evidence: Sequence[ConfusionEvidence | DetectionEvidence],
    ) -> TaskResult:
        """Return scores and evidence, one of each for a seed, as the result of a mode and head."""
        return TaskResult(
            task=self.name,
            data=data.name,
            mode=mode,
            head=head,
            metric=self.metric,
            scores=tuple(scores),
            evidence=tuple(evidence),
            note=data.note,
        )


def task_named(name: TaskName) -> DownstreamTask[Any]:
    """Return the task of a name."""
    # The class is abstract, and mypy wants a concrete one where a type is passed.
    return implementation("fedsense_core.tools.downstream", name, DownstreamTask)()


def load_task(name: TaskName, folder: str | Path, described: Described = UNDESCRIBED) -> TaskData[Any]:
    """Read the labelled ``folder`` of a task, in any of the layouts that the task knows.

    Raises SiteError that says what was looked for, or which file is wrong.
    """
    return task_named(name).load(Path(folder), described)


def shipped_example(name: TaskName) -> Path:
    """Return the folder of the small real example of a task. Raises SiteError where it was not
    installed."""
    folder = sample_folder() / task_named(name).example
    if not folder.is_dir():
        raise SiteError(f"{folder}: is not there. Install FedSense again, or give --data.")
    return folder


def load_for(folder: str | Path, data: TaskData[Any]) -> nn.Module:
    """Load an exported encoder for the images of a task: one of any bands reads all of them,
    another one its own.

    Raises CheckpointError where the folder is no export.
    """
    return load_encoder(folder, bands=data.spectrum if (Path(folder) / STEM).is_file() else None)


def evaluate_encoder(encoder: nn.Module, data: TaskData[Any], options: TaskOptions) -> list[TaskResult]:
    """Do a task with ``encoder``, frozen, fine-tuned or both, and return one result for each mode
    and head.

    ``encoder`` maps (B, bands, H, W) to (B, D) and names its ``bands``, which the images must have;
    it is left as it was. Same options and seeds give the same results on one machine. Raises
    SiteError where the images lack a band or a part of the data is empty, ConfigError for options
    that the task does not know.
    """
    bands = cast(tuple[str, ...], encoder.bands)
    return task_named(data.task).evaluate(encoder, data.only(bands).in_memory(), options)
