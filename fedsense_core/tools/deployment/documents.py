"""The small TOML files of a deployment that commands write and read back: strict models, and
errors that name file, field and value."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fedsense_core.errors import FedSenseError, nearest

MOST_BYTES = 1 << 20
"""These files are pages of text; anything larger is another file given by mistake."""


class DeploymentError(FedSenseError):
    """Something of a deployment is missing, wrong, or does not answer."""


class Document(BaseModel):
    """A file or a table of one: strict, and frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


Model = TypeVar("Model", bound=Document)


def read_document(path: Path, model: type[Model], remedy: str) -> Model:
    """Return what a file says. Raises DeploymentError with file, field and value, and ``remedy``:
    what to do about it."""
    try:
        with path.open("rb") as file:
            tree = tomllib.loads(file.read(MOST_BYTES).decode())
    except FileNotFoundError:
        raise DeploymentError(f"{path} is missing: {remedy}") from None
    except (OSError, ValueError) as error:
        raise DeploymentError(f"{path} cannot be read ({error}): {remedy}") from error
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise DeploymentError(f"{path}: {_explain(error, model)} {remedy}") from None


def _explain(error: ValidationError, model: type[Document]) -> str:
    """Return the first fault as ``field = value: reason.``"""
    fault = error.errors(include_url=False)[0]
    field = ".".join(map(str, fault["loc"]))
    if fault["type"] == "missing":
        return f"`{field}` is missing."
    if fault["type"] == "extra_forbidden":
        return f"`{field}` is no field of this file.{nearest(field, list(model.model_fields))}"
    reason = fault["msg"].removeprefix("Value error, ")
    return f"{field} = {_short(fault['input'])}: {reason}."


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def toml_of(values: Mapping[str, Any], comment: str) -> bytes:
    """Return a TOML file: scalars and lists first, then a table for each mapping; None is left
    out."""
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping) and value}
    scalars = {key: value for key, value in values.items() if not isinstance(value, Mapping) and value is not None}
    lines = [*(f"# {line}" for line in comment.splitlines()), *_pairs(scalars)]
    for name, table in tables.items():
        lines += ["", f"[{_key(name)}]", *_pairs(table)]
    return ("\n".join(lines) + "\n").encode()


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in values.items()]


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, str) and "\n" in value:
        return f'"""\n{value}"""'
    # JSON's scalars and lists are TOML's, but for the character that TOML wants escaped as well.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
