"""One run from configuration to encoder: begin or continue, train, export."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from logging import INFO, WARNING
from pathlib import Path

import torch
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedsense_core.atomic_io import only_one
from fedsense_core.config import FREE_KEYS, Config
from fedsense_core.data.batches.batch import Batch
from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.chips.fills import warnings_of
from fedsense_core.data.chips.labelled import LabelledSet, load_labelled
from fedsense_core.data.chips.sensor_statistics import SensorStatistics
from fedsense_core.data.opening import load_site, open_site
from fedsense_core.data.overlap import OverlapShares, hashes_of, marks, marks_of
from fedsense_core.data.sites.locations import labelled_folder, public_file
from fedsense_core.data.sites.sensors import Band, shipped_card
from fedsense_core.data.sites.side_masks import side_mask_warnings
from fedsense_core.device import chosen_device
from fedsense_core.errors import CheckpointError, ConfigError
from fedsense_core.full_disk import naming_full_disk
from fedsense_core.models.pretraining import PretrainingModel, build_model
from fedsense_core.models.start import start_from_given
from fedsense_core.run_folder import RunFolder
from fedsense_core.run_folder.paths import run_folder
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.state import State
from server_app.callbacks.callback import RunCallback
from server_app.callbacks.checkpoint import Checkpoint
from server_app.callbacks.export import Export
from server_app.callbacks.last_models import LastModels
from server_app.callbacks.metrics_file import Record
from server_app.callbacks.probing import Probes
from server_app.callbacks.resources import Resources
from server_app.callbacks.status_file import StatusFile
from server_app.callbacks.terminal import Terminal
from server_app.checkpoints import Checkpoints
from server_app.continuing import EarlierRun, earlier_run_id
from server_app.distillation.distiller import Distiller
from server_app.printer import RoundPrinter
from server_app.strategy import FedSense


@dataclass(frozen=True)
class Material:
    """What the server reads from its own disk."""

    public: tuple[Chips, ...]
    """Each kind apart."""
    labelled: LabelledSet | None
    overlap: OverlapShares
    """What sites share with the public set and with the test part of the labelled one."""

    @classmethod
    def open(cls, config: Config, cache: Path) -> Material:
        """Open the public imagery and the labelled set. Raises SiteError naming what is wrong."""
        public = open_site(public_file(config), config, cache)
        site = load_site(public_file(config))
        for text in [*warnings_of(public, site), *side_mask_warnings(site)]:
            log(WARNING, "public imagery: %s", text)
        folder = labelled_folder(config)
        labelled = load_labelled(folder, config.data.bands) if folder else None
        tested = marks([], [hashes_of(labelled.test.values.numpy())] if labelled else [])
        return cls(public, labelled, OverlapShares({"public": marks_of(public), "labelled": tested}))


def run_session(config: Config, grid: Grid) -> Path:
    """Train and leave a run folder. Raises FedSenseError with what to do when that is not
    possible."""
    if config.preset == "standalone" and not config.federation.only:
        raise ConfigError(
            "preset 'standalone' trains one site: name it in federation.only (`fedsense run` trains each in turn)"
        )
    folder = run_folder(config)
    spare = "checkpoints and cache of finished runs"
    with naming_full_disk(folder, "run.folder (--out)", spare), only_one(folder):
        return _run(config, grid)


def _run(config: Config, grid: Grid) -> Path:
    device = chosen_device()
    # What does not fit is refused before there is a run folder.
    goes_on = RunFolder.exists(run_folder(config)) or config.run.continued_from
    model = None if goes_on else _first_model(config)
    run, state, checkpoints = _begin(config)
    material = Material.open(config, run.path / "cache")
    status = StatusFile(run)
    strategy = FedSense(
        config,
        build_model(config) if state else model or _first_model(config),
        run_id=state["run_id"] if state else secrets.randbits(62),
        spool=run.path / "spool",
        distiller=_distiller(config, material.public, device),
        callbacks=[status, *_callbacks(config, run, checkpoints, material, device)],
        channels=[material.overlap],
    )
    strategy.cohort.earlier_run_id = earlier_run_id(run)
    if state:
        strategy.load_state_dict(state)
    with status:
        strategy.start(grid)
    log(INFO, "run folder: %s", run.path)
    return run.path


def _first_model(config: Config) -> PretrainingModel:
    """Return w_1: drawn from the seed, or with the encoder that ``model.weights`` gives."""
    model = build_model(config)
    if config.model.weights:
        card, names = load_site(public_file(config)).sources[0].card, config.data.bands
        bands = card.bands if names == "all" else card.only(names, "model.weights").bands
        log(INFO, "%s", start_from_given(model, config, bands))
    return model


def _callbacks(
    config: Config, run: RunFolder, checkpoints: Checkpoints, material: Material, device: torch.device
) -> list[RunCallback]:
    """Return what happens after each round, in this order: what measures, what writes down, what
    saves."""
    terminal = Terminal(run, RoundPrinter(config.run.rounds, run.read_metrics()))
    probes = Probes(config.run, config.data.view_size, material.labelled, device)
    statistics = SensorStatistics.of(material.public, [load_site(public_file(config))])
    found: list[RunCallback] = [probes, Resources(), Record(run, probes, material.overlap), terminal]
    if config.run.keep_models:
        found.append(LastModels(run))
    return [*found, Checkpoint(checkpoints), Export(run, _exported_bands(config, material.public), statistics)]


def _begin(config: Config) -> tuple[RunFolder, State | None, Checkpoints]:
    """Start a run folder, or continue the unfinished run that is in it. A new one begins with a
    finished run where ``run.continued_from`` names one."""
    path = run_folder(config)
    checkpoints = Checkpoints(path / "checkpoints", config.digest, config.run.keep_checkpoints)
    settings = config.model_dump(mode="json")
    if config.run.resume == "never" or not RunFolder.exists(path):
        earlier = EarlierRun.before(config)
        run = RunFolder.create(path, settings)
        return run, earlier.hand_over(run, checkpoints, config.run.rounds) if earlier else None, checkpoints
    run = RunFolder.open(path, settings, free=FREE_KEYS)
    run.write_config(settings)  # free ones may be new: the next command continues with them
    state = checkpoints.newest()
    if state is None and (earlier := EarlierRun.before(config)):
        state = earlier.hand_over(run, checkpoints, config.run.rounds)  # it was killed before it began
    if state is None and any(line["round"] > 0 for line in run.read_metrics()):
        raise CheckpointError(
            f"{run.metrics_file} has trained rounds, but {checkpoints.folder} has no checkpoint: restore one, or "
            "choose another run.folder"
        )
    if state is None:
        log(WARNING, "%s has no checkpoint yet: starting at round 1", path)
    else:
        log(INFO, "continuing %s after round %d", path, state["round"])
    run.truncate_after(state["round"] if state else -1)
    return run, state, checkpoints


def _exported_bands(config: Config, public: Sequence[Chips]) -> tuple[Band, ...]:
    """Return the bands for which the encoder is exported: those of the run, or red, green and blue
    if it reads any."""
    return tuple(shipped_card("rgb", "export").bands) if config.data.bands == "all" else public[0].spectrum


def _distiller(config: Config, public: Sequence[Chips], device: torch.device) -> Distiller | None:
    if config.distillation.kind == "none":
        return None
    everything = [Batch(chips.batch(torch.arange(len(chips))), chips.spectrum) for chips in public]
    return Distiller(config, everything, build_recipe(config), device)
