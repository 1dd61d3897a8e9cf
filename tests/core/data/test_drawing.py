"""A site with more chips than it may have: every source takes part, and the draw spreads over the
archive."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_chips import pixels_of

from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.chips.drawing import shares
from fedsense_core.data.opening import load_site, open_sources
from fedsense_core.data.sites.schema import Site

RGB = ("red", "green", "blue")


@given(st.integers(1, 10_000), st.lists(st.integers(0, 5_000), min_size=1, max_size=8))
def test_shares_add_up_and_leave_nobody_below_an_equal_part(limit: int, sizes: list[int]) -> None:
    given = shares(limit, sizes)
    assert sum(given) == min(limit, sum(sizes))
    for size, share in zip(sizes, given, strict=True):
        assert min(size, limit // len(sizes)) <= share <= size


@pytest.mark.parametrize(
    ("limit", "sizes", "expected"),
    [
        (1000, [100_000, 10], [990, 10]),
        (1000, [300, 400], [300, 400]),
        (1200, [100, 1300, 2200], [100, 500, 600]),
        (10, [7, 7, 7], [4, 3, 3]),
        (2, [5, 5, 5], [1, 1, 0]),
    ],
)
def test_what_small_sources_leave_is_shared_in_proportion(limit: int, sizes: list[int], expected: list[int]) -> None:
    assert shares(limit, sizes) == expected


@pytest.fixture
def archive(tmp_path: Path, write_tiff: Any, image: Any) -> Path:
    """Three sources: 40 scenes of 2 chips, 10 of 4, and one of 3."""
    folder = tmp_path / "archive"
    for i in range(40):
        write_tiff(f"archive/many/{i:02}.tif", image(height=16, width=32, seed=i), blockxsize=16, blockysize=16)
    for i in range(10):
        write_tiff(f"archive/some/s{i}.tif", image(height=32, width=32, seed=100 + i), blockxsize=16, blockysize=16)
    write_tiff("archive/few.tif", image(height=16, width=48, seed=200), blockxsize=16, blockysize=16)
    return folder


def site(folder: Path, limit: int) -> Site:
    paths = ("many/*.tif", "some/*.tif", "few.tif")
    sources = "".join(f'[[sources]]\npaths = ["{glob}"]\nsensor = "rgb"\n' for glob in paths)
    (folder / "site.toml").write_text(f'name = "here"\n{sources}[limits]\nmax_chips = {limit}\n')
    return load_site(folder / "site.toml")


def opened(folder: Path, limit: int, cache: Path | None = None) -> tuple[Chips, ...]:
    return open_sources(site(folder, limit), RGB, 16, cache)


def names(chips: Chips) -> list[str]:
    return [Path(path).name for path in chips.scene_paths]


def same(a: tuple[Chips, ...], b: tuple[Chips, ...]) -> bool:
    pairs = list(zip(a, b, strict=True))
    pixels = all(np.array_equal(pixels_of(one), pixels_of(other)) for one, other in pairs)
    plain = all((x.statistics, x.skipped, x.constant) == (y.statistics, y.skipped, y.constant) for x, y in pairs)
    return pixels and plain


def test_every_source_has_its_share_and_its_scenes_come_from_all_over_the_archive(
    archive: Path, read: list[str]
) -> None:
    many, some, few = opened(archive, 36)
    assert (len(many), len(some), len(few)) == (18, 15, 3), "12 each, and the 9 that are left go by size"
    assert len(set(read)) < 51, "what is not needed is not read"
    assert names(many) == sorted(names(many)), "the order of the scenes stays"
    assert max(map(int, (name[:2] for name in names(many)))) > 30, "not the first files in order"
    left = [item for item in many.skipped if "many" in item.path]
    assert len(left) == 40 - len(names(many))
    assert all("`limits.max_chips` of the site is 36" in item.reason for item in left)
    for chips in (many, some, few):
        all_chips = {chip.tobytes() for one in opened(archive, 1000) for chip in pixels_of(one)}
        assert {chip.tobytes() for chip in pixels_of(chips)} <= all_chips


def test_a_limit_that_is_not_reached_changes_nothing(archive: Path) -> None:
    many, some, few = opened(archive, 123)
    assert (len(many), len(some), len(few)) == (80, 40, 3)
    assert not many.skipped
    for i, path in enumerate(many.scene_paths):
        assert Path(path).name == f"{i:02}.tif"
    assert same((many, some, few), opened(archive, 200_000))


def test_the_draw_depends_on_the_files_alone(archive: Path, tmp_path: Path) -> None:
    fresh = {limit: opened(archive, limit) for limit in (5, 36, 60, 122)}
    for limit in (36, 122, 5, 60, 36):  # whatever was chipped before
        assert same(opened(archive, limit, tmp_path / "cache"), fresh[limit])
    shutil.copytree(archive, tmp_path / "moved" / "elsewhere")
    moved = opened(tmp_path / "moved" / "elsewhere", 36)
    assert [names(one) for one in moved] == [names(one) for one in fresh[36]]


def test_a_new_scene_does_not_chip_the_others_again(
    archive: Path, tmp_path: Path, read: list[str], write_tiff: Any, image: Any
) -> None:
    opened(archive, 36, tmp_path / "cache")
    read.clear()
    opened(archive, 36, tmp_path / "cache")
    assert read == []
    for i in range(3):
        write_tiff(f"archive/many/new{i}.tif", image(height=16, width=32, seed=300 + i), blockxsize=16, blockysize=16)
    after = opened(archive, 36, tmp_path / "cache")
    assert len(read) <= 6, "a share that has grown may take a scene more, and reading runs ahead"
    assert same(after, opened(archive, 36))
