"""Which chips are used of a site that has more than ``limits.max_chips``.

Sources share the limit, and each draws scenes at random until its share is full. How many chips a
source has is known only after all of it was read, which the limit is there to spare: until then it
is estimated from the scenes that were drawn.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fedsense_core.data.chips.cache import ChipStore, Drawn
from fedsense_core.seeds import seed_of

SEED = 0
"""One for all runs: another draw would chip the archive again."""


def draw_order(names: Sequence[str], folder: Path) -> list[int]:
    """Return positions of ``names`` in random order.

    Each name has its own place, whatever other names there are, so that a scene more moves no
    other. Paths count as seen from ``folder``: an archive may move together with its site file.
    """
    seen = [os.path.relpath(name, folder) if Path(name).is_absolute() else name for name in names]
    # A file's name need not be text.
    texts = [os.fsencode(name).decode("utf-8", "backslashreplace") for name in seen]
    return sorted(range(len(names)), key=lambda i: seed_of(SEED, "draw", texts[i]))


def rooms(limit: int, stores: Sequence[ChipStore]) -> list[int]:
    """Return how many chips each source may have. Chips as much of them as it takes to know."""
    if len(stores) == 1:
        return [limit]
    drawn = [store.draw(max(1, limit // len(stores))) for store in stores]
    sizes = [estimate(one) for one in drawn]
    while True:
        while sum(sizes) < limit and not all(one.complete for one in drawn):
            sizes = [size if one.complete else 2 * size for size, one in zip(sizes, drawn, strict=True)]
        given = shares(limit, sizes)
        drawn = [
            one if one.complete else store.draw(room) for one, store, room in zip(drawn, stores, given, strict=True)
        ]
        known = [one.count if one.complete else size for one, size in zip(drawn, sizes, strict=True)]
        if known == sizes:
            return given
        sizes = known


def shares(limit: int, sizes: Sequence[int]) -> list[int]:
    """Return how many chips each source of so many chips may have, of ``limit`` in all.

    Each has ``limit`` / sources, or all that it has; what is left goes to the others in proportion
    to what more they have.
    """
    given = [min(size, limit // len(sizes)) for size in sizes]
    more = [size - part for size, part in zip(sizes, given, strict=True)]
    left = min(limit - sum(given), sum(more))
    parts = [left * one // max(1, sum(more)) for one in more]
    # What rounding leaves goes to the largest remainders (Hamilton's method).
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(left * more[i] % max(1, sum(more))), i))
    for i in by_remainder[: left - sum(parts)]:
        parts[i] += 1
    return [one + part for one, part in zip(given, parts, strict=True)]


def estimate(drawn: Drawn) -> int:
    """Return how many chips a source has, if the scenes drawn are like the others."""
    return -(-drawn.count * drawn.of // max(1, len(drawn.chips)))
