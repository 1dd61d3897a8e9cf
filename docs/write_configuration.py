"""Write docs/configuration.md, and the keys that Flower's run config may carry into pyproject.toml,
from the settings, presets and flower.toml themselves; a test finds an old page or an old list.

python docs/write_configuration.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, reduce
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from fedsense_core.config import FREE_KEYS, FROM_PRESET, LATER_KEYS, Config, Section, flower_defaults, known_keys
from fedsense_core.config.presets import PLAIN, PRESETS, SOURCES

ROOT = Path(__file__).parent.parent
PROJECT = ROOT / "pyproject.toml"
BEGIN, END = "# settings: written by docs/write_configuration.py", "# end of settings"
"""Around the generated lines of pyproject.toml."""
GIVEN_BY_CONTINUE = ("run.folder", "run.rounds", "run.rounds_before", "run.continued_from")
ALSO_AS_TEXT = ("data.bands", "model.args")
"""Lists and tables that may be given as one text, such as "red,green,blue" or '{"depth": 4}'."""
CITATION = re.compile(r"`docs/method\.md`, section (\d+)")
PAGE = ROOT / "docs" / "configuration.md"
KINDS = {int: "whole number", float: "number", str: "text", bool: "true, false", dict: "table", tuple: "list"}
LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}

HEAD = """\
# Configuration

<!-- Written by docs/write_configuration.py. Change the code or that script, not this page. -->

Every setting of a run has a dotted key. `fedsense settings` prints the list, `fedsense presets` the methods.

## Where a value comes from

Four layers; a later one wins.

1. The defaults in `fedsense_core/config/`, shown below.
2. The `[fedsense]` tables of [`flower.toml`](../flower.toml). The file travels with the app, so server and clients read
   the same bytes.
3. The preset. A key that a preset sets cannot be changed in `flower.toml`, only in layer 4.
4. What is given for one run: `fedsense run --set KEY=VALUE`, or Flower's `flwr run . --run-config 'KEY=VALUE'`.

In `pyproject.toml` every key of `[tool.flwr.app.config]` has the value `"preset"`. Flower accepts only keys that stand
there, and the word means: nothing given, ask the layers below. The keys marked *file* hold lists or tables, which
Flower's run config cannot carry. Change them in `flower.toml`; with `fedsense run`, in a copy of it:

```bash
fedsense run --config my-flower.toml
```

Another network needs its own `model.args`, or an empty table: those of the shipped file belong to its ResNet. On a
command line they are JSON, which replaces the whole table; in Flower's run config it stands within quotes of its own:

```bash
fedsense run --set model.architecture=convnext_atto --set model.args='{{"depths": [1, 1, 2, 1], "output_stride": 8}}'
flwr run . --run-config "model.architecture='convnext_atto' model.args='{{}}'"
```

A masked-image run on a small ViT, in a copy of `flower.toml` with these tables in place of the shipped ones:

```toml
[fedsense.model]
architecture = "vit_tiny_patch16_224"

[fedsense.model.args]
patch_size = 8
embed_dim = 96
depth = 4
num_heads = 3

[fedsense.train]
recipe = "mae"

[fedsense.alignment]
weight = 0.1
```

A wrong key or value stops the run at once and is answered with the nearest right one where there is one.
{flower_toml}
## Presets

A preset is a few switches and nothing else.

{presets}

`standalone` has the switches of `fedavg`: what makes it standalone is one name in `federation.only`.
`fedsense run --preset standalone` does this for every site, one run each. With `flwr run` or in a deployment, set
`federation.only` yourself; without it the run is refused. `centralised` opens every site file in one client, which only
a simulation can.

## Continuing a run

A run folder remembers its settings. With `run.resume = "auto"` a run that ended early goes on after its newest intact
checkpoint, if all settings but these are the same; the keys are marked *free* below:

{free}

A finished run is never overwritten.

## Training longer

```bash
fedsense run --continue runs/fedsense-seed0 --rounds 6
```

goes on from a finished run for 6 further rounds, in `runs/fedsense-seed0-to-12` unless `--out` says otherwise; the
finished run stays as it is. Model, outer optimiser and what clients keep (residuals, teachers, optimisers' states) go
on as they were. The learning rate begins a new schedule: warm-up, then a cosine to zero over the further rounds
([why](decisions/warm-restart.md)). Rounds are counted on, and the report shows those before, too. The settings are
those of the finished run; these may be given anew:

{later}

In a deployment the coordinator [sets](deployment.md#train-longer) `run.continued_from`, `run.rounds_before` and
`run.rounds`, which counts all rounds.

A finished encoder can also start another federation, of other institutions or with other settings: `model.weights`.
"""


def page() -> str:
    """Return the whole page."""
    head = HEAD.format(
        presets="\n".join(preset_table()),
        free=", ".join(f"`{key}`" for key in FREE_KEYS) + ".",
        later=", ".join(f"`{key}`" for key in LATER_KEYS if key not in GIVEN_BY_CONTINUE) + ".",
        flower_toml=flower_toml_note(),
    )
    return "\n".join([head, *(line for name in section_names() for line in section(name))])


def flower_toml_note() -> str:
    """Say what the shipped flower.toml changes."""
    changed = [key for key in known_keys() if key in flat(flower_defaults())]
    return f"\nThe shipped `flower.toml` sets {', '.join(f'`{key}`' for key in changed)}.\n"


def flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten tables into dotted keys, down to settings."""
    leaves: dict[str, Any] = {}
    for key, value in tables.items():
        is_table = isinstance(value, Mapping) and prefix + key not in known_keys()
        leaves |= flat(value, f"{prefix}{key}.") if is_table else {prefix + key: value}
    return leaves


def preset_table() -> Iterator[str]:
    """Yield the presets, one row each: what it sets beyond plain averaging, and where it comes
    from."""
    plain = flat(PLAIN)
    yield "| preset | switches beside those of `fedavg` | source |"
    yield "|---|---|---|"
    for name in PRESETS:
        switches = {key: value for key, value in flat(PRESETS[name]).items() if plain.get(key) != value}
        cells = ", ".join(f"`{key}` = {value_text(value)}" for key, value in switches.items())
        yield f"| `{name}` | {cells or '–'} | {SOURCES[name].replace('``', '`')} |"
    switches = ", ".join(f"`{key}` = {value_text(value)}" for key, value in plain.items())
    yield f"\n`fedavg` sets {switches}. What a preset does not set is left to the layers below."


def section_names() -> list[str]:
    """Return the sections of the tree, in its order."""
    return [name for name, field in Config.model_fields.items() if is_section(field.annotation)]


def is_section(annotation: Any) -> bool:
    """Return whether a field is a group of settings."""
    return isinstance(annotation, type) and issubclass(annotation, Section)


def section(name: str) -> Iterator[str]:
    """Yield the heading and table of one section."""
    model = Config.model_fields[name].annotation
    assert isinstance(model, type)
    assert issubclass(model, Section)
    yield f"## `{name}`\n"
    yield CITATION.sub(r"[method, section \1](method.md)", model.__doc__ or "") + "\n"
    yield "| Key | Default | Allowed | Meaning |"
    yield "|---|---|---|---|"
    for key, field in model.model_fields.items():
        meaning = " ".join((field.description or "").replace("``", "`").split())
        marks = "".join(f" *{mark}*" for mark in marks_of(f"{name}.{key}"))
        default = value_text(field.get_default(call_default_factory=True))
        yield f"| `{name}.{key}`{marks} | {default} | {allowed(field)} | {meaning} |"
    yield ""


def marks_of(key: str) -> list[str]:
    """Return what is special about a key."""
    return ["free"] * (key in FREE_KEYS) + ["file"] * (key not in single_valued())


@cache
def single_valued() -> tuple[str, ...]:
    """Return the keys whose values Flower's run config can carry, in the order of the tree."""
    defaults = Config()
    values = {key: reduce(getattr, key.split("."), defaults) for key in known_keys()}
    return tuple(k for k, value in values.items() if isinstance(value, bool | int | float | str) or k in ALSO_AS_TEXT)


def project(text: str) -> str:
    """Return pyproject.toml with the run config's keys between their two marks."""
    before, rest = text.split(f"{BEGIN}\n")
    after = rest.partition(f"{END}\n")[2]
    lines = "".join(f'{key} = "{FROM_PRESET}"\n' for key in single_valued())
    return f"{before}{BEGIN}\n{lines}{END}\n{after}"


def allowed(field: FieldInfo) -> str:
    """Return the values that a field takes."""
    return kinds_of(field.annotation, field.metadata)


def kinds_of(annotation: Any, rules: Sequence[Any] = ()) -> str:
    """Return the values of one annotation, limited by the rules that stand beside it."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(value_text(choice) for choice in parts)
    if origin is Annotated:
        return kinds_of(parts[0], [inner for rule in parts[1:] for inner in getattr(rule, "metadata", [rule])])
    if origin in (Union, UnionType):
        return " or ".join(kinds_of(part) for part in parts)
    limits = [f"{sign} {number(getattr(rule, n))}" for rule in rules for n, sign in LIMITS.items() if hasattr(rule, n)]
    return " ".join([KINDS[origin or annotation], *limits])


def number(value: float) -> str:
    """Return a bound as it was written."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def value_text(value: Any) -> str:
    """Return a value as TOML writes it."""
    return f"`{json.dumps(value, ensure_ascii=False)}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    PROJECT.write_text(project(PROJECT.read_text(encoding="utf-8")), encoding="utf-8")
