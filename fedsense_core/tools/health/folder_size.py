"""How much a folder holds."""

from __future__ import annotations

from pathlib import Path


def size_of(path: Path) -> int:
    """Return the bytes of all files below a folder; 0 where there is none."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
