"""Folders and files below a folder: links are followed, and each real folder is entered once.

So a link to a folder above ends, and the result is the same on every version of Python.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path


def folders_below(root: Path) -> Iterator[Path]:
    """Yield ``root`` and every folder below it, each real folder once, in name order.

    A folder that can be reached without a link is given without. Folders above ``root`` are never
    entered, nor those that are hidden or may not be read.
    """
    seen = {key for folder in root.resolve().parents if (key := _key(folder)) is not None}
    links = deque([root])
    while links:
        yield from _walk(links.popleft(), seen, links)


def files_below(root: Path) -> Iterator[Path]:
    """Yield every file in the folders of `folders_below`; pipes and devices are none."""
    for folder in folders_below(root):
        yield from (path for path in listed(folder) if path.is_file())


def listed(folder: Path) -> list[Path]:
    """Return what lies in a folder, in name order; nothing if it may not be read or is none."""
    return [folder / entry.name for entry in _entries(folder)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (PermissionError, FileNotFoundError, NotADirectoryError):
        return []


def _walk(root: Path, seen: set[tuple[int, int]], links: deque[Path]) -> Iterator[Path]:
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        key = _key(folder)
        if key is None or key in seen:
            continue
        seen.add(key)
        yield folder
        inner = [entry for entry in _entries(folder) if _is_folder(entry) and not entry.name.startswith(".")]
        links.extend(Path(entry.path) for entry in inner if entry.is_symlink())
        waiting += [Path(entry.path) for entry in reversed(inner) if not entry.is_symlink()]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _key(folder: Path) -> tuple[int, int] | None:
    try:
        stat = folder.stat()
    except OSError:  # it is gone, or a link to nothing
        return None
    return stat.st_dev, stat.st_ino
