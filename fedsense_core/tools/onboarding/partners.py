"""Which files seem to show the same ground as others: names that differ in their last part
alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

from fedsense_core.tools.onboarding.globbing import literal


def partners(first: Sequence[str], second: Sequence[str]) -> tuple[str, str] | None:
    """Return a pattern with ``{scene}`` for each of two lists of paths, where each path has its
    partner in the other.

    ``a_10m.tif, b_10m.tif`` and ``a_20m.tif, b_20m.tif`` give ``{scene}_10m.tif`` and
    ``{scene}_20m.tif``; None where names do not pair.
    """
    if len(first) != len(second):
        return None
    pairs = list(zip(sorted(first), sorted(second), strict=True))
    scenes = [re.sub(r"[^_.\-]*$", "", _same_start(*pair)).rstrip("_.-") for pair in pairs]
    ends = {tuple(path[len(scene) :] for path in pair) for scene, pair in zip(scenes, pairs, strict=True)}
    folders = {path.rpartition("/")[0] for pair in pairs for path in pair}
    if len(ends) != 1 or len(folders) != 1 or len(set(scenes)) < len(scenes):
        return None
    (folder,), ((one, other),) = folders, ends
    if not all(scene[len(folder) :].strip("/") for scene in scenes) or one == other:
        return None
    start = f"{literal(folder)}/" if folder else ""
    return f"{start}{{scene}}{literal(one)}", f"{start}{{scene}}{literal(other)}"


def _same_start(one: str, other: str) -> str:
    return "".join(a for a, _ in takewhile(lambda letters: letters[0] == letters[1], zip(one, other, strict=False)))
