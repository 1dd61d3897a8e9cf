"""Whether the installed packages are those that were tested together: the lock file's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from fedsense_core.errors import ConfigError
from fedsense_core.tools.health.findings import Doubt
from fedsense_core.tools.runner.app_folder import project_file

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", re.MULTILINE)
REMEDY = "`python -m pip install -c requirements.lock ...` in FedSense's folder installs what was tested together"


def locked(path: Path | None = None) -> dict[str, str]:
    """Return package -> version of the lock file."""
    return dict(PIN.findall((path or project_file("requirements.lock")).read_text(encoding="utf-8")))


def check_flower(lock: dict[str, str], installed: str) -> str:
    """Return which Flower is installed.

    Raises ConfigError for another one than the lock file's, whose messages differ.
    """
    wanted = lock["flwr"]
    if installed.split(".")[:2] != wanted.split(".")[:2]:
        raise ConfigError(
            f"Flower {installed} is installed, and the lock file has {wanted}: coordinator and institutions need the "
            f"same. {REMEDY}"
        )
    if installed != wanted:
        raise Doubt(f"Flower {installed} is installed, and the lock file has {wanted}. {REMEDY}")
    return f"Flower {installed}, as the lock file has it"


def check_packages(lock: dict[str, str], needed: set[str] | None = None) -> str:
    """Return how many packages are as the lock file has them.

    Raises ConfigError for one that is missing and needed, Doubt for others. Numbers of coded
    updates do not depend on versions, but nobody has tried others together.
    """
    needed = set(_needed()) if needed is None else needed
    present = {name: have for name in lock if name != "flwr" and (have := _installed(name))}
    missing = sorted(name for name in lock if name in needed and name != "flwr" and name not in present)
    if missing:
        raise ConfigError(f"{', '.join(missing)} is not installed. {REMEDY}")
    others = [f"{name} {have} (not {lock[name]})" for name, have in present.items() if have != lock[name]]
    if others:
        raise Doubt(f"{', '.join(others)}: other versions than the lock file's were not tried together. {REMEDY}")
    return f"{len(present)} packages, as the lock file has them"


def _installed(name: str) -> str:
    try:
        return version(name).partition("+")[0]  # torch's own builds: 2.14.1+cu128
    except PackageNotFoundError:
        return ""


def _needed() -> Iterator[str]:
    """Yield what FedSense needs without extras."""
    for line in requires("fedsense") or ():
        if "extra ==" not in line:
            match = re.match(r"[A-Za-z0-9._-]+", line)
            if match:
                yield match[0].lower()
