"""How values that TOML or Flower cannot carry are read into the fields of a section."""

from __future__ import annotations

import json
from typing import Any, NoReturn

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


def _table(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        table = json.loads(value, parse_constant=_not_finite)
        if not isinstance(table, dict):
            raise TypeError("this is none")
    except (ValueError, TypeError) as error:
        raise ValueError(f'give a JSON object, such as {{"depth": 4}} or {{}}: {error}') from None
    return table


def _not_finite(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


JsonTable = BeforeValidator(_table)
"""A table, or one string of JSON: Flower's run config carries no tables."""
