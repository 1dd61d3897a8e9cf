"""What is installed on request: the extras of pyproject.toml that commands need, and a line that
says which one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from fedsense_core.errors import FedSenseError

EXTRAS = {
    "simulation": ("ray",),
    "evaluate": ("torchvision", "torchmetrics", "faster_coco_eval", "scipy", "matplotlib"),
    "report": ("matplotlib", "jinja2"),
}
"""Modules by the extra that installs them. Neither an institution nor a coordinator needs any."""


class MissingExtra(FedSenseError):
    """A command needs packages that were not installed."""


def require(*extras: str, work: str) -> None:
    """Raise MissingExtra, which says what to install for ``work``, unless all of ``extras`` are
    there.

    Looks for the modules and loads none: it costs nothing to ask before minutes of work.
    """
    missing = {extra: [name for name in EXTRAS[extra] if find_spec(name) is None] for extra in extras}
    if any(missing.values()):
        wanted = ",".join(extra for extra, names in missing.items() if names)
        names = ", ".join(dict.fromkeys(name for found in missing.values() for name in found))
        raise MissingExtra(f'{work} needs {names}: pip install "fedsense[{wanted}]"')
