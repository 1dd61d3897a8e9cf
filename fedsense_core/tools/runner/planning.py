"""From the options of ``fedsense run`` to Flower runs, checked as far as is possible before they
start."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedsense_core.config import Config, check_key, resolve
from fedsense_core.config.imagery import PUBLISHED
from fedsense_core.data.opening import load_site
from fedsense_core.data.partition.shares import client_names
from fedsense_core.data.sites.locations import site_files
from fedsense_core.errors import CheckpointError, ConfigError, SiteError, nearest
from fedsense_core.run_folder.folder import RunFolder
from fedsense_core.run_folder.paths import safe_name
from fedsense_core.tools.onboarding.checking import check_bands

Scalar = bool | int | float | str
ENGINES = ("simulation", "in-process")
"""``simulation`` is Flower's own, with Ray and a SuperLink; ``in-process`` has neither."""
PATH_KEYS = (
    *("federation.sites", "federation.public", "federation.labelled"),
    *("run.continued_from", "model.weights"),
)
OWN_OPTIONS = {"preset": "--preset", "run.folder": "--out"}
_WITHOUT_THE_BAND = (
    "Run with `--set data.bands=all`, take the source out, "
    "or let the run begin without its site (federation.min_clients)."
)
SIMULATED_WAIT_S = 10.0
"""All SuperNodes of a simulation are there from the start: one that cannot take part will not come
later."""
SIMULATED_PAUSE_S = 1.0
"""What fails on one machine fails again at once, and somebody is watching."""


@dataclass(frozen=True)
class Resources:
    """What one simulated client gets of this machine."""

    cpus: int
    gpus: float
    machine_cpus: int

    @classmethod
    def shared_by(cls, supernodes: int, cpus: int | None = None, gpus: float | None = None) -> Resources:
        """Divide the machine so that it is fully used; ``cpus`` and ``gpus`` a client override the
        shares."""
        machine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        cpus = cpus or max(1, machine // supernodes)
        at_once = max(1, min(supernodes, machine // cpus))
        return cls(cpus, _gpu_share(at_once) if gpus is None else gpus, max(machine, cpus))

    def federation_config(self, supernodes: int) -> str:
        """Return the value of ``flwr run --federation-config``."""
        return (
            f"num-supernodes={supernodes} client-resources-num-cpus={self.cpus} "
            f"client-resources-num-gpus={self.gpus} init-args-num-cpus={self.machine_cpus}"
        )


@dataclass(frozen=True)
class Request:
    """The options as the user gave them."""

    preset: str = "fedsense"
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    out: Path | None = None
    supernodes: int | None = None
    flower_toml: Path | None = None
    engine: str = "simulation"
    threads: int | None = None
    """Of torch (in-process)."""


@dataclass(frozen=True)
class Job:
    """One Flower run."""

    title: str
    settings: Mapping[str, Scalar]
    """Run config: dotted key -> scalar."""
    folder: Path
    rounds: int
    supernodes: int

    @property
    def is_finished(self) -> bool:
        """True where the run folder holds a finished run."""
        return RunFolder(self.folder).is_finished

    def resolved(self, flower_toml: Path | None = None) -> dict[str, Any]:
        """Return all settings of the run, as its folder holds them."""
        return _resolve(self.settings, flower_toml).model_dump(mode="json")


def plan(request: Request) -> list[Job]:
    """Return the runs to make. Raises as `jobs_of`, and CheckpointError where all is done
    already."""
    jobs = jobs_of(request)
    if all(job.is_finished for job in jobs):
        folder = jobs[0].folder if len(jobs) == 1 else jobs[0].folder.parent
        raise CheckpointError(
            f"{folder} holds a finished run: choose another folder with --out, or move that one away."
        )
    return jobs


def jobs_of(request: Request) -> list[Job]:
    """Return the runs of a request, finished or not: one, or one for each site of ``standalone``.

    Raises ConfigError or SiteError naming what is wrong.
    """
    if request.engine not in ENGINES:
        raise ConfigError(f"--engine {request.engine!r} is none of {', '.join(ENGINES)}")
    settings = dict(request.settings) | {"preset": request.preset}
    config = _resolve(settings, request.flower_toml)
    names = _client_names(config, all_needed="federation.min_clients" not in settings)
    nodes = request.supernodes or (1 if config.federation.pooled else len(names))
    settings.setdefault("federation.wait_s", SIMULATED_WAIT_S)
    settings.setdefault("federation.pause_s", SIMULATED_PAUSE_S)
    out = (request.out or Path("runs") / f"{config.preset}-seed{config.run.seed}").expanduser().absolute()
    alone = names if request.preset == "standalone" and not config.federation.only else [config.federation.only]
    jobs = []
    for site in alone:
        folder = out / safe_name(site) if len(alone) > 1 else out
        mine = settings | {"run.folder": str(folder), "federation.only": site}
        mine.setdefault("federation.min_clients", 1 if site else nodes)
        title = f"{config.preset}, {site} alone" if site else config.preset
        jobs.append(Job(title, mine, folder, _resolve(mine, request.flower_toml).run.rounds, nodes))
    return jobs


def parse_settings(pairs: Sequence[str]) -> dict[str, Scalar]:
    """Turn the ``key=value`` texts of ``--set`` into settings, as `read_pairs` does, without those
    that have an option of their own."""
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if equals and key.strip() in OWN_OPTIONS:
            raise ConfigError(f"{key.strip()} has an option of its own: {OWN_OPTIONS[key.strip()]} {text}")
    return read_pairs(pairs, "--set ")


def read_pairs(pairs: Sequence[str], option: str = "") -> dict[str, Scalar]:
    """Turn ``key=value`` texts into settings; values are TOML where they parse, else plain text."""
    settings: dict[str, Scalar] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigError(f"{option}{pair!r} is not of the form key=value, such as train.local_steps=10")
        check_key(key)
        text = text.strip()
        settings[key] = absolute(text) if key in PATH_KEYS else _scalar(key, text)
    return settings


def _client_names(config: Config, all_needed: bool) -> list[str]:
    """Return the names of the clients: the sites, or those who share all imagery."""
    files: dict[str, Path] = {}
    for path in site_files(config):
        site = load_site(path)
        name = site.name
        # A run that waits for all sites would give up on one that cannot take part, after it has
        # cut the others' chips.
        if all_needed and config.federation.only in ("", name):
            check_bands(site, config.data.bands, _WITHOUT_THE_BAND)
        if name in files:
            raise SiteError(f"name = {name!r} is in both {files[name]} and {path}: every site needs its own name")
        files[name] = path
    names = list(files) if config.partition.kind == "sites" else client_names(config.partition)
    only = config.federation.only
    if only and only not in names:
        raise SiteError(f"federation.only = {only!r} is none of {', '.join(names)}.{nearest(only, names)}")
    return names


def _scalar(key: str, text: str) -> Scalar:
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    if key == "model.args" and isinstance(value, dict):
        return json.dumps(value)
    if not isinstance(value, bool | int | float | str):
        raise ConfigError(f"{key} is no single value: write it into a copy of flower.toml and give that as --config")
    return value


def absolute(path: str) -> str:
    """Make a path independent of the working directory: the apps have another one. Names of weights
    are no paths."""
    path = path.strip("\"'")
    return path if path in ("", "sample") or path.startswith(PUBLISHED) else str(Path(path).expanduser().absolute())


def _resolve(settings: Mapping[str, Scalar], flower_toml: Path | None) -> Config:
    if flower_toml is None:
        return resolve(settings)
    try:
        tables = tomllib.loads(flower_toml.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--config {flower_toml}: {error}") from error
    return resolve(settings, tables.get("fedsense", {}))


def _gpu_share(at_once: int) -> float:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return min(1.0, int(1000 * count / at_once) / 1000)
