"""A digest of the code that runs, so that server and clients notice when they run different copies
of it.

Flower's simulation imports client code from the working directory of a long-lived daemon if a
package of the same name lies there; without this check an old checkout would train silently."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

PACKAGES = ("server_app", "client_app", "fedsense_core")


@cache
def source_digest() -> str:
    """Return a hex name of every Python file of the three packages beside this one."""
    root = Path(__file__).parent.parent
    state = hashlib.blake2b(digest_size=8)
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            state.update(path.relative_to(root).as_posix().encode())
            state.update(path.read_bytes())
    return state.hexdigest()
