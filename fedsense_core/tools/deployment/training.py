"""One training run of a coordinator: its settings, its start, its log, its end.

The settings lie in the run's folder, so that `resume` needs nothing else.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.cli.build import build_fab_from_disk
from flwr.supercore.fab import Fab

from fedsense_core.atomic_io import write_whole
from fedsense_core.config import Config, resolve
from fedsense_core.errors import CheckpointError, ConfigError
from fedsense_core.run_folder import RunFolder, settings_of
from fedsense_core.tools.app_bundle.bundle import APP_ID
from fedsense_core.tools.app_bundle.signed_bundle import read_agreed
from fedsense_core.tools.app_bundle.stored_runs import store_signed_bundle
from fedsense_core.tools.deployment.control import Control, NoAnswer, RunState, connect
from fedsense_core.tools.deployment.coordinator_folder import CoordinatorFolder
from fedsense_core.tools.deployment.documents import DeploymentError, toml_of
from fedsense_core.tools.runner.app_folder import assemble
from fedsense_core.tools.runner.log_lines import LogLines
from fedsense_core.tools.runner.planning import Scalar, read_pairs

SETTINGS = "settings.toml"
FLOWER_TOML = "flower.toml"
COMMENT = "Written by `fedsense coordinator run`; `fedsense coordinator resume` reads it back."
BOUNDED = {"aggregation.clip": "median"}
"""Institutions that do not know one another: no update counts with more than the round's median
norm, unless the settings say otherwise."""
POLL_S = 3.0
SILENCE_S = 600.0
"""How long a SuperLink may be away before the command ends; the run goes on without it."""
Show = Callable[[str], None]


@dataclass(frozen=True)
class Training:
    """What one run is to be."""

    folder: Path
    settings: Mapping[str, Scalar]
    """Dotted keys, as Flower's run config has them; among them ``run.folder``."""
    flower_toml: Path | None = None
    """Takes the place of the shipped one: settings that are lists or tables."""

    @property
    def run(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.folder)

    def resolved(self) -> Config:
        """Return all settings. Raises ConfigError."""
        return resolve(self.settings, tables_of(self.flower_toml) if self.flower_toml else None)


def plan(pairs: Sequence[str], flower_toml: Path | None, folder: CoordinatorFolder) -> Training:
    """Return the run that ``KEY=VALUE`` texts describe. Raises ConfigError."""
    settings = BOUNDED | read_pairs(pairs)
    config = resolve(settings, tables_of(flower_toml) if flower_toml else None)
    named = str(settings.get("run.folder", "")) or folder.runs / f"{config.preset}-seed{config.run.seed}"
    path = Path(named).expanduser().absolute()
    return Training(path, settings | {"run.folder": str(path)}, flower_toml)


def recall(path: Path) -> Training:
    """Return the run in a folder, with the settings that it was started with. Raises
    DeploymentError."""
    path = path.expanduser().absolute()
    remedy = "start the run with `fedsense coordinator run`, which writes it"
    try:
        tree = tomllib.loads((path / SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Training(path, _begun(path, remedy))
    except (OSError, ValueError) as error:
        raise DeploymentError(f"{path / SETTINGS} cannot be read ({error}): {remedy}") from error
    own = path / FLOWER_TOML
    return Training(path, _flat(tree) | {"run.folder": str(path)}, own if own.exists() else None)


def _begun(path: Path, remedy: str) -> dict[str, Scalar]:
    """Return the settings of a run that another command began, by what the server wrote down.

    Raises DeploymentError.
    """
    try:
        return settings_of(path)
    except CheckpointError as error:
        raise DeploymentError(
            f"{path / SETTINGS} is missing, and no run tells its settings ({error}): {remedy}"
        ) from None


def remember(training: Training) -> Training:
    """Write the settings of a run into its folder; return the run as it will be recalled."""
    training.folder.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in training.settings.items() if key != "run.folder"}
    write_whole(training.folder / SETTINGS, toml_of(kept, COMMENT))
    if training.flower_toml is not None and training.flower_toml != training.folder / FLOWER_TOML:
        write_whole(training.folder / FLOWER_TOML, training.flower_toml.read_bytes())
    return recall(training.folder)


def tables_of(flower_toml: Path) -> dict[str, object]:
    """Return the ``[fedsense]`` tables of a copy of flower.toml. Raises ConfigError."""
    try:
        return dict(tomllib.loads(flower_toml.read_text(encoding="utf-8")).get("fedsense", {}))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config {flower_toml}: {error}") from error


def start(control: Control, training: Training, folder: CoordinatorFolder) -> int:
    """Start a run of the app, and return its id. Raises DeploymentError or BundleError.

    The one place that knows which app that is: the signed bundle in ``app/``, by its digest; where
    there is none, the installed FedSense with the run's flower.toml, unsigned.
    """
    agreed = read_agreed(folder.app)
    if agreed is not None:
        if training.flower_toml is not None:
            raise DeploymentError(
                f"--config {training.flower_toml}: the signed bundle in {folder.app} has a flower.toml of its own; "
                "build and sign one with yours (`fedsense app build --config`)"
            )
        digest = store_signed_bundle(folder.database, agreed.bundle, agreed.signatures)
        return control.start(Fab(digest, b"", {}), training.settings, APP_ID)
    with tempfile.TemporaryDirectory(prefix="fedsense-app-") as home:
        bundle = build_fab_from_disk(assemble(Path(home, "app"), training.flower_toml))
    return control.start(Fab(hashlib.sha256(bundle).hexdigest(), bundle, {}), training.settings)


def under_way(control: Control, path: Path | None = None) -> list[RunState]:
    """Return runs that have not ended: all, or those in one folder."""
    runs = [run for run in control.runs() if not run.is_over]
    return runs if path is None else [run for run in runs if run.folder == str(path)]


def follow(folder: CoordinatorFolder, run_id: int, show: Show, log: Path) -> RunState:
    """Show the log of a run until it ends, and return its end.

    A SuperLink that is away for a while is waited for. Raises NoAnswer where it stays away.
    """
    lines, after, answered = LogLines(), 0.0, time.monotonic()
    while True:
        try:
            with connect(folder) as control:
                for text, stamp in control.log(run_id, after):
                    after, answered = max(after, stamp), time.monotonic()
                    _pass_on(text, lines, show, log)
                state = control.run(run_id)
        except NoAnswer:
            if time.monotonic() - answered > SILENCE_S:
                raise
        else:
            answered = time.monotonic()
            if state.is_over:
                return state
        time.sleep(POLL_S)


def _pass_on(text: str, lines: LogLines, show: Show, log: Path) -> None:
    """Show a piece of the log, and keep it where the run has its folder."""
    if log.parent.is_dir():
        with log.open("a", encoding="utf-8") as file:
            file.write(text)
    for line in text.splitlines():
        tidy = lines.tidy(line)
        if tidy is not None:
            show(tidy)


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, Scalar]:
    flat: dict[str, Scalar] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            flat[prefix + key] = value
        else:
            raise DeploymentError(f"{SETTINGS}: {prefix}{key} = {value!r} is no single value")
    return flat
