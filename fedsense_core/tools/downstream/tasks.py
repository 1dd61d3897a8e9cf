"""Every task by its name, and one call that runs the one of a data set."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, cast, get_args

from torch import nn

from fedsense_core.data.sites.locations import sample_folder, sample_labelled
from fedsense_core.encoder import load_encoder
from fedsense_core.errors import SiteError
from fedsense_core.models.stored_stem import STEM
from fedsense_core.tools.downstream.options import TaskOptions
from fedsense_core.tools.downstream.reading import Described
from fedsense_core.tools.downstream.result import TaskName, TaskResult
from fedsense_core.tools.downstream.samples import TaskData

Evaluate = Callable[[nn.Module, TaskData[Any], TaskOptions], list[TaskResult]]
"""Takes an encoder that carries ``bands`` (as `load_encoder` returns it), which the images have in
its order."""

UNDESCRIBED = Described()
LoadTask = Callable[[Path, Described], TaskData[Any]]
"""Reads a labelled folder. Raises SiteError that names the layouts it looked for."""

TASKS: tuple[TaskName, ...] = get_args(TaskName)
"""Task T lives in two modules, imported when it is needed: ``T`` with ``evaluate_T``, an
`Evaluate`, and ``T_layouts`` with ``load_T``, a `LoadTask`."""


def load_task(task: TaskName, folder: str | Path, described: Described = UNDESCRIBED) -> TaskData[Any]:
    """Read the labelled ``folder`` of a task, in any of the layouts that the task knows.

    Raises SiteError that says what was looked for, or which file is wrong.
    """
    module = import_module(f"fedsense_core.tools.downstream.{task}_layouts")
    return cast(LoadTask, getattr(module, f"load_{task}"))(Path(folder), described)


def shipped_example(task: TaskName) -> Path:
    """Return the folder of the small real example of a task. Raises SiteError where it was not
    installed."""
    if task == "classification":
        return sample_labelled()
    folders = sorted(path for path in (sample_folder() / "tasks" / task).glob("*") if path.is_dir())
    if not folders:
        raise SiteError(
            f"{sample_folder() / 'tasks' / task}: holds no example. Install FedSense again, or give --data."
        )
    return folders[0]


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
    module = import_module(f"fedsense_core.tools.downstream.{data.task}")
    evaluate = cast(Evaluate, getattr(module, f"evaluate_{data.task}"))
    return evaluate(encoder, data.only(cast(tuple[str, ...], encoder.bands)).in_memory(), options)
