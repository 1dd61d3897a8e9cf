"""From what a user says to the settings of a run; a wrong key or value stops it at once.

Four layers, later ones win: the defaults below, the ``[fedsense]`` table of ``flower.toml``, the
preset, and Flower's run config (``flwr run -c``). In the run config the word ``preset`` means "as
the layers below say".
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from fedsense_core.config.presets import preset
from fedsense_core.config.tree import Config
from fedsense_core.errors import ConfigError, nearest
from fedsense_core.fingerprint import project_file
from fedsense_core.section import Section

FROM_PRESET = "preset"
"""The value of a run-config key that leaves the choice to the preset."""


RENAMED = {
    "retention.kind": "personalisation.kind",
    "retention.threshold": "personalisation.threshold",
    "retention.scaler": "personalisation.scaler",
    "uplink.predictor": "uplink.prediction",
}
"""Settings of earlier releases by their old names, which are refused with the new one named."""


def known_keys() -> list[str]:
    """Return every dotted key of the tree."""
    keys = ["preset"]
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys += [f"{name}.{inner}" for inner in field.annotation.model_fields]
    return keys


def check_key(key: str) -> None:
    """Raise ConfigError for a key that is no setting, naming its new name or the nearest one."""
    if key in RENAMED:
        raise ConfigError(f"{key} is now {RENAMED[key]}: use the new name.")
    if key not in known_keys():
        raise ConfigError(
            f"unknown setting {key!r}.{nearest(key, known_keys())} `fedsense settings` and docs/configuration.md list "
            "all of them."
        )


def resolve(run_config: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Config:
    """Build the configuration of a run.

    ``run_config`` maps dotted keys to scalars, as Flower passes it; ``defaults`` is the
    ``[fedsense]`` table of ``flower.toml`` (read from the bundle when None). Raises ConfigError
    with the nearest right key or value.
    """
    chosen = {key: value for key, value in run_config.items() if value != FROM_PRESET}
    name = str(chosen.pop("preset", (defaults or {}).get("preset", "fedsense")))
    tree: dict[str, Any] = {}
    for layer in (flower_defaults() if defaults is None else defaults, preset(name), chosen):
        for key, value in _flat(layer).items():
            _put(tree, key, value)
    tree["preset"] = name
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None
    _check_codecs(config)
    return config


def _check_codecs(config: Config) -> None:
    # Here, because it takes a second that listing settings does not need.
    from fedsense_core.codecs.codec import codec_class, codec_of

    if not codec_class(config.downlink.codec).feedback_allowed:
        raise ConfigError(
            f"wrong configuration: downlink.codec = {config.downlink.codec!r}: a broadcast carries on what earlier "
            "ones lost, which grows without end under an unbiased codec. Use eden or trellis"
        )
    if config.uplink.waterfill and not config.feedback_in_use:
        raise ConfigError(
            "wrong configuration: uplink.waterfill leaves tensors out of a round, which needs error feedback: "
            "uplink.feedback, federation.participation of at least a half, aggregation, and codecs that lose something"
        )
    for key in ("uplink", "downlink"):
        try:
            codec_of(getattr(config, key))
        except ConfigError as error:
            raise ConfigError(f"wrong configuration: {key}: {error}") from None


def flower_defaults() -> dict[str, Any]:
    """Return ``[fedsense]`` of ``flower.toml``, which lies beside the packages, or inside
    fedsense_core in a wheel."""
    path = project_file(Path(__file__).parents[2], "flower.toml")
    return dict(tomllib.loads(path.read_text(encoding="utf-8")).get("fedsense", {})) if path else {}


def _flat(layer: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten tables into dotted keys; ``model.args`` is one value, not a table of settings."""
    flat: dict[str, Any] = {}
    for key, value in layer.items():
        path = prefix + key
        if isinstance(value, Mapping) and path != "model.args":
            flat |= _flat(value, path + ".")
        else:
            flat[path] = value
    return flat


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    if key.startswith("model.args."):
        tree.setdefault("model", {}).setdefault("args", {})[key.removeprefix("model.args.")] = value
        return
    check_key(key)
    section, _, field = key.partition(".")
    if field:
        tree.setdefault(section, {})[field] = value
    else:
        tree[section] = value


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        value = problem["input"]
        lines.append(f"{key} = {value!r}: {problem['msg']}.{_nearest_choice(key, value)}")
    return "wrong configuration: " + "; ".join(lines)


def _nearest_choice(key: str, value: Any) -> str:
    section, _, field = key.partition(".")
    info = Config.model_fields.get(section)
    if info is None or not isinstance(info.annotation, type) or not issubclass(info.annotation, Section):
        return ""
    inner = info.annotation.model_fields.get(field)
    return nearest(str(value), [str(choice) for choice in get_args(inner.annotation)]) if inner else ""


__all__ = ["Config", "check_key", "flower_defaults", "known_keys", "resolve"]
