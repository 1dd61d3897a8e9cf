"""The settings of a run that is to come, as a person has them: texts, a file or a run's folder, or
both."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsense_core.config import check_key, resolve
from fedsense_core.errors import ConfigError
from fedsense_core.run_folder.folder import RunFolder
from fedsense_core.tools.deployment.training import SETTINGS, recall, tables_of
from fedsense_core.tools.health.doctor import RunSettings
from fedsense_core.tools.run_settings import settings_of
from fedsense_core.tools.runner.planning import Scalar, read_pairs

NOT_ASKED = ("run.folder", "run.resume")
"""Settings of a run folder that belong to its own run alone."""


def run_settings(pairs: Sequence[str], run: Path | None) -> RunSettings:
    """Return the settings of a run's folder, or of a file like its settings.toml, with
    ``KEY=VALUE`` texts on top. Raises ConfigError or CheckpointError naming what is wrong."""
    settings: dict[str, Scalar] = {}
    flower_toml: Path | None = None
    if run is not None and run.is_file():
        settings = {key: _single(run, key, value) for key, value in _leaves(_read(run))}
    elif run is not None and (run / SETTINGS).exists():
        training = recall(run)
        settings, flower_toml = dict(training.settings), training.flower_toml
    elif run is not None:
        settings = flattened(settings_of(RunFolder.open(run)).model_dump(mode="json"))
    settings = {key: value for key, value in settings.items() if key not in NOT_ASKED} | read_pairs(pairs)
    resolve(settings, tables_of(flower_toml) if flower_toml else None)
    return RunSettings(settings, flower_toml, are_given=bool(settings))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--run {path} cannot be read as TOML ({error})") from error


def _single(path: Path, key: str, value: Any) -> Scalar:
    check_key(key)
    if isinstance(value, Mapping):
        return json.dumps(value)
    if not isinstance(value, bool | int | float | str):
        raise ConfigError(f'{path}: {key} = {value!r} is no single value, such as {key} = 10 or {key} = "text"')
    return value


def flattened(tree: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return the settings of a tree that differ from those of its preset, as Flower's run config
    has them: dotted keys, and texts for names and for the arguments of the model.

    Raises ConfigError for a list that no text can stand for.
    """
    usual = dict(_leaves(resolve({"preset": tree["preset"]}).model_dump(mode="json")))
    flat: dict[str, Scalar] = {"preset": tree["preset"]}
    for key, value in _leaves(tree):
        if value == usual.get(key, ...):
            continue
        if isinstance(value, Mapping):
            flat[key] = json.dumps(value)
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            flat[key] = ",".join(value)
        elif isinstance(value, list):
            raise ConfigError(f"{key} = {value} is a list: write it into flower.toml, and give the rest as KEY=VALUE")
        else:
            flat[key] = value
    return flat


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and prefix + key != "model.args":
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
