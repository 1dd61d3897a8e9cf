"""From a finished run to the request that goes on from it: the same settings, more rounds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedsense_core.config import LATER_KEYS, Config, known_keys
from fedsense_core.errors import CheckpointError, ConfigError
from fedsense_core.run_folder.folder import RunFolder
from fedsense_core.tools.run_settings import settings_of
from fedsense_core.tools.runner.app_folder import project_file
from fedsense_core.tools.runner.planning import Request, Scalar

NOT_SAID_AGAIN = ("preset", "run.folder", "run.resume")
"""Settings that are no part of what goes on: options, or asked anew."""


@contextmanager
def going_on(folder: Path, request: Request) -> Iterator[Request]:
    """Yield the request that goes on from the finished run in ``folder``.

    ``request`` has ``run.rounds``, the number of further rounds, and may change `LATER_KEYS`.
    Raises ConfigError for anything else, CheckpointError where the folder holds no finished run.
    """
    run = RunFolder.open(folder.expanduser().absolute())
    if not run.is_finished:
        raise CheckpointError(f"{run.path} is not finished: the command that began it continues it.")
    config = settings_of(run)
    _check(request, config, run.path)
    done = config.run.rounds
    if config.asks_clients and not (run.path / "clients").is_dir():
        raise CheckpointError(
            f"{run.path} has no folder clients, so no simulation made it. Continue a deployment by "
            f"`fedsense coordinator run run.continued_from={run.path} run.rounds_before={done} run.rounds=MORE`. Where "
            "you have deleted the folder, make an empty one: clients then begin without what they kept"
        )
    total = done + int(request.settings["run.rounds"])
    leaves = {key: value for key, value in _leaves(config) if key not in NOT_SAID_AGAIN}
    settings: dict[str, Scalar] = {key: value for key, value in leaves.items() if not isinstance(value, list | dict)}
    settings |= dict(request.settings)
    settings |= {"run.rounds": total, "run.rounds_before": done, "run.continued_from": str(run.path)}
    out = request.out or run.path.with_name(re.sub(r"-to-\d+$", "", run.path.name) + f"-to-{total}")
    with TemporaryDirectory(prefix="fedsense-") as temporary:
        flower_toml = Path(temporary) / "flower.toml"
        flower_toml.write_text(_flower_toml(leaves), encoding="utf-8")
        yield replace(request, preset=config.preset, settings=settings, out=out, flower_toml=flower_toml)


def _check(request: Request, config: Config, path: Path) -> None:
    if "run.rounds" not in request.settings:
        raise ConfigError("--continue needs --rounds: how many rounds to go on for, such as --continue RUN --rounds 10")
    if request.flower_toml is not None or request.preset not in ("fedsense", config.preset):
        raise ConfigError(f"--continue takes preset and settings of {path}: leave out --preset and --config")
    for key, value in request.settings.items():
        section, _, name = key.partition(".")
        if key not in LATER_KEYS and getattr(getattr(config, section), name) != value:
            raise ConfigError(
                f"{key} = {value!r} cannot change in a run that goes on: {path} has "
                f"{getattr(getattr(config, section), name)!r}. These can: {', '.join(LATER_KEYS)}"
            )


def _leaves(config: Config) -> Iterator[tuple[str, Any]]:
    """Yield each setting by its dotted key, as JSON has it."""
    tree = config.model_dump(mode="json")
    for key in known_keys():
        section, _, name = key.partition(".")
        yield key, tree[section][name] if name else tree[section]


def _flower_toml(leaves: Mapping[str, Any]) -> str:
    """Return the shipped flower.toml with those settings that only a file can carry in place of its
    own."""
    shipped = project_file("flower.toml").read_text(encoding="utf-8")
    lines = [f"{key} = {_toml(value)}" for key, value in leaves.items() if isinstance(value, list | dict)]
    return "\n".join([re.split(r"(?m)^\[fedsense", shipped)[0], "[fedsense]", *lines, ""])


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)  # a JSON scalar is one of TOML
