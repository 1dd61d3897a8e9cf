"""The imagery of all sites as one archive, for studies in simulation: where each chip came from,
and its class.

Shapes: n chips over all sites, site after site; C bands, S chip size, B batch, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import numpy as np
from numpy.typing import NDArray

from fedsense_core.config import PartitionSection
from fedsense_core.seeds import seed_of

if TYPE_CHECKING:
    from fedsense_core.data.chips.chips import Chips

Ints = NDArray[np.int64]
BATCH = 256
"""Chips whose features are computed at once."""
FITTED = 20_000
"""Chips from which clusters are found; more change their centres by less than they differ between
seeds."""
RESTARTS = 4
"""Starts of k-means, of which the tightest clusters are used."""


@dataclass(frozen=True)
class Archive:
    """Where n chips came from. Plain arrays, in the order of the pooled chips: site after site."""

    site: Ints
    """(n,) positions in ``sites``."""
    sensor: Ints
    """(n,) positions in ``sensors``."""
    scene: Ints
    """(n,) numbers of the scenes, different from site to site."""
    row: Ints
    """(n,) row of the chip's upper left corner in its scene, in pixels."""
    col: Ints
    """(n,) column of the same corner."""
    label: Ints
    """(n,) classes: by the names of the scenes' folders, or clusters."""
    sites: tuple[str, ...]
    """Site names."""
    sensors: tuple[str, ...]
    """Sensor names, each once, however many sites have it."""

    def __len__(self) -> int:
        return len(self.site)

    def blocks(self, side: int) -> Ints:
        """Return (n,) the region block of each chip: a square of ``side`` pixels of a scene.

        Blocks without chips have no number. Numbers run from scene to scene, and within one along
        Hilbert's curve, so that blocks with near numbers lie near each other. A chip belongs where
        its upper left corner is.
        """
        along = _numbered(hilbert(self.row // side, self.col // side))
        return _numbered(self.scene * len(self) + along)


def pool(sets: Sequence[Chips], settings: PartitionSection, seed: int) -> Archive:
    """Return the archive that the opened sites make together. Only a split by clusters has to read
    their pixels."""
    archive = _by_scene(sets)
    if settings.kind != "dirichlet":  # no other split looks at classes
        return archive
    match settings.by:
        case "label":
            return archive
        case "cluster":
            return replace(archive, label=clusters(appearance(sets), settings.clusters, seed))
        case unknown:
            assert_never(unknown)


def appearance(sets: Sequence[Chips]) -> NDArray[np.float32]:
    """Return (n, F) what chips look like: each band's mean, deviation and texture, in deviations of
    its source.

    Texture is the root of the mean squared difference between neighbouring pixels. F is 3 C where
    all sets have the same bands; else 3, the means over a chip's bands. Computed in NumPy, whose
    sums do not depend on threads.
    """
    figures = [np.concatenate([_figures(chips, first) for first in range(0, len(chips), BATCH)]) for chips in sets]
    if len({chips.bands for chips in sets}) == 1:
        return np.concatenate(figures).reshape(sum(map(len, figures)), -1)
    return np.concatenate([figure.mean(axis=2) for figure in figures])


def clusters(features: NDArray[np.float32], count: int, seed: int) -> Ints:
    """Return (n,) the cluster of each row of ``features`` (n, F), by k-means on standardised
    features.

    There are ``count`` clusters, or as many as there are different rows where these are fewer.
    """
    from sklearn.cluster import KMeans  # here, because it takes a second that other splits do not need
    from threadpoolctl import threadpool_limits

    import fedsense_core.pyarrow_workaround  # noqa: F401

    deviation = features.std(axis=0, dtype=np.float64)
    scaled = (features - features.mean(axis=0, dtype=np.float64)) / np.where(deviation > 0, deviation, 1)
    rng = np.random.default_rng(seed_of(seed, "clusters"))
    sample = scaled[rng.permutation(len(scaled))[:FITTED]]
    count = min(count, len(np.unique(sample, axis=0)))
    # Threads add up their shares in the order in which they end, so that two clients would find
    # other centres.
    with threadpool_limits(1):
        model = KMeans(count, n_init=RESTARTS, random_state=int(rng.integers(1 << 31))).fit(sample)
        return np.asarray(model.predict(scaled), dtype=np.int64)


def hilbert(row: Ints, col: Ints) -> Ints:
    """Return the position of each cell of a grid on Hilbert's curve: neighbours on the curve share
    a side (Hilbert 1891).

    ``row`` and ``col`` are not negative and below 2^31.
    """
    row, col = row.copy(), col.copy()
    position = np.zeros_like(row)
    for bit in reversed(range(max(int(row.max(initial=0)), int(col.max(initial=0))).bit_length())):
        low, right = (row >> bit) & 1, (col >> bit) & 1
        # Quarters in the shape of a U: the first, the one below it, the one right of that, the one
        # above that.
        position = 4 * position + (3 * right ^ low)
        # In the upper two the curve is mirrored at a diagonal: at the falling one first, at the
        # rising one last.
        last, upper = (low == 0) & (right == 1), low == 0
        mask = (1 << bit) - 1
        row, col = np.where(last, mask - (row & mask), row & mask), np.where(last, mask - (col & mask), col & mask)
        row, col = np.where(upper, col, row), np.where(upper, row, col)
    return position


def _by_scene(sets: Sequence[Chips]) -> Archive:
    sites = tuple(dict.fromkeys(chips.name for chips in sets))
    folders = [[Path(path).parent.name for path in chips.scene_paths] for chips in sets]
    scenes = [_ints(chips.scene) for chips in sets]
    sensor, sensors = _coded([chips.sensor for chips in sets], [_ints(chips.origin) for chips in sets])
    return Archive(
        site=np.repeat([sites.index(chips.name) for chips in sets], [len(chips) for chips in sets]),
        sensor=sensor,
        scene=_joint([chips.scene_paths for chips in sets], scenes),
        row=np.concatenate([_ints(chips.row) for chips in sets]),
        col=np.concatenate([_ints(chips.col) for chips in sets]),
        label=_coded(folders, scenes)[0],
        sites=sites,
        sensors=sensors,
    )


def _figures(chips: Chips, first: int) -> NDArray[np.float32]:
    """Return (B, 3, C) mean, deviation and texture of a batch of chips."""
    x_BCSS = chips.batch(range(first, min(first + BATCH, len(chips)))).numpy()
    mean = x_BCSS.mean(axis=(2, 3), dtype=np.float64)
    deviation = x_BCSS.std(axis=(2, 3), dtype=np.float64)
    steps = [np.square(np.diff(x_BCSS, axis=axis)).mean(axis=(2, 3), dtype=np.float64) for axis in (2, 3)]
    return np.stack([mean, deviation, np.sqrt((steps[0] + steps[1]) / 2)], axis=1).astype(np.float32)


def _joint(tables: Sequence[Sequence[str]], positions: Sequence[Ints]) -> Ints:
    """Return positions in each set's own table as positions in all tables put together, (n,)."""
    before = np.cumsum([0, *map(len, tables)])[:-1]
    return np.concatenate([part + first for part, first in zip(positions, before, strict=True)])


def _coded(tables: Sequence[Sequence[str]], positions: Sequence[Ints]) -> tuple[Ints, tuple[str, ...]]:
    """Return the chips' entries as positions (n,) in the sorted names that occur, and these
    names."""
    used, which = np.unique(_joint(tables, positions), return_inverse=True)
    names, code = np.unique(np.array([name for table in tables for name in table])[used], return_inverse=True)
    return code[which], tuple(names.tolist())


def _ints(values: object) -> Ints:
    return np.asarray(values, dtype=np.int64)


def _numbered(values: Ints) -> Ints:
    """Return (n,) the rank of each value among the different values, in their order."""
    return np.unique(values, return_inverse=True)[1]
