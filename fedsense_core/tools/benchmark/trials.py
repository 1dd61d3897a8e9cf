"""The cells of a matrix: what each runs, what it is graded on, and whether that has changed since
it was done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from fedsense_core.config import FREE_KEYS, Config, resolve
from fedsense_core.errors import ConfigError
from fedsense_core.tools.benchmark.matrix import Matrix, Method, Settings, placed

PATHS = ("federation.sites", "federation.public", "federation.labelled")
UNSEEN = ({*FREE_KEYS} | {"run.keep_models"}) - {"federation.quorum"}
"""Settings that change no figure of a cell. A continued run may change its quorum, but how many a
round asks depends on it."""


@dataclass(frozen=True)
class Cell:
    """One method at one wire with one seed."""

    method: Method
    wire: str
    seed: int
    settings: Settings
    """As the file gives them, with the seed."""

    @property
    def column(self) -> str:
        """Method and wire."""
        return f"{self.method.name}@{self.wire}"

    @property
    def name(self) -> str:
        """Its folder below ``cells``."""
        return f"{self.column}/seed{self.seed}"

    def placed_settings(self, folder: Path, given: Mapping[str, Path]) -> Settings:
        """Return the settings with the paths of this machine. Raises ConfigError for a path that
        was not given."""
        return {k: placed(str(v), folder, given) if k in PATHS else v for k, v in self.settings.items()}

    def resolved(self) -> Settings:
        """Return every setting that figures depend on, flat, with paths as the file has them.

        Raises ConfigError naming the cell.
        """
        try:
            config = resolve({**self.settings, "preset": self.method.based_on})
        except ConfigError as error:
            raise ConfigError(f"{self.column}: {error}") from None
        return figures_of(config)


def figures_of(config: Config) -> Settings:
    """Return the settings that figures depend on, flat and as JSON holds them."""
    tree = config.model_dump(mode="json")
    flat = {f"{s}.{k}": v for s, section in tree.items() if isinstance(section, dict) for k, v in section.items()}
    return {"preset": config.preset} | {key: value for key, value in flat.items() if key not in UNSEEN}


def cells_of(matrix: Matrix, only: str = "*") -> list[Cell]:
    """Return all cells, seed by seed, so that a matrix that is cut short has whole seeds.

    ``only`` is a glob over names such as ``fedavg@32/seed0``; one without a slash is over
    ``fedavg@32``.
    """
    cells = []
    seeds = sorted({*matrix.seeds, *(seed for method in matrix.all_methods for seed in method.seeds or ())})
    for seed in seeds:
        for method in matrix.all_methods:
            if seed in (matrix.seeds if method.seeds is None else method.seeds):
                for wire in method.wires_among(matrix.wires):
                    settings = {**matrix.settings_of(method, wire), "run.seed": seed}
                    settings.setdefault("run.keep_models", matrix.analyse)
                    cells.append(Cell(method, wire, seed, settings))
    return [cell for cell in cells if fnmatch(cell.name if "/" in only else cell.column, only)]


def check_cells(matrix: Matrix, cells: Iterable[Cell]) -> None:
    """Raise ConfigError for the first cell whose settings are wrong or that its engine cannot be
    told."""
    for cell in {cell.column: cell for cell in cells}.values():
        cell.resolved()
        lists = [key for key, value in cell.settings.items() if isinstance(value, list | dict)]
        if lists and matrix.engine == "simulation":
            raise ConfigError(
                f"{cell.column}: {lists[0]} is a list or table, which engine = 'simulation' cannot be told"
            )


def changes(before: Settings, now: Settings) -> list[str]:
    """Return in words which settings differ; a setting that is not in ``before`` had its
    default."""
    defaults = json.loads(json.dumps(figures_of(Config())))
    differing = []
    for key, value in json.loads(json.dumps(now)).items():
        was = before.get(key, defaults.get(key))
        if was != value:
            differing.append(f"{key} was {was!r}, is {value!r}")
    return differing
