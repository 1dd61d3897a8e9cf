"""Tables of presets and settings, made from the code that defines them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo
from rich.markup import escape
from rich.table import Column, Table

from fedsense_core.config import Config, Section, resolve
from fedsense_core.config.presets import PRESETS


def presets_table() -> Table:
    """One row a preset: what it sets."""
    table = Table(Column("preset", no_wrap=True), "switches", box=None, pad_edge=False)
    for name, switches in PRESETS.items():
        pairs = [f"{section}.{key}={value}" for section, keys in switches.items() for key, value in keys.items()]
        table.add_row(name, escape(", ".join(pairs)))
    return table


def settings_table() -> Table:
    """One row a setting: default (of the preset ``fedsense``), choices, meaning."""
    table = Table(Column("setting", no_wrap=True), Column("default", max_width=24), "meaning", box=None, pad_edge=False)
    for key, default, choices, meaning in settings_rows():
        table.add_row(key, escape(str(default)), escape(f"{meaning} {choices}".strip()))
    return table


def settings_rows() -> Iterator[tuple[str, Any, str, str]]:
    """Yield (key, default, choices, meaning) of every setting."""
    defaults = resolve({})
    yield "preset", defaults.preset, "", _meaning(Config.model_fields["preset"])
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            for inner, info in field.annotation.model_fields.items():
                value = getattr(getattr(defaults, name), inner)
                yield f"{name}.{inner}", value, _choices(info.annotation), _meaning(info)


def _meaning(field: FieldInfo) -> str:
    return (field.description or "").replace("``", "").replace("\n", " ")


def _choices(annotation: Any) -> str:
    if "Literal" not in str(get_origin(annotation)):
        return ""
    return "(" + " | ".join(str(choice) for choice in get_args(annotation)) + ")"
