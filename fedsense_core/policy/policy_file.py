"""The policy file of an institution: strict TOML that nobody else writes. Without a file the
defaults below hold.

Its limits are those of a run's every round: what the server sends can neither change nor skip them.
"""

from __future__ import annotations

import json
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, model_validator

from fedsense_core.codecs.settings import CodecName
from fedsense_core.config import AsTuple
from fedsense_core.config.presets import PRESETS
from fedsense_core.errors import PolicyError, nearest
from fedsense_core.section import Section
from fedsense_core.ssl.settings import RecipeName

FILE = "policy.toml"
"""Its name beside the state of an institution."""
MOST_BYTES = 65_536
"""Of a policy file."""

Protection = Literal["clip", "uplink-clip"]
"""What a run can do for the institutions that take part; see `judging.PROTECTIONS`."""


class Limits(Section):
    """The most that one round may ask."""

    local_steps: int = Field(10_000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(4096, ge=2)
    """Chips in a batch."""
    chip_size: int = Field(1024, ge=8)
    """Pixels a side of the chips that are cut, and of the views the model trains on."""
    parameters: int = Field(500_000_000, ge=1)
    """Parameters of the model."""
    memory_gb: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    """Main memory of the process that trains, in 10^9 bytes; "auto" is 80 % of the machine's."""
    disk_gb: float = Field(500.0, gt=0)
    """Disk for chips and for what is kept between rounds, of all runs together, in 10^9 bytes."""
    minutes: float = Field(120.0, gt=0)
    """Minutes of a round. Training stops when they are over, and the coordinator is told why."""
    preparing_minutes: float = Field(1440.0, gt=0)
    """Minutes before the first round, in which the archive is cut into chips. What is cut when they
    are over stays for the next try."""


class Allowed(Section):
    """What runs may choose."""

    presets: Literal["all"] | Annotated[tuple[str, ...], AsTuple] = "all"
    """Names of presets, or "all". Where names are given, a run must also leave the switches of its
    preset as they are."""
    recipes: Literal["all"] | Annotated[tuple[RecipeName, ...], AsTuple] = "all"
    """Self-supervised losses, or "all"."""
    codecs: Literal["all"] | Annotated[tuple[CodecName, ...], AsTuple] = "all"
    """Codecs of updates and of what the server sends, or "all"."""

    @model_validator(mode="after")
    def _presets_exist(self) -> Allowed:
        for name in () if self.presets == "all" else self.presets:
            if name not in PRESETS:
                raise ValueError(f"{name!r} is no preset.{nearest(name, list(PRESETS))}")
        return self


class Sharing(Section):
    """What may leave the machine beside updates."""

    statistics: bool = True
    """Counts of pixel values by band; only where the site file says share_statistics = true,
    too."""
    sums: bool = False
    """Sums over embeddings, which runs with train.federated_sigreg = true are made of. With two
    institutions, the other one learns yours."""
    notes: bool = True
    """A sentence to the coordinator where a residual was dropped."""


class Required(Section):
    """What a run must promise."""

    clients: int = Field(1, ge=1)
    """Institutions that each round must ask, and whose replies it must have before it counts."""
    protections: Annotated[tuple[Protection, ...], AsTuple] = ()
    """"clip": an update counts with no more than the median norm of its round (aggregation.clip =
    'median'); "uplink-clip": your update has a largest norm before it leaves (uplink.clip above
    0)."""


class Policy(Section):
    """All of it."""

    limits: Limits = Limits()
    allowed: Allowed = Allowed()
    sharing: Sharing = Sharing()
    required: Required = Required()


def read_policy(path: Path) -> Policy:
    """Return the policy in ``path``.

    Raises PolicyError with the file, the key, its value and what to do: a policy that cannot be
    read allows nothing.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise PolicyError(f"{path}: larger than {MOST_BYTES} bytes; this is not a policy file. {_REMEDY}")
        return Policy.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PolicyError(
            f"{path}: the policy file cannot be read ({error.strerror}), so nothing is allowed. {_REMEDY}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: the policy file is not valid TOML: {error}. {_REMEDY}") from None
    except ValidationError as error:
        raise PolicyError(f"{path}: {_first_fault(error)} {_REMEDY}") from None


def default_file() -> str:
    """Return a policy file that says what holds without one, each key with its sentence."""
    head = [
        "# What a run may do on this machine. Nobody but you writes this file; it is read before every round.",
        "# A key that is missing has the value shown here.",
    ]
    return "\n".join([*head, *(line for name in Policy.model_fields for line in _table(name))]) + "\n"


_REMEDY = "`fedsense institution policy` prints a file to begin with"


def _table(name: str) -> Iterator[str]:
    section = _section(name)
    yield f"\n[{name}]"
    for key, field in section.model_fields.items():
        words = " ".join((field.description or "").split())
        yield from textwrap.wrap(words, 98, initial_indent="# ", subsequent_indent="# ")
        default = field.get_default()
        yield f"{key} = {json.dumps(list(default) if isinstance(default, tuple) else default)}"


def _first_fault(error: ValidationError) -> str:
    """Say the first mistake as ``table.key = value: what is wrong``, with the nearest right
    word."""
    faults: list[Any] = list(error.errors(include_url=False, include_context=False))
    # Of a union each alternative complains; the one that was meant complains deepest.
    fault = max(faults, key=lambda one: len(one["loc"]))
    where = [str(part) for part in fault["loc"]]
    table, key = [*where, "", ""][:2]
    if fault["type"] == "extra_forbidden":
        known = (
            list(_section(table).model_fields) if key and table in Policy.model_fields else list(Policy.model_fields)
        )
        belongs = [name for name in Policy.model_fields if where[-1] in _section(name).model_fields]
        hint = f" It belongs to the table [{belongs[0]}]." if belongs else nearest(where[-1], known)
        return f"unknown key {'.'.join(where)!r}.{hint}"
    said = fault["msg"].removeprefix("Value error, ").rstrip(".")
    if isinstance(fault["input"], dict):
        return f"{table}: {said}."
    value = fault["input"]
    field = _section(table).model_fields.get(key) if table in Policy.model_fields else None
    hint = nearest(str(value), _choices(field.annotation)) if field else ""
    return f"{table}.{key} = {value!r}: {said}{'' if said.endswith('?') else '.'}{hint}"


def _section(table: str) -> type[BaseModel]:
    section = Policy.model_fields[table].annotation
    assert isinstance(section, type)
    assert issubclass(section, BaseModel)
    return section


def _choices(annotation: Any) -> list[str]:
    """Return the words that a type takes, however deep they stand in it."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in _choices(part)]
