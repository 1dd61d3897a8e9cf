"""Evaluating a trial: every task on every encoder that the trial left, and the untrained encoder of
a control."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedsense_core.config import Config
from fedsense_core.data.opening import load_site
from fedsense_core.data.sites.locations import public_file
from fedsense_core.data.sites.sensors import Band, shipped_card
from fedsense_core.encoder import export_encoder
from fedsense_core.errors import FedSenseError
from fedsense_core.models.pretraining import build_model, encoder_args
from fedsense_core.run_folder import RunFolder
from fedsense_core.run_folder.folder import read_json, write_json
from fedsense_core.tools.benchmark.matrix import Task
from fedsense_core.tools.downstream.result import TaskResult, load_results, save_results

RESULTS, EVALUATED = "results.npz", "evaluated.json"
PRUNED = ("checkpoints", "clients", "cache", "spool", "models")
Evaluate = Callable[[Path, str, Task, str], TaskResult]
"""Takes the folder of an encoder, the name of the task, the task and where its data are."""


def run_folders(trial: Path) -> list[Path]:
    """Return the run folders of a trial: itself, or one for each site of ``standalone``."""
    if (trial / "encoder").is_dir():
        return [trial]
    return sorted(path.parent for path in trial.glob("*/encoder"))


def evaluate_trial(
    trial: Path, tasks: Mapping[str, Task], data: Mapping[str, str], evaluate: Evaluate | None = None
) -> None:
    """Do every task that is new or changed, and keep the results beside each encoder. Raises what a
    task raises."""
    folders = run_folders(trial)
    if not folders:
        raise FedSenseError(f"{trial} holds no encoder to evaluate: delete it, and the next start makes it again")
    for folder in folders:
        known = results_of(folder)
        was = read_json(folder / EVALUATED) or {}
        for name, task in tasks.items():
            if name not in known or was.get(name) != task.definition:
                known[name] = (evaluate or do_task)(folder / "encoder", name, task, data[name])
                was[name] = task.definition
                # Results first: a task without its entry is done again.
                save_results(folder / RESULTS, list(known.values()))
                write_json(folder / EVALUATED, {key: was[key] for key in known})


def results_of(folder: Path) -> dict[str, TaskResult]:
    """Return the results beside one encoder, by task; what each was evaluated on is in
    ``evaluated.json``."""
    if not (folder / RESULTS).exists():
        return {}
    names = list(read_json(folder / EVALUATED) or {})
    return dict(zip(names, load_results(folder / RESULTS), strict=False))


def current_results(folder: Path, tasks: Mapping[str, Task]) -> dict[str, TaskResult]:
    """Return those results beside one encoder that are of these tasks as they are now."""
    was, known = read_json(folder / EVALUATED) or {}, results_of(folder)
    return {name: known[name] for name, task in tasks.items() if name in known and was[name] == task.definition}


def do_task(encoder_folder: Path, name: str, task: Task, data: str) -> TaskResult:
    """Do one task with one encoder. Raises FedSenseError where it gives other than one result."""
    from fedsense_core.tools.downstream.options import TaskOptions
    from fedsense_core.tools.downstream.tasks import evaluate_encoder, load_for, load_task, shipped_example

    folder = shipped_example(task.task) if data == "sample" else Path(data)
    options = TaskOptions(
        modes=(task.mode,),
        heads=(task.head,),
        seeds=task.seeds,
        epochs=task.epochs,
        most_steps=task.most_steps,
        batch_size=task.batch_size,
        learning_rate=task.learning_rate,
        side=task.side,
    )
    images = load_task(task.task, folder)
    results = evaluate_encoder(load_for(encoder_folder, images), images, options)
    if len(results) != 1:
        raise FedSenseError(f"tasks.{name}: mode and head give {len(results)} results; one is needed")
    return results[0]


def export_untrained(config: Config, folder: Path) -> None:
    """Write the encoder that a run of this configuration starts from, as the run would export
    it."""
    bands: Sequence[str] | Sequence[Band]
    if config.data.bands == "all":
        bands = shipped_card("rgb", "export").bands
    elif config.conditioned:
        bands = load_site(public_file(config)).sources[0].card.only(config.data.bands, "data.bands").bands
    else:
        bands = config.data.bands
    export_encoder(
        build_model(config).encoder,
        folder / "encoder",
        architecture=config.model.architecture,
        model_args=encoder_args(config.model.architecture, len(bands), config.data.view_size, config.model.args),
        bands=bands,
        mean=[0.0] * len(bands),
        std=[1.0] * len(bands),
        image_size=config.data.view_size,
        extra={"untrained": True},
    )


def prune(trial: Path) -> None:
    """Delete what an evaluated and analysed trial no longer needs."""
    for run in run_folders(trial):
        for name in PRUNED:
            shutil.rmtree(run / name, ignore_errors=True)
        RunFolder(run).status_file.unlink(missing_ok=True)
