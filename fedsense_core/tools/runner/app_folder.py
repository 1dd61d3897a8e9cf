"""The folder that ``flwr run`` takes: put together the same way from a clone and from an installed
wheel.

A wheel has no project folder, and a clone may hold anything; three packages and three files are the
whole app, so the bundle is the same bytes from both. The tools are put in as well, for processes
that run on this copy; Flower leaves them out of the bundle (`fab-exclude` in pyproject.toml).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import fedsense_core
from fedsense_core import fingerprint
from fedsense_core.errors import ConfigError
from fedsense_core.fingerprint import PACKAGES

INSTALLED = Path(fedsense_core.__file__).parent
"""In a wheel the project's own files lie in here, in a clone one folder up."""


def project_file(name: str) -> Path:
    """Return ``pyproject.toml``, ``flower.toml`` or ``LICENSE`` of the copy of FedSense that
    runs."""
    if path := fingerprint.project_file(INSTALLED.parent, name):
        return path
    raise ConfigError(f"{name} is neither in {INSTALLED} nor beside it: install FedSense again")


def assemble(folder: Path, flower_toml: Path | None = None) -> Path:
    """Write the app into ``folder``, which must be new; ``flower_toml`` takes the place of the
    shipped one."""
    for name in PACKAGES:
        shutil.copytree(INSTALLED.parent / name, folder / name, ignore=_all_but_python)
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copyfile(project_file(name), folder / name)
    shutil.copyfile(flower_toml or project_file("flower.toml"), folder / "flower.toml")
    return folder


def _all_but_python(folder: str, names: list[str]) -> list[str]:
    """Return what `shutil.copytree` leaves out: imagery, tables and texts, whatever they are
    called."""
    return [
        name for name in names if name == "__pycache__" or not (name.endswith(".py") or Path(folder, name).is_dir())
    ]
