"""Splits of one archive among simulated clients: true partitions, with the sizes and the skew that
were asked for."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stored_chips import chips_of_array, pixels_of
from threadpoolctl import threadpool_info, threadpool_limits

from fedsense_core.config import PartitionSection
from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.data.partition.partition import MIN_CHIPS, apportion, class_counts, client_sizes, partition, skew
from fedsense_core.data.partition.pooled import Archive, appearance, clusters, hilbert, pool
from fedsense_core.errors import ConfigError

KINDS = ("iid", "blocks", "sensor", "dirichlet")
STRIDE = 64
SENSORS = ("aerial-rgb", "landsat8-l1", "sentinel2-l2a")


def grid_archive(scenes: list[tuple[int, int, int, int]], classes: int = 3, seed: int = 0) -> Archive:
    """An archive of full grids of chips: (site, sensor, rows, columns) of each scene, in the order
    of the sites."""
    columns: list[list[int]] = []
    for number, (site, sensor, rows, cols) in enumerate(sorted(scenes)):
        columns += [[site, sensor, number, STRIDE * r, STRIDE * c] for r in range(rows) for c in range(cols)]
    _, site, sensor, scene, row, col = np.array([[0] * len(columns), *zip(*columns, strict=True)])
    used_sites, site = np.unique(site, return_inverse=True)
    used_sensors, sensor = np.unique(sensor, return_inverse=True)
    label = np.random.default_rng(seed).integers(classes, size=len(site))
    names = tuple(f"site-{i}" for i in used_sites), tuple(SENSORS[i] for i in used_sensors)
    return Archive(site, sensor, scene, row, col, label, *names)


SCENES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6
)
ARCHIVES = st.builds(grid_archive, SCENES, st.integers(2, 5), st.integers(0, 9))


def choices(*kinds: str) -> st.SearchStrategy[PartitionSection]:
    return st.builds(
        PartitionSection,
        kind=st.sampled_from(kinds),
        clients=st.integers(1, 9),
        tail=st.sampled_from([0.0, 0.5, 1.0, 1.7]),
        block_pixels=st.sampled_from([64, 100, 128]),
        alpha=st.sampled_from([1e-9, 0.01, 0.5, 3.0, 1e6]),
        by=st.just("label"),
    )


SEEDS = st.integers(0, 2**40)


def split_or_skip(archive: Archive, choice: PartitionSection, seed: int) -> tuple[Any, ...]:
    try:
        return partition(archive, choice, seed)
    except ConfigError:  # what the messages promise is tested below
        assume(False)
        raise


@given(archive=ARCHIVES, choice=choices(*KINDS), seed=SEEDS)
@settings(max_examples=80, deadline=None)
def test_every_chip_has_one_client_and_every_client_its_chips(
    archive: Archive, choice: PartitionSection, seed: int
) -> None:
    parts = split_or_skip(archive, choice, seed)
    assert len(parts) == choice.clients
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(archive)))
    for part, again in zip(parts, partition(archive, choice, seed), strict=True):
        assert part.dtype == np.int64
        assert len(part) >= MIN_CHIPS
        assert (np.diff(part) > 0).all()
        assert np.array_equal(part, again)
    if choice.kind in ("iid", "dirichlet"):
        assert [len(part) for part in parts] == client_sizes(len(archive), choice.clients, choice.tail).tolist()


@given(archive=ARCHIVES, choice=choices("blocks", "sensor"), seed=SEEDS)
@settings(max_examples=80, deadline=None)
def test_blocks_stay_whole_are_neighbours_and_sensors_are_not_mixed(
    archive: Archive, choice: PartitionSection, seed: int
) -> None:
    parts = split_or_skip(archive, choice, seed)
    owner = np.empty(len(archive), dtype=int)
    for client, part in enumerate(parts):
        owner[part] = client
        if choice.kind == "sensor":
            assert len(set(archive.sensor[part])) == 1
    side = choice.block_pixels
    key = list(zip(archive.scene, archive.row // side, archive.col // side, strict=True))
    assert len(set(key)) == len(set(zip(key, owner, strict=True))), "a block was split"
    for sensor in range(len(archive.sensors) if choice.kind == "sensor" else 1):
        mine = archive.sensor == sensor if choice.kind == "sensor" else np.ones(len(archive), dtype=bool)
        along = owner[mine][np.argsort(archive.blocks(side)[mine], kind="stable")]
        assert 1 + np.count_nonzero(np.diff(along)) == len(set(along)), "a client's blocks are one run"


@given(archive=ARCHIVES, clients=st.integers(1, 6), tail=st.sampled_from([0.0, 1.0]), seed=SEEDS)
@settings(max_examples=50, deadline=None)
def test_sizes_by_block_miss_the_tail_by_less_than_a_block(
    archive: Archive, clients: int, tail: float, seed: int
) -> None:
    sizes = client_sizes(len(archive), clients, tail) if len(archive) >= 20 * clients else None
    choice = PartitionSection(kind="blocks", clients=clients, tail=tail, block_pixels=128)
    largest = np.bincount(archive.blocks(128)).max()
    assume(sizes is not None and sizes.min() >= 2 * largest)  # else whole blocks cannot follow the tail
    parts = partition(archive, choice, seed)
    assert np.abs([len(part) for part in parts] - sizes).max() <= largest


@pytest.mark.parametrize("chips", [[50, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 50], [1, 1, 50, 1, 1]])
def test_beside_a_huge_block_every_client_still_has_chips_enough(chips: list[int]) -> None:
    zeros, col = np.zeros(sum(chips), dtype=np.int64), np.repeat(np.arange(len(chips)) * 64, chips)
    archive = Archive(zeros, zeros, zeros, zeros, col, zeros, ("site",), ("rgb",))
    parts = partition(archive, PartitionSection(kind="blocks", clients=3, block_pixels=64), 0)
    assert sorted(map(len, parts)) in ([2, 4, 50], [2, 2, 50], [2, 3, 51])


@given(archive=ARCHIVES, spare=st.integers(0, 8), seed=SEEDS)
@settings(max_examples=50, deadline=None)
def test_sensors_get_clients_so_that_the_largest_could_not_be_smaller(archive: Archive, spare: int, seed: int) -> None:
    choice = PartitionSection(kind="sensor", clients=len(archive.sensors) + spare, block_pixels=64)
    parts = split_or_skip(archive, choice, seed)
    clients = np.bincount([archive.sensor[part[0]] for part in parts])
    chips = np.bincount(archive.sensor)
    assert (clients >= 1).all()
    # Taking the client of any sensor with two or more would make that sensor's clients at least as
    # large.
    movable = clients > 1
    if movable.any():
        assert (chips / clients).max() <= (chips[movable] / (clients[movable] - 1)).min() + 1e-9


def test_by_site_each_client_has_the_chips_of_its_file() -> None:
    archive = grid_archive([(0, 0, 2, 2), (1, 1, 3, 3), (1, 0, 1, 1), (3, 2, 1, 2)])
    parts = partition(archive, PartitionSection(), 0)
    assert [len(part) for part in parts] == [4, 10, 2]
    assert np.array_equal(np.concatenate(parts), np.arange(16))


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_gives_another_split(kind: Any) -> None:
    archive = grid_archive([(0, 0, 8, 8), (1, 1, 8, 8)])
    choice = PartitionSection(kind=kind, clients=6, tail=0.7, block_pixels=64, by="label")
    splits = {tuple(map(tuple, partition(archive, choice, seed))) for seed in range(5)}
    assert len(splits) > 1


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("iid", 3725440629), ("blocks", 152732124), ("sensor", 2146228244), ("dirichlet", 1431662697)],
)
def test_splits_are_the_same_on_every_machine(kind: Any, expected: int) -> None:
    archive = grid_archive([(0, 0, 4, 4), (1, 1, 4, 5)])
    choice = PartitionSection(kind=kind, clients=3, tail=1.0, block_pixels=64, by="label")
    text = " ".join(str(part.tolist()) for part in partition(archive, choice, 7))
    assert zlib.crc32(text.encode()) == expected


# -- sizes


@given(
    total=st.integers(0, 100_000),
    weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=30).filter(lambda weights: sum(weights) > 1e-3),
)
@settings(max_examples=80, deadline=None)
def test_shares_add_up_and_miss_their_quota_by_less_than_one(total: int, weights: list[float]) -> None:
    shares = apportion(total, np.array(weights))
    assert shares.sum() == total
    assert np.abs(shares - total * np.array(weights) / sum(weights)).max() < 1 + 1e-6
    assert (shares[np.array(weights) == 0] == 0).all()


def test_the_tail_goes_from_equal_sizes_to_those_of_zipf() -> None:
    assert client_sizes(10, 4, 0.0).tolist() == [3, 3, 2, 2]
    assert client_sizes(1_100, 3, 1.0).tolist() == [600, 300, 200]
    shares = [client_sizes(10_000, 8, tail)[0] for tail in (0.0, 0.3, 0.6, 1.0, 2.0)]
    assert shares == sorted(set(shares))


# -- classes


@given(
    available=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    clients=st.integers(1, 12),
    tail=st.sampled_from([0.0, 1.0]),
    alpha=st.sampled_from([1e-320, 1e-9, 0.1, 1.0, 1e9, 1.7e308]),
    seed=SEEDS,
)
@settings(max_examples=80, deadline=None)
def test_class_counts_use_every_chip_of_every_class(
    available: list[int], clients: int, tail: float, alpha: float, seed: int
) -> None:
    sizes = apportion(sum(available), np.arange(1.0, clients + 1) ** -tail)
    counts = class_counts(np.array(available), sizes, alpha, np.random.default_rng(seed))
    assert (counts >= 0).all()
    assert counts.sum(axis=0).tolist() == available
    assert counts.sum(axis=1).tolist() == sizes.tolist()


def mixes(alpha: float, sizes: Any, available: Any, seed: int) -> Any:
    counts = class_counts(available, sizes, alpha, np.random.default_rng(seed))
    return counts / counts.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("tail", [0.0, 1.0])
def test_large_alpha_gives_everybody_the_mix_of_the_archive(tail: float) -> None:
    available = np.array([900, 500, 300, 200, 60, 40])
    sizes = client_sizes(available.sum(), 8, tail)
    misses = np.abs(mixes(1e9, sizes, available, 0) - available / available.sum()) * sizes[:, None]
    assert misses.max() < 2, "a chip of rounding, and one that others' rounding had taken"


def test_small_alpha_gives_almost_everybody_one_class() -> None:
    available, sizes = np.full(10, 1000), np.full(50, 200)
    top = np.concatenate([mixes(1e-6, sizes, available, seed).max(axis=1) for seed in range(5)])
    assert top.mean() > 0.97
    assert (top == 1).mean() > 0.9


def test_mixes_of_many_clients_vary_as_dirichlet_says() -> None:
    available = np.array([60_000, 30_000, 10_000])
    drawn, share = mixes(2.0, np.full(500, 200), available, 0), available / available.sum()
    assert np.allclose(drawn.mean(axis=0), share)
    assert np.allclose(drawn.var(axis=0), share * (1 - share) / (2.0 + 1), rtol=0.15)


def test_skew_falls_as_alpha_rises() -> None:
    archive = grid_archive([(0, 0, 40, 40)], classes=6)

    def mean_skew(alpha: float) -> float:
        choice = PartitionSection(kind="dirichlet", by="label", clients=10, alpha=alpha)
        return float(np.mean([skew(partition(archive, choice, seed), archive.label) for seed in range(8)]))

    skews = [mean_skew(alpha) for alpha in (1e-3, 0.1, 0.5, 2.0, 10.0, 1e3, 1e6)]
    assert (np.diff(skews) < 0).all()
    assert skews[0] > 0.75  # 1 - sum p^2 is 0.83
    assert skews[-1] < 0.02


def test_skew_is_the_mean_total_variation_distance() -> None:
    labels = np.array([0, 0, 1, 1])
    assert skew([np.array([0, 2]), np.array([1, 3])], labels) == 0
    assert skew([np.array([0, 1]), np.array([2, 3])], labels) == 0.5
    assert skew([np.array([0]), np.array([1, 2, 3])], labels) == pytest.approx((1 / 2 + 1 / 6) / 2)


def test_chips_of_a_class_are_drawn_at_random_and_not_in_order() -> None:
    archive = grid_archive([(0, 0, 30, 30)], classes=2)
    choice = PartitionSection(kind="dirichlet", by="label", clients=2, alpha=1e6)
    rows = [archive.row[part].mean() for part in partition(archive, choice, 3)]
    assert abs(rows[0] - rows[1]) < 0.1 * archive.row.max()


# -- what is refused


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"kind": "iid", "clients": 19}, r"partition\.clients: the archive has 36 chips, too few for 19 clients"),
        ({"kind": "iid", "tail": 9.0}, r"partition\.tail = 9\.0: the smallest of 8 clients would have 0 of the 36"),
        ({"kind": "blocks"}, r"partition\.block_pixels = 512: the archive has 2 region blocks, too few for 8 clients"),
        ({"kind": "sensor", "clients": 1}, r"partition\.clients = 1: .* there are 2 \(aerial-rgb, landsat8-l1\)"),
        ({"kind": "sensor", "clients": 3}, r"block_pixels = 512: sensor 'landsat8-l1' has 1 region blocks, .* 2 cl"),
        ({"kind": "dirichlet", "by": "label"}, r"partition\.by = 'label': there is one class only.*'cluster'"),
        ({"kind": "dirichlet", "by": "cluster"}, r"partition\.by = 'cluster': .*another partition\.kind"),
    ],
)
def test_what_cannot_be_split_names_the_setting_to_change(choice: dict[str, Any], message: str) -> None:
    archive = grid_archive([(0, 0, 3, 4), (1, 1, 6, 4)], classes=1)
    with pytest.raises(ConfigError, match=message):
        partition(archive, PartitionSection(**choice), 0)


def test_a_site_of_one_chip_is_named() -> None:
    with pytest.raises(ConfigError, match=r"site 'site-2' has 1 chips"):
        partition(grid_archive([(0, 0, 2, 2), (2, 0, 1, 1)]), PartitionSection(), 0)


# -- the archive


@pytest.mark.parametrize("bits", [1, 2, 3, 5])
def test_neighbours_on_the_curve_share_a_side(bits: int) -> None:
    row, col = (axis.ravel() for axis in np.mgrid[: 1 << bits, : 1 << bits])
    position = hilbert(row, col)
    assert np.array_equal(np.sort(position), np.arange(4**bits))
    order = np.argsort(position)
    assert (np.abs(np.diff(row[order])) + np.abs(np.diff(col[order])) == 1).all()


@pytest.fixture
def two_sites(write_tiff: Callable[..., Path], image: Callable[..., Any], tmp_path: Path) -> list[Chips]:
    """Site ``a`` with a smooth and a rough scene of two sensors, and ``b`` with a rough one."""
    smooth = np.broadcast_to(np.linspace(20, 200, 128).astype("uint8"), (3, 128, 128))
    write_tiff("a/water/lake.tif", np.ascontiguousarray(smooth))
    write_tiff("a/town/roofs.tif", image(3, 64, 128, "uint16"))
    write_tiff("b/town/roads.tif", image(3, 128, 64))
    sources = {"a": [("water", "aerial-rgb"), ("town", "modis-rgb")], "b": [("town", "aerial-rgb")]}
    opened = []
    for name, parts in sources.items():
        text = "".join(f'[[sources]]\npaths = ["{name}/{part}/*.tif"]\nsensor = "{card}"\n' for part, card in parts)
        (tmp_path / f"{name}.toml").write_text(f'name = "{name}"\n{text}')
        opened.append(open_chips(load_site(tmp_path / f"{name}.toml"), ("red", "green", "blue"), 32, None))
    return opened


def test_the_archive_says_where_each_chip_came_from(two_sites: list[Chips]) -> None:
    archive = pool(two_sites, PartitionSection(), 0)
    assert archive.sites == ("a", "b")
    assert archive.sensors == ("aerial-rgb", "modis-rgb")
    assert archive.site.tolist() == [0] * 24 + [1] * 8
    assert archive.sensor.tolist() == [0] * 16 + [1] * 8 + [0] * 8
    assert archive.scene.tolist() == [0] * 16 + [1] * 8 + [2] * 8
    assert sorted(set(zip(archive.row[24:].tolist(), archive.col[24:].tolist(), strict=True))) == [
        (row, col) for row in (0, 32, 64, 96) for col in (0, 32)
    ]
    town, water = archive.label[-1], archive.label[0]
    assert archive.label.tolist() == [water] * 16 + [town] * 16, "one folder name, two sites: one class"


def test_a_sensor_none_of_whose_chips_is_left_gets_no_client(two_sites: list[Chips]) -> None:
    archive = pool([two_sites[0].subset(range(16)), two_sites[1]], PartitionSection(), 0)
    assert archive.sensors == ("aerial-rgb",)
    assert len(partition(archive, PartitionSection(kind="sensor", clients=1), 0)) == 1


def test_a_site_in_several_sets_is_one_site_and_its_scenes_stay_apart(two_sites: list[Chips]) -> None:
    first = two_sites[0]
    halves = [first.subset(range(16)), first.subset(range(16, 24))]
    archive = pool([*halves, two_sites[1]], PartitionSection(), 0)
    assert archive.site.tolist() == [0] * 24 + [1] * 8
    assert len(np.unique(archive.scene)) == 3


def test_clusters_tell_smooth_from_rough_and_dirichlet_splits_by_them(two_sites: list[Chips]) -> None:
    choice = PartitionSection(kind="dirichlet", clusters=2, clients=2, alpha=1e-6)
    archive = pool(two_sites, choice, 5)
    assert len(set(archive.label[:16])) == 1
    assert set(archive.label[16:]) == {1 - archive.label[0]}
    assert skew(partition(archive, choice, 5), archive.label) == 0.5


def test_features_are_those_of_the_chip_and_their_number_is_fixed_for_mixed_bands(two_sites: list[Chips]) -> None:
    features = appearance(two_sites)
    assert features.shape == (32, 9)
    x = two_sites[1].batch([3]).numpy()[0].astype(np.float64)
    texture = np.sqrt((np.mean(np.diff(x, axis=1) ** 2, (1, 2)) + np.mean(np.diff(x, axis=2) ** 2, (1, 2))) / 2)
    expected = np.stack([x.mean((1, 2)), x.std((1, 2)), texture])
    assert np.allclose(features[24 + 3], expected.ravel(), atol=1e-5)
    mixed = appearance([chips_of_array(pixels_of(two_sites[0])[:, :2], ("red", "green")), two_sites[1]])
    assert mixed.shape == (32, 3)
    assert np.allclose(mixed[24 + 3], expected.mean(axis=1), atol=1e-5)


def test_clusters_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.cluster import KMeans

    used: list[int] = []
    fit = KMeans.fit

    def watched(self: Any, *args: Any) -> Any:
        used.extend(pool["num_threads"] for pool in threadpool_info())
        return fit(self, *args)

    monkeypatch.setattr(KMeans, "fit", watched)
    features = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
    with threadpool_limits(2):
        found = clusters(features, 5, 1)
    assert set(used) == {1}
    assert np.array_equal(found, clusters(features, 5, 1))
    units = np.array([1, 1024, 2**-10, 4], dtype=np.float32)
    assert np.array_equal(found, clusters(features * units, 5, 1))


def test_fewer_different_chips_than_clusters_are_no_fault() -> None:
    features = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    found = clusters(features, 10, 0)
    assert len(set(found.tolist())) == 3
    assert set(clusters(np.zeros((4, 2), dtype=np.float32), 10, 0).tolist()) == {0}
