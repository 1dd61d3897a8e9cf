"""The file that describes a benchmark: methods, compressions, seeds, tasks and controls.

A trial is one method at one compression with one seed. Its settings are those of ``[settings]``,
then of the compression, then of the method, then of the method at this compression; the preset lies
below them all.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from fedsense_core.config.list_values import AsTuple
from fedsense_core.config.presets import PRESETS
from fedsense_core.errors import ConfigError, nearest
from fedsense_core.tools.downstream.names import Mode, TaskName

NO_TRAFFIC = "any"
"""Compression of a method in which nothing travels: it stands beside those of every compression."""
ALONE = ("standalone", "centralised", "public-only")
"""Presets of which nothing travels."""
PLACEHOLDER = re.compile(r"\{([\w-]+)\}")
"""Stands in a path for one that ``--data NAME=PATH`` gives."""
NAME = r"^[A-Za-z0-9][\w.+-]*$"
"""Of methods, compressions and tasks: they name folders."""
Engine = Literal["in-process", "simulation"]
Settings = dict[str, Any]
"""Dotted keys and values; in the file also as tables."""


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> Settings:
    """Return tables of settings as dotted keys; ``model.args`` is one value."""
    flat: Settings = {}
    for key, value in settings.items():
        path = prefix + key
        if isinstance(value, Mapping) and path != "model.args":
            flat |= flat_settings(value, f"{path}.")
        else:
            flat[path] = value
    return flat


Name = Annotated[str, Field(pattern=NAME)]
SettingsOf = Annotated[
    Settings, BeforeValidator(lambda value: flat_settings(value) if isinstance(value, dict) else value)
]
Names = Annotated[tuple[Name, ...], AsTuple]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], AsTuple]


class Part(BaseModel):
    """A strict part of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = {}
    """Keys of earlier releases, with their names of today."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_earlier_keys(cls, value: Any) -> Any:
        for key in cls.renamed if isinstance(value, Mapping) else ():
            if key in value:
                raise ValueError(f"{key} is called {cls.renamed[key]} now")
        return value


RENAMED_OF_METHOD = {"bits": "by_compression", "wires": "compressions"}


class Method(Part):
    """One method, or one control; in the list of methods the name of a preset says the same."""

    renamed = RENAMED_OF_METHOD
    name: Name
    preset: str = ""
    """Empty: the one of this name."""
    label: str = ""
    """In tables and plots; empty: the name."""
    family: str = ""
    """Rows of one family stand together."""
    settings: SettingsOf = {}
    by_compression: dict[str, SettingsOf] = {}
    """Further settings at some compressions."""
    compressions: Names | None = None
    """Where it runs; None: at every compression, or at ``any`` where nothing travels."""
    seeds: Seeds | None = None
    """None: those of the matrix."""
    untrained: bool = False
    """Random weights: nothing is run."""

    @model_validator(mode="before")
    @classmethod
    def _preset_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known_preset(self) -> Method:
        if self.based_on not in PRESETS:
            given = (
                f"name {self.name!r} is no preset; give preset = ..." if not self.preset else f"preset {self.preset!r}"
            )
            raise ValueError(f"{given} is unknown.{nearest(self.based_on, list(PRESETS))}")
        return self

    @property
    def based_on(self) -> str:
        """The preset."""
        return self.preset or self.name

    @property
    def title(self) -> str:
        """What people read."""
        return self.label or self.name

    @property
    def alone(self) -> bool:
        """Whether nothing of it travels."""
        return self.untrained or self.based_on in ALONE

    def compressions_among(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """Return the compressions at which it runs."""
        if self.compressions is not None:
            return self.compressions
        return (NO_TRAFFIC,) if self.alone else known


class Control(Part):
    """A method with some settings changed."""

    renamed = RENAMED_OF_METHOD
    base: str = ""
    """Name of a method; not needed where nothing is trained."""
    label: str = ""
    settings: SettingsOf = {}
    by_compression: dict[str, SettingsOf] = {}
    compressions: Names | None = None
    seeds: Seeds | None = None
    untrained: bool = False

    def of(self, name: str, base: Method | None) -> Method:
        """Return the control as a method."""
        of_base = base.by_compression if base else {}
        both = {
            compression: {**of_base.get(compression, {}), **self.by_compression.get(compression, {})}
            for compression in {*of_base, *self.by_compression}
        }
        return Method(
            name=name,
            preset=base.based_on if base else "fedavg",
            label=self.label,
            family="controls",
            settings={**(base.settings if base else {}), **self.settings},
            by_compression=both,
            compressions=self.compressions if self.compressions is not None or base is None else base.compressions,
            seeds=self.seeds if self.seeds is not None or base is None else base.seeds,
            untrained=self.untrained,
        )


class Task(Part):
    """One column: a task in one way."""

    task: TaskName
    data: str = "sample"
    """Labelled folder; ``sample`` is the shipped example."""
    mode: Mode = "frozen"
    head: str
    seeds: int = Field(1, ge=1)
    """Trainings of the head."""
    weight: float = Field(1.0, ge=0)
    """In means over tasks; 0: shown, and counted for nothing."""
    label: str = ""
    epochs: int | None = Field(None, ge=1)
    most_steps: int | None = Field(None, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    side: int | None = Field(None, ge=8)

    @property
    def definition(self) -> dict[str, Any]:
        """All that its metrics depend on, as JSON holds it, with the path as the file has it."""
        return self.model_dump(mode="json", exclude={"weight", "label"})


class Matrix(Part):
    """The whole file."""

    renamed = {"bits": "compressions", "cell_timeout_s": "trial_timeout_s"}
    title: str = "Benchmark"
    engine: Engine = "in-process"
    jobs: int = Field(1, ge=1)
    """Trials at a time."""
    threads: int = Field(1, ge=1)
    """Of each trial."""
    trial_timeout_s: float = Field(3600.0, gt=0)
    """After which a trial has failed."""
    prune: bool = True
    """Delete checkpoints, clients' states and caches of a finished trial."""
    analyse: bool = False
    """Measure flatness and drift of each trial."""
    compare: Annotated[tuple[str, ...], AsTuple] = ("fedavg",)
    """Methods against which all others are compared, at the same compression; ``NAME@COMPRESSION``:
    against those of every compression."""
    settings: SettingsOf = {}
    methods: Annotated[tuple[Method, ...], AsTuple, Field(min_length=1)]
    compressions: dict[Name, SettingsOf]
    """What communication costs: settings of ``uplink`` and ``downlink`` under a name."""
    seeds: Annotated[Seeds, Field(min_length=1)]
    tasks: Annotated[dict[Name, Task], Field(min_length=1)]
    controls: dict[Name, Control] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> Matrix:
        if self.engine == "simulation" and self.jobs > 1:
            raise ValueError("jobs: Flower's simulation takes the whole machine, so one trial runs at a time: jobs = 1")
        if not any(task.weight for task in self.tasks.values()):
            raise ValueError("tasks: at least one needs a weight above 0")
        if not self.compressions:
            raise ValueError('compressions: name at least one, such as [compressions."32"]')
        if NO_TRAFFIC in self.compressions:
            raise ValueError(
                f"compressions: {NO_TRAFFIC!r} stands for methods in which nothing travels; choose another name"
            )
        names = [method.name for method in self.methods] + list(self.controls)
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"methods: {twice!r} appears twice")
        for control, entry in self.controls.items():
            bases = [method.name for method in self.methods]
            _known(f"controls.{control}.base", entry.base, bases, optional=entry.untrained)
        for method in self.all_methods:
            if method.compressions and len({*method.compressions}) < len(method.compressions):
                raise ValueError(f"{method.name}: a compression is named twice")
            named = {*method.compressions_among(self.compression_names), *method.by_compression}
            for compression in named - ({NO_TRAFFIC} if method.alone else set()):
                _known(f"{method.name}: compression", compression, list(self.compressions))
        for name in self.compare:
            method_name, _, compression = name.partition("@")
            _known("compare", method_name, names)
            if compression:
                _known(f"compare: {name}: compression", compression, [*self.compressions, NO_TRAFFIC])
        return self

    @property
    def compression_names(self) -> tuple[str, ...]:
        """In the order of the file."""
        return tuple(self.compressions)

    @property
    def all_methods(self) -> tuple[Method, ...]:
        """Methods, then controls."""
        by_name = {method.name: method for method in self.methods}
        return self.methods + tuple(entry.of(name, by_name.get(entry.base)) for name, entry in self.controls.items())

    def settings_of(self, method: Method, compression: str) -> Settings:
        """Return the settings of a method at a compression, without its preset's."""
        return {
            **self.settings,
            **self.compressions.get(compression, {}),
            **method.settings,
            **method.by_compression.get(compression, {}),
        }


def load_matrix(path: Path) -> Matrix:
    """Read the file. Raises ConfigError naming the file, the key and the remedy."""
    try:
        return Matrix.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Give the path of a matrix (TOML).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_fault(error)}") from None


def local_path(path: str, folder: Path, given: Mapping[str, Path]) -> str:
    """Return a path of the file as an absolute one: ``{NAME}`` as given, else relative to the
    file's folder.

    Raises ConfigError for a name that was not given.
    """
    if path in ("", "sample"):
        return path
    for name in PLACEHOLDER.findall(path):
        if name not in given:
            raise ConfigError(f"{path}: where is {name}? Give --data {name}=PATH")
        path = path.replace(f"{{{name}}}", str(given[name].expanduser().absolute()))
    return str((folder / Path(path).expanduser()).absolute())


def _known(where: str, name: str, names: list[str], optional: bool = False) -> None:
    if name not in names and not (optional and not name):
        raise ValueError(f"{where}: {name!r} is none of {', '.join(names)}.{nearest(name, names)}")


PARTS: dict[str, type[Part]] = {"tasks": Task, "controls": Control, "methods": Method}


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        part = PARTS.get(str(fault["loc"][0]), Matrix) if len(fault["loc"]) > 1 else Matrix
        known = list(part.model_fields)
        return f"{where}: unknown key.{nearest(str(fault['loc'][-1]), known)} Known: {', '.join(known)}."
    shown = "" if fault["type"] in ("missing", "value_error") else f" and not {json.dumps(fault['input'], default=str)}"
    return f"{where}: {message}{shown}" if where else message
