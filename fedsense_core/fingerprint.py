"""A digest of the code that runs, so that server and clients notice when they run different copies
of it.

Flower's simulation imports client code from the working directory of a long-lived daemon if a
package of the same name lies there; without this check an old checkout would train silently."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

PACKAGES = ("server_app", "client_app", "fedsense_core")
TOOLS = Path("fedsense_core", "tools")
"""What a person runs around a federation. It stays where it is installed: `fab-exclude` in
pyproject.toml keeps it out of Flower's bundle."""


def travelling_files(root: Path) -> list[Path]:
    """Return the Python files below ``root`` that Flower sends to every node, in a fixed order."""
    files = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    return [path for path in files if not path.is_relative_to(root / TOOLS)]


def digest_of(root: Path) -> str:
    """Return a hex name of all `travelling_files` below ``root``: their paths and their bytes."""
    state = hashlib.blake2b(digest_size=8)
    for path in travelling_files(root):
        state.update(path.relative_to(root).as_posix().encode())
        state.update(path.read_bytes())
    return state.hexdigest()


@cache
def source_digest() -> str:
    """Return the digest of the copy of FedSense that runs."""
    return digest_of(Path(__file__).parent.parent)
