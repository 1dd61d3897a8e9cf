"""Splits of one archive among simulated clients, from equal random shares to one region, sensor or
class each.

Every chip goes to exactly one client. A split depends on the archive, the settings and the seed
alone, so that clients who work it out for themselves agree. Shapes: n chips, K clients, L classes,
b region blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from fedsense_core.config import PartitionSection
from fedsense_core.data.partition.pooled import Archive, Ints
from fedsense_core.errors import ConfigError
from fedsense_core.seeds import seed_of

MIN_CHIPS = 2
"""Chips a client needs: in a batch of one there is nothing to contrast a chip with."""


def partition(archive: Archive, settings: PartitionSection, seed: int) -> tuple[Ints, ...]:
    """Return the chips of each client, as ascending positions in ``archive``; together they hold
    each once.

    ``sites`` gives each site its own. The others share all imagery out among ``settings.clients``,
    in sizes that fall as rank^-tail from the first client to the last:

    - ``iid``: drawn at random, in exactly these sizes.
    - ``blocks``: each client has neighbouring region blocks, never a part of one, in sizes as near
      to these as whole blocks allow. Which client has which region is drawn. Chips that overlap may
      share pixels across the border.
    - ``sensor``: each client has one sensor. After the first client of each, further clients go
      where clients are largest. Those of one sensor share its region blocks as above, and the tail
      holds among them.
    - ``dirichlet``: in exactly these sizes, each client with its own mix of classes; see
      `class_counts`.

    Raises ConfigError, naming the settings to change, where a client would have fewer than 2 chips.
    """
    generator = np.random.default_rng(seed_of(seed, "partition", settings.kind))
    match settings.kind:
        case "sites":
            return _parts(_by_site(archive), len(archive.sites))
        case "iid":
            owner = _at_random(archive, settings, generator)
        case "blocks":
            owner = _by_block(archive, settings, generator)
        case "sensor":
            owner = _by_sensor(archive, settings, generator)
        case "dirichlet":
            owner = _by_mix(archive, settings, generator)
        case unknown:
            assert_never(unknown)
    return _parts(owner, settings.clients)


def client_sizes(n: int, clients: int, tail: float, whose: str = "the archive") -> Ints:
    """Return (K,) sizes in proportion to rank^-tail, largest first, that add up to n. Raises as
    `partition` does."""
    if n < MIN_CHIPS * clients:
        raise ConfigError(
            f"partition.clients: {whose} has {n} chips, too few for {clients} clients of at least {MIN_CHIPS}. "
            "Lower partition.clients, or provide more chips (federation.sites, data.chip_size)"
        )
    sizes = apportion(n, np.arange(1, clients + 1, dtype=np.float64) ** -tail)
    if sizes[-1] < MIN_CHIPS:
        raise ConfigError(
            f"partition.tail = {tail}: the smallest of {clients} clients would have {sizes[-1]} of the {n} chips of "
            f"{whose}, and needs {MIN_CHIPS}. Lower partition.tail or partition.clients"
        )
    return sizes


def apportion(total: int, weights: NDArray[np.float64]) -> Ints:
    """Return whole numbers in proportion to ``weights`` that add up to ``total``, by largest
    remainders.

    Equal remainders go to the first. The weights are not negative, and one is positive.
    """
    # Rounded, since the last bits of a power or of a gamma variate are not the same on all
    # machines.
    quotas = np.round(total * (weights / weights.sum()), 9)
    whole: Ints = np.floor(quotas).astype(np.int64)
    missing = total - int(whole.sum())
    whole[np.argsort(whole - quotas, kind="stable")[:missing]] += 1
    return whole


def class_counts(available: Ints, sizes: Ints, alpha: float, generator: np.random.Generator) -> Ints:
    """Return (K, L) chips of each class for each client, with row sums ``sizes`` and column sums
    ``available``.

    Client k draws its mix q_k from Dir(alpha p), p being the mix of the archive (Hsu et al., arXiv
    1909.06335), and wants sizes[k] q_k chips. Wishes are granted in random order as far as a class
    goes. Clients who lack chips draw again, from the same law over the classes that are left, until
    all chips are given away. This repetition changes nothing but what scarcity forces: a Dirichlet
    mix restricted to some classes is Dirichlet with their parameters.
    """
    prior = available / available.sum()
    left, room = available.copy(), sizes.copy()
    counts = np.zeros((len(sizes), len(available)), dtype=np.int64)
    while room.any():  # each time round a class is used up, or nobody lacks anything
        classes, clients = np.flatnonzero(left), generator.permutation(np.flatnonzero(room))
        mixes = generator.dirichlet(alpha * prior[classes], len(clients))
        wanted = np.stack([apportion(room[client], mix) for client, mix in zip(clients, mixes, strict=True)])
        granted = np.clip(left[classes] - (wanted.cumsum(axis=0) - wanted), 0, wanted)
        counts[np.ix_(clients, classes)] += granted
        left[classes] -= granted.sum(axis=0)
        room[clients] -= granted.sum(axis=1)
    return counts


def skew(parts: Sequence[Ints], labels: Ints) -> float:
    """Return the mean over clients of the total variation distance between their mix of labels and
    that of all.

    0 where all mixes are equal. The largest value, 1 - sum of p_l^2 for equal clients of one label
    each, depends on the labels' shares p_l.
    """
    width = int(labels.max()) + 1
    counts = np.stack([np.bincount(labels[part], minlength=width) for part in parts])
    overall = counts.sum(axis=0) / counts.sum()
    return float(np.abs(counts / counts.sum(axis=1, keepdims=True) - overall).sum(axis=1).mean() / 2)


def _by_site(archive: Archive) -> Ints:
    chips = np.bincount(archive.site, minlength=len(archive.sites))
    if chips.min() < MIN_CHIPS:
        name = archive.sites[chips.argmin()]
        raise ConfigError(
            f"partition.kind = 'sites': site {name!r} has {chips.min()} chips, and a client needs {MIN_CHIPS}. Lower "
            "data.chip_size, or take its file out of federation.sites"
        )
    return archive.site


def _at_random(archive: Archive, settings: PartitionSection, generator: np.random.Generator) -> Ints:
    sizes = client_sizes(len(archive), settings.clients, settings.tail)
    return generator.permutation(np.repeat(np.arange(len(sizes)), sizes))


def _by_block(archive: Archive, settings: PartitionSection, generator: np.random.Generator) -> Ints:
    sizes = client_sizes(len(archive), settings.clients, settings.tail)
    return _in_runs(archive.blocks(settings.block_pixels), sizes, settings, generator, "the archive")


def _by_sensor(archive: Archive, settings: PartitionSection, generator: np.random.Generator) -> Ints:
    names = archive.sensors
    if settings.clients < len(names):
        raise ConfigError(
            f"partition.clients = {settings.clients}: every client has one sensor, and there are {len(names)} "
            f"({', '.join(names)}). Raise it to at least {len(names)}, or choose another partition.kind"
        )
    blocks = archive.blocks(settings.block_pixels)
    owner = np.empty(len(archive), dtype=np.int64)
    first = 0
    for sensor, clients in enumerate(_seats(np.bincount(archive.sensor), settings.clients)):
        mine, whose = archive.sensor == sensor, f"sensor {names[sensor]!r}"
        sizes = client_sizes(int(mine.sum()), clients, settings.tail, whose)
        owner[mine] = first + _in_runs(blocks[mine], sizes, settings, generator, whose)
        first += clients
    return owner


def _by_mix(archive: Archive, settings: PartitionSection, generator: np.random.Generator) -> Ints:
    sizes = client_sizes(len(archive), settings.clients, settings.tail)
    label, available = np.unique(archive.label, return_inverse=True, return_counts=True)[1:]
    if len(available) < 2:
        match settings.by:
            case "label":
                remedy = "Sort scenes into folders named after their classes, or set it to 'cluster'"
            case "cluster":
                remedy = "All chips look the same: choose another partition.kind"
            case unknown:
                assert_never(unknown)
        raise ConfigError(f"partition.by = {settings.by!r}: there is one class only. {remedy}")
    counts = class_counts(available, sizes, settings.alpha, generator)
    shuffled = generator.permutation(len(label))
    owner = np.empty(len(label), dtype=np.int64)
    clients = np.tile(np.arange(len(sizes)), len(available))
    owner[shuffled[np.argsort(label[shuffled], kind="stable")]] = np.repeat(clients, counts.T.ravel())
    return owner


def _in_runs(blocks: Ints, sizes: Ints, settings: PartitionSection, generator: np.random.Generator, whose: str) -> Ints:
    """Return (n,) the client of each chip, where every client gets a run of whole blocks of
    ascending number."""
    block, chips = np.unique(blocks, return_inverse=True, return_counts=True)[1:]
    order = generator.permutation(len(sizes))
    edges = np.concatenate([[0], chips.cumsum()])
    latest = _latest_cuts(edges, len(sizes))
    if latest[0] < 0:
        raise ConfigError(
            f"partition.block_pixels = {settings.block_pixels}: {whose} has {len(chips)} region blocks, too few for "
            f"{len(sizes)} clients of at least {MIN_CHIPS} chips. Lower partition.block_pixels or partition.clients"
        )
    cuts = [0]
    for target, last in zip(sizes[order].cumsum()[:-1], latest[1:-1], strict=True):
        nearest = int(np.abs(edges - target).argmin())
        earliest = int(np.searchsorted(edges, edges[cuts[-1]] + MIN_CHIPS))
        cuts.append(min(max(nearest, earliest), last))
    return np.repeat(order, np.diff([*cuts, len(chips)]))[block]


def _latest_cuts(edges: Ints, clients: int) -> list[int]:
    """Return (K + 1) the last block at which each client may begin, the last ones' end included; -1
    is never.

    Every client from there on can then still get enough chips.
    """
    latest = [len(edges) - 1]
    for _ in range(clients):
        need = edges[latest[0]] - MIN_CHIPS if latest[0] >= 0 else -1
        latest.insert(0, int(np.searchsorted(edges, need, side="right")) - 1)
    return latest


def _seats(chips: Ints, clients: int) -> list[int]:
    """Return how many of the clients each sensor gets: one, and the next always goes where chips
    per client are most.

    This keeps the largest client as small as can be (Jefferson's method of giving out seats, with
    one to begin with).
    """
    seats = np.ones(len(chips), dtype=np.int64)
    for _ in range(clients - len(chips)):
        seats[(chips / seats).argmax()] += 1
    return seats.tolist()


def _parts(owner: Ints, clients: int) -> tuple[Ints, ...]:
    order = np.argsort(owner, kind="stable")
    ends = np.bincount(owner, minlength=clients).cumsum()
    return tuple(np.split(order, ends[:-1]))
