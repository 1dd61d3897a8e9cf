"""Which images of a folder are learned from and which are scored, by folders, by lists, or by a
seed that is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from fedsense_core.errors import SiteError
from fedsense_core.seeds import seed_of

PARTS = ("train", "test")
LARGEST_LIST_BYTES = 64 << 20
DRAWN = "no split comes with the data: a random half of each class trains, the other half is scored"


def part_folders(folder: Path) -> dict[str, Path] | None:
    """Return the subfolders ``train`` and ``test``, or None where there is neither. Raises
    SiteError for one alone."""
    found = {part: folder / part for part in PARTS if (folder / part).is_dir()}
    if len(found) == 1:
        (there,) = found
        other = PARTS[1 - PARTS.index(there)]
        raise SiteError(f"{folder}: has a folder {there}/ but none called {other}/. Add it, or take both away.")
    return found or None


def listed_parts(folder: Path, classes: Sequence[str]) -> dict[str, str] | None:
    """Return ``train`` or ``test`` by file, from lists such as ``train.txt`` and
    ``resisc45-test.txt``.

    A list holds one file a line, with or without folder and suffix. The key is the file's stem,
    after ``CLASS/`` where the line names the folder of one of the ``classes``: files of two classes
    may have one name. None where there are no lists. Raises SiteError for a list without its
    counterpart, several of a kind, or a file in both.
    """
    lists = {part: sorted(folder.glob(f"*{part}*.txt")) for part in PARTS}
    if not any(lists.values()):
        return None
    parts: dict[str, str] = {}
    for part, paths in lists.items():
        if len(paths) != 1:
            names = ", ".join(path.name for path in paths) or "none"
            raise SiteError(f"{folder}: needs exactly one list of {part} images, such as {part}.txt, and has {names}.")
        for name in _listed(paths[0], classes):
            if parts.setdefault(name, part) != part:
                raise SiteError(f"{folder}: {name!r} stands in both lists, training and test. Take it out of one.")
    return parts


def drawn_halves(classes: Sequence[int], seed: int = 0) -> list[str]:
    """Return ``train`` or ``test`` for each image: a random half of each class is ``train``, at
    least one image."""
    labels = np.asarray(classes)
    order = np.random.default_rng(seed_of("split", seed)).permutation(len(labels))
    parts = np.full(len(labels), PARTS[1], object)
    for k in np.unique(labels):
        mine = order[labels[order] == k]
        parts[mine[: (len(mine) + 1) // 2]] = PARTS[0]
    return list(parts)


def _listed(path: Path, classes: Sequence[str]) -> list[str]:
    if path.stat().st_size > LARGEST_LIST_BYTES:
        raise SiteError(f"{path}: is larger than {LARGEST_LIST_BYTES} bytes, which no list of files is.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SiteError(f"{path}: cannot be read as a list of files ({error}).") from error
    files = [PurePosixPath(line.strip().replace("\\", "/")) for line in lines if line.strip()]
    return [f"{file.parent.name}/{file.stem}" if file.parent.name in classes else file.stem for file in files]
