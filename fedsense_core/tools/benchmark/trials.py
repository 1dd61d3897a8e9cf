"""The trials of a matrix: what each runs, what it is evaluated on, and whether that has changed
since it was done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from fedsense_core.config import FREE_KEYS, Config, resolve
from fedsense_core.errors import ConfigError
from fedsense_core.tools.benchmark.matrix import Matrix, Method, Settings, local_path

PATHS = ("federation.sites", "federation.public", "federation.labelled")
UNSEEN = ({*FREE_KEYS} | {"run.keep_models"}) - {"federation.quorum"}
"""Settings that change no metric of a trial. A continued run may change its quorum, but how many a
round asks depends on it."""


@dataclass(frozen=True)
class Trial:
    """One method at one compression with one seed."""

    method: Method
    compression: str
    seed: int
    settings: Settings
    """As the file gives them, with the seed."""

    @property
    def column(self) -> str:
        """Method and compression."""
        return f"{self.method.name}@{self.compression}"

    @property
    def name(self) -> str:
        """Its folder below ``trials``."""
        return f"{self.column}/seed{self.seed}"

    def local_settings(self, folder: Path, given: Mapping[str, Path]) -> Settings:
        """Return the settings with the paths of this machine. Raises ConfigError for a path that
        was not given."""
        return {k: local_path(str(v), folder, given) if k in PATHS else v for k, v in self.settings.items()}

    def resolved(self) -> Settings:
        """Return every setting that metrics depend on, flat, with paths as the file has them.

        Raises ConfigError naming the trial.
        """
        try:
            config = resolve({**self.settings, "preset": self.method.based_on})
        except ConfigError as error:
            raise ConfigError(f"{self.column}: {error}") from None
        return effective_settings(config)


def effective_settings(config: Config) -> Settings:
    """Return the settings that metrics depend on, flat and as JSON holds them."""
    tree = config.model_dump(mode="json")
    flat = {f"{s}.{k}": v for s, section in tree.items() if isinstance(section, dict) for k, v in section.items()}
    return {"preset": config.preset} | {key: value for key, value in flat.items() if key not in UNSEEN}


def trials_of(matrix: Matrix, only: str = "*") -> list[Trial]:
    """Return all trials, seed by seed, so that a matrix that is cut short has whole seeds.

    ``only`` is a glob over names such as ``fedavg@32/seed0``; one without a slash is over
    ``fedavg@32``.
    """
    trials = []
    seeds = sorted({*matrix.seeds, *(seed for method in matrix.all_methods for seed in method.seeds or ())})
    for seed in seeds:
        for method in matrix.all_methods:
            if seed in (matrix.seeds if method.seeds is None else method.seeds):
                for compression in method.compressions_among(matrix.compression_names):
                    settings = {**matrix.settings_of(method, compression), "run.seed": seed}
                    settings.setdefault("run.keep_models", matrix.analyse)
                    trials.append(Trial(method, compression, seed, settings))
    return [trial for trial in trials if fnmatch(trial.name if "/" in only else trial.column, only)]


def check_trials(matrix: Matrix, trials: Iterable[Trial]) -> None:
    """Raise ConfigError for the first trial whose settings are wrong or that its engine cannot be
    told."""
    for trial in {trial.column: trial for trial in trials}.values():
        trial.resolved()
        lists = [key for key, value in trial.settings.items() if isinstance(value, list | dict)]
        if lists and matrix.engine == "simulation":
            raise ConfigError(
                f"{trial.column}: {lists[0]} is a list or table, which engine = 'simulation' cannot be told"
            )


def changes(before: Settings, now: Settings) -> list[str]:
    """Return in words which settings differ; a setting that is not in ``before`` had its
    default."""
    defaults = json.loads(json.dumps(effective_settings(Config())))
    differing = []
    for key, value in json.loads(json.dumps(now)).items():
        was = before.get(key, defaults.get(key))
        if was != value:
            differing.append(f"{key} was {was!r}, is {value!r}")
    return differing
