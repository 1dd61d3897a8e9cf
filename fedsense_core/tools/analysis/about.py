"""What an analysis needs to know of a run, and says of it beside the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from fedsense_core.config import Config
from fedsense_core.data.batches.batch import Batch
from fedsense_core.errors import CheckpointError
from fedsense_core.run_folder.folder import RunFolder
from fedsense_core.run_folder.snapshots import Snapshots
from fedsense_core.ssl.settings import RecipeSettings
from fedsense_core.tools.analysis.loss_imagery import PUBLIC
from fedsense_core.tools.run_settings import settings_of

LOSS_SETTINGS = (
    # How a teacher moves, and what clients share, is no part of the loss at one model.
    *(name for name in RecipeSettings.model_fields if name not in ("teacher_decay", "federated_sigreg")),
    "batch_size",
    "band_subset",
)
"""Settings of ``train`` that make the loss what it is."""


def config_of(run: RunFolder) -> Config:
    """Return the configuration of a finished run. Raises CheckpointError for any other."""
    if not run.is_finished:
        raise CheckpointError(
            f"{run.path} is not finished, and models are kept after the last round: let it end, or continue it with "
            "the command that began it, and analyse it then."
        )
    return settings_of(run)


def models_of(run: RunFolder, config: Config) -> Path:
    """Return the folder of the kept models. Raises CheckpointError, saying why, where there is
    none."""
    if run.models.is_dir():
        return run.models
    why = (
        "it was run with run.keep_models = false. Run it again with run.keep_models = true"
        if not config.run.keep_models
        else "they were removed, or it was run by an older release. Run it again"
    )
    raise CheckpointError(f"{run.path} has no models/ to analyse: {why}.")


def about_run(config: Config, run: RunFolder, snapshots: Snapshots) -> dict[str, Any]:
    """Return what was run."""
    return {
        "folder": run.path.name,
        "preset": config.preset,
        "seed": config.run.seed,
        "rounds": config.run.rounds,
        "architecture": config.model.architecture,
        "parameters": snapshots.table.numel,
        "clients": len(snapshots),
        "config_digest": config.digest,
    }


def about_loss(config: Config, batches: Mapping[str, Sequence[Batch]], own: bool, per_client: int) -> dict[str, Any]:
    """Return what makes the loss: metrics compare where this is the same."""
    settings = config.model_dump(mode="json")
    return {
        "imagery": "clients" if own else PUBLIC,
        "institutions": list(batches),
        "batches_each": per_client,
        "train": {key: settings["train"][key] for key in LOSS_SETTINGS},
        "data": settings["data"],
    }


def notes_of(config: Config, own: bool) -> list[str]:
    """Return what a reader must know about the loss of this run, in sentences."""
    notes = []
    if not own:
        notes.append("No client's imagery is in the run folder: the loss is over the public imagery.")
    if config.needs_teacher:
        notes.append("The global model is the teacher of its own loss, and stays the teacher wherever w goes.")
    if config.model.local_parameters:
        notes.append(
            "Parameters that stay with the clients (model.local_parameters) have their initial values in every model."
        )
    return notes


def rounds_of(run: RunFolder) -> list[dict[str, Any]]:
    """Return drift and cosine of each round, means over clients, as the server measured them."""

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    return [
        {"round": line["round"], **{key: mean([*(line.get(key) or {}).values()]) for key in ("drift", "cosine")}}
        for line in run.read_metrics()
        if line["round"] > 0
    ]
