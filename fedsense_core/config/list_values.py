"""How values that TOML or Flower cannot carry are read into the fields of a section."""

from __future__ import annotations

from typing import Any

from pydantic import BeforeValidator

AsTuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""TOML and JSON know lists only."""


def _band_names(value: Any) -> Any:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(n, str) and n for n in names):
        raise ValueError('give names of bands, such as "red,green,blue", or "all"')
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"band {twice!r} appears twice")
    return "all" if list(names) == ["all"] else tuple(names)


BandNames = BeforeValidator(_band_names)
"""A list, or one string with commas: Flower's run config carries no lists."""
