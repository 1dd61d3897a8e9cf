"""The settings of a run, as they are given to begin it: a folder is all that it takes to continue
it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedsense_core.run_folder.folder import RunFolder

Scalar = str | int | float | bool
"""What Flower's run config carries."""


def settings_of(folder: str | Path) -> dict[str, Scalar]:
    """Return by dotted key what continues the run in ``folder``: its settings as they were last
    given, and the folder, wherever it has been moved to.

    Bands are one text and ``model.args`` is JSON, as on a command line. Left out are lists that
    only ``flower.toml`` can hold: the same app brings the same ones, and with another one the run
    folder refuses to be continued. Raises CheckpointError where there is no run, or its
    ``config.json`` is damaged.
    """
    path = Path(folder).expanduser().absolute()
    found: dict[str, Scalar] = {}
    for section, values in RunFolder.open(path).read_config().items():
        if isinstance(values, dict):
            texts = {f"{section}.{key}": _as_given(f"{section}.{key}", value) for key, value in values.items()}
            found |= {key: value for key, value in texts.items() if value is not None}
        else:
            found[section] = values
    return found | {"run.folder": str(path)}


def _as_given(key: str, value: Any) -> Scalar | None:
    """Return a value as a run config carries it, None where it cannot."""
    if key == "data.bands" and isinstance(value, list):
        return ",".join(value)
    if key == "model.args":
        return json.dumps(value, sort_keys=True)
    return value if isinstance(value, Scalar) else None
