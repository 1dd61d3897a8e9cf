"""A digest of the app that runs, so that server and clients notice when they run different copies
of it.

It covers every file of Flower's bundle. Flower's simulation imports client code from the working
directory of a long-lived daemon if a package of the same name lies there; without this check an old
checkout would train silently. It guards against accidents; against intent the bundle is signed
(docs/decisions/signed-app.md)."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

PACKAGES = ("server_app", "client_app", "fedsense_core")
PROJECT_FILES = ("pyproject.toml", "flower.toml", "LICENSE")
TOOLS = Path("fedsense_core", "tools")
"""What a person runs around a federation. It stays where it is installed: `fab-exclude` in
pyproject.toml keeps it out of Flower's bundle."""


def travelling_files(root: Path) -> list[Path]:
    """Return the Python files below ``root`` that Flower sends to every node, in a fixed order."""
    files = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    return [path for path in files if not path.is_relative_to(root / TOOLS)]


def project_file(root: Path, name: str) -> Path | None:
    """Return one of `PROJECT_FILES`: in a clone and a bundle they lie in ``root``, in a wheel
    inside fedsense_core."""
    return next((path for path in (root / "fedsense_core" / name, root / name) if path.is_file()), None)


def bundle_files(root: Path) -> dict[str, Path]:
    """Return where each file of the bundle lies in the copy of FedSense below ``root``, by its name
    in the bundle."""
    own = {name: path for name in PROJECT_FILES if (path := project_file(root, name)) is not None}
    return own | {path.relative_to(root).as_posix(): path for path in travelling_files(root)}


def digest_of(root: Path) -> str:
    """Return a hex name of all `bundle_files` below ``root``: their names and what they hold."""
    return digest_of_contents({name: path.read_bytes() for name, path in bundle_files(root).items()})


def digest_of_contents(files: Mapping[str, bytes]) -> str:
    """Return the same digest of files that are given by name and content.

    ``pyproject.toml`` counts by its values: Flower's own command writes it anew when it bundles.
    """
    state = hashlib.blake2b(digest_size=8)
    for name in sorted(files):
        content = _values(files[name]) if name == "pyproject.toml" else files[name]
        state.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return state.hexdigest()


def _values(toml: bytes) -> bytes:
    return json.dumps(tomllib.loads(toml.decode("utf-8")), sort_keys=True, default=str).encode()


@cache
def source_digest() -> str:
    """Return the digest of the copy of FedSense that runs."""
    return digest_of(Path(__file__).parent.parent)
