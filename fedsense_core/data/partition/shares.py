"""One simulated client's share of the pooled imagery of all sites. Every client works out the same
split."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedsense_core.atomic_io import write_whole
from fedsense_core.config import PartitionSection
from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.partition.partition import partition
from fedsense_core.data.partition.pooled import Ints, pool


def client_names(settings: PartitionSection) -> list[str]:
    """Return the names of the clients of a split, in their order."""
    return [f"client-{number:03d}" for number in range(settings.clients)]


def share_of(
    sets: Sequence[Chips], settings: PartitionSection, seed: int, client: int, folder: Path
) -> tuple[Chips, ...]:
    """Return the chips of one client, as a subset of each of the sets of which it has some.

    Which they are is cached in ``folder``, the client's own, because looking at every chip takes
    longer than a round. Raises ConfigError as `partition` does.
    """
    mine = _positions(sets, settings, seed, client, folder)
    ends = np.cumsum([len(chips) for chips in sets])
    parts = np.split(mine, np.searchsorted(mine, ends[:-1]))
    firsts = ends - [len(chips) for chips in sets]
    shares = zip(sets, parts, firsts.tolist(), strict=True)
    return tuple(chips.subset(part - first) for chips, part, first in shares if len(part))


def _positions(sets: Sequence[Chips], settings: PartitionSection, seed: int, client: int, folder: Path) -> Ints:
    """Return where in all the sets together the client's chips are, in ascending order."""
    imagery = [[chips.name, chips.bands, chips.scene_paths] for chips in sets]
    key = hashlib.blake2b(json.dumps([settings.model_dump(), seed, imagery]).encode(), digest_size=8)
    for chips in sets:  # where each chip lies, and, since clusters go by pixels, what they are like
        for values in (chips.scene, chips.row, chips.col, chips.origin_mean.numpy(), chips.origin_std.numpy()):
            key.update(values.tobytes())
    path = folder / f"share-{key.hexdigest()}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        cached: Ints = np.load(path, allow_pickle=False)
        return cached
    mine = partition(pool(sets, settings, seed), settings, seed)[client]
    content = io.BytesIO()
    np.save(content, mine)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, content.getvalue())
    return mine
