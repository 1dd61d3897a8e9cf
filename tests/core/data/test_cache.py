"""Chips are cut once: what did not change is not read again, and whatever happens to a cache, its
chips are right."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_chips import pixels_of

from fedsense_core.data.chips import cache
from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.opening import open_chips, open_sources
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.errors import SiteError

RGB = ("red", "green", "blue")
GAPS = 'sensor = "rgb"\nnodata = 0\n[limits]\nmin_valid = 0.5'


def assert_same(a: Chips, b: Chips) -> None:
    assert np.array_equal(pixels_of(a), pixels_of(b))
    for field in ("origin", "origin_mean", "origin_std", "scene", "row", "col", "valid"):
        assert np.array_equal(getattr(a, field), getattr(b, field)), field
    assert a.statistics == b.statistics
    assert (a.skipped, a.scene_paths, a.dtype) == (b.skipped, b.scene_paths, b.dtype)


def gappy(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the picture with some pixels that are no measurement."""
    picture[:, 5:20, 10:50] = 0
    return picture


def files(folder: Path, pattern: str = "*/*") -> set[str]:
    return {path.name for path in folder.glob(pattern)}


def test_cache_equals_direct_reading_and_is_used_again(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any, read: list[str]
) -> None:
    write_tiff("a.tif", image(dtype="uint16"))
    (tmp_path / "b.tif").write_text("broken")
    direct = open_chips(write_site(), RGB, 64, None)
    assert sorted(read) == ["a.tif", "b.tif"]
    for _ in range(3):
        mapped = open_chips(write_site(), RGB, 64, tmp_path / "cache")
        assert_same(mapped, direct)
        assert np.array_equal(mapped.batch([0, 5]), direct.batch([0, 5]))
    assert sorted(read) == ["a.tif", "a.tif", "b.tif", "b.tif"], "a broken file is remembered too"


def test_chips_of_a_cache_are_mapped_and_lie_in_plain_npy_files(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    write_tiff("a.tif", image())
    chips = open_chips(write_site(), RGB, 64, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*/*[0-9a-f].npy")
    assert np.array_equal(np.load(path, allow_pickle=False), pixels_of(chips))
    (segment,) = chips.segments
    base: Any = segment
    while not isinstance(base, np.memmap):
        base = base.base
    assert not segment.flags.writeable


def test_only_new_and_changed_files_are_read_and_removed_ones_go(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any, read: list[str]
) -> None:
    paths = [write_tiff(f"{name}.tif", gappy(image(seed=seed))) for seed, name in enumerate("bcd")]
    before = open_chips(write_site(GAPS), RGB, 64, tmp_path / "cache")
    old = pixels_of(before).copy()
    write_tiff("a.tif", gappy(image(seed=7)))
    write_tiff("c.tif", gappy(image(seed=8)))
    os.utime(paths[1], ns=(1, 1))
    paths[2].unlink()
    read.clear()
    after = open_chips(write_site(GAPS), RGB, 64, tmp_path / "cache")
    assert sorted(read) == ["a.tif", "c.tif"]
    assert [Path(path).name for path in after.scene_paths] == ["a.tif", "b.tif", "c.tif"]
    assert np.array_equal(pixels_of(before), old), "a map that is in use keeps its contents"
    assert_same(after, open_chips(write_site(GAPS), RGB, 64, None))


def test_unchanged_files_need_not_even_be_readable(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    path = write_tiff("a.tif", image())
    expected = pixels_of(open_chips(write_site(), RGB, 64, tmp_path / "cache")).copy()
    stat = path.stat()
    path.write_bytes(bytes(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    write_tiff("b.tif", image(seed=1))
    assert np.array_equal(pixels_of(open_chips(write_site(), RGB, 64, tmp_path / "cache"))[:6], expected)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('sensor = "rgb"', 'sensor = "rgb"\nnodata = 7'),
        ('sensor = "rgb"', 'sensor = "rgb"\nscale = 0.5'),
        ('sensor = "rgb"', 'sensor = "rgb"\n[limits]\nmin_valid = 0.5'),
    ],
)
def test_other_settings_are_cut_anew_in_the_same_folder(
    before: str, after: str, tmp_path: Path, write_tiff: Any, write_site: Any, image: Any, read: list[str]
) -> None:
    write_tiff("a.tif", image())
    open_chips(write_site(before), RGB, 64, tmp_path / "cache")
    first = files(tmp_path / "cache", "*/*.npy")
    open_chips(write_site(after), RGB, 64, tmp_path / "cache")
    second = files(tmp_path / "cache", "*/*.npy")
    assert read == ["a.tif", "a.tif"]
    assert len(second) == 3
    assert not first & second, "the old chips are gone"


def test_other_bands_sizes_and_band_orders_are_not_served_from_the_old_cache(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    cache_dir = tmp_path / "cache"
    write_tiff("a.tif", image())
    assert len(open_chips(write_site(), RGB, 64, cache_dir)) == 6
    assert len(open_chips(write_site(), RGB, 32, cache_dir)) == 24
    assert pixels_of(open_chips(write_site(), ["red"], 64, cache_dir)).shape[1] == 1
    turned = open_chips(write_site('sensor = "rgb"\nbands = ["blue", "green", "red"]'), ["red"], 64, cache_dir)
    blue = open_chips(write_site(), ["blue"], 64, cache_dir)
    assert np.array_equal(pixels_of(turned)[:, 0], pixels_of(blue)[:, 0])


def test_files_of_unlike_types_that_come_one_by_one_equal_those_cut_together(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    for i, dtype in enumerate(["uint8", "uint16", "int16", "float32", "uint8"]):
        write_tiff(f"{i}.tif", (image(seed=i).astype(int) * (-1 if dtype == "int16" else 1)).astype(dtype))
        mapped = open_chips(write_site(), RGB, 64, tmp_path / "cache")
        assert_same(mapped, open_chips(write_site(), RGB, 64, None))
    assert [segment.dtype for segment in mapped.segments].count(np.uint8) == 2


def test_many_small_segments_and_mostly_unused_ones_are_joined_without_reading_rasters(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MOST_SMALL", 3)
    paths = []
    for i in range(5):
        paths.append(write_tiff(f"{i}.tif", gappy(image(seed=i))))
        mapped = open_chips(write_site(GAPS), RGB, 64, tmp_path / "cache")
        assert len(mapped.segments) <= 4
    assert sorted(read) == [f"{i}.tif" for i in range(5)]
    assert_same(mapped, open_chips(write_site(GAPS), RGB, 64, None))
    for path in paths[1:]:
        path.unlink()
    read.clear()
    left = open_chips(write_site(GAPS), RGB, 64, tmp_path / "cache")
    assert not read
    assert [len(segment) for segment in left.segments] == [6], "no dead chips beside the six"
    assert_same(left, open_chips(write_site(GAPS), RGB, 64, None))


@pytest.mark.parametrize("limit", [3, 6, 8, 12, 40])
def test_the_limit_of_chips_holds_whatever_was_cut_before(
    limit: int, tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    for i in (1, 3):
        write_tiff(f"{i}.tif", image(seed=i))
    for number in (40, limit, limit):
        limits = ReadLimits(max_chips=number)
        mapped = open_chips(write_site(), RGB, 64, tmp_path / "cache", limits)
        assert_same(mapped, open_chips(write_site(), RGB, 64, None, limits))
        write_tiff("0.tif", image(seed=0))


@pytest.mark.parametrize("name", ["index.json", "*[0-9a-f].npy", "*.places.npy", "*.masks.npy", "*.statistics.json"])
@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY garbage", b'{"format": 1}', b"[1, 2]", None, "gone"])
def test_a_damaged_cache_is_cut_anew(
    name: str, damage: Any, tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    write_tiff("a.tif", image())
    expected = open_chips(write_site(), RGB, 64, None)
    open_chips(write_site(), RGB, 64, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(damage if damage is not None else path.read_bytes()[:-50])
    assert_same(open_chips(write_site(), RGB, 64, tmp_path / "cache"), expected)
    write_tiff("b.tif", image(seed=1))  # now what lies beside the chips is needed too
    assert_same(open_chips(write_site(), RGB, 64, tmp_path / "cache"), open_chips(write_site(), RGB, 64, None))


@pytest.mark.parametrize("change", [{"start": 5}, {"count": -1}, {"start": -1}, {"segment": "../x"}, {"count": "6"}])
def test_an_index_that_points_outside_is_cut_anew(
    change: dict[str, Any], tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    write_tiff("a.tif", image())
    expected = pixels_of(open_chips(write_site(), RGB, 64, tmp_path / "cache")).copy()
    (path,) = (tmp_path / "cache").glob("*/index.json")
    index = json.loads(path.read_text())
    for record in index["subjects"].values():
        record.update(change)
    path.write_text(json.dumps(index))
    write_tiff("b.tif", image(seed=1))
    assert np.array_equal(pixels_of(open_chips(write_site(), RGB, 64, tmp_path / "cache"))[:6], expected)


def test_a_failed_cutting_leaves_no_chips_behind(tmp_path: Path, write_site: Any) -> None:
    (tmp_path / "a.tif").write_text("broken")
    for _ in range(2):
        with pytest.raises(SiteError, match="1 of 1 files"):
            open_chips(write_site(), RGB, 64, tmp_path / "cache")
    assert files(tmp_path / "cache") == {"index.json", ".lock"}


def test_a_crash_leaves_the_old_state_and_what_it_wrote_goes(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    write_tiff("a.tif", image())
    site = write_site()
    open_chips(site, RGB, 64, tmp_path / "cache")
    before = files(tmp_path / "cache")
    write_tiff("b.tif", image(seed=1))
    with monkeypatch.context() as patched:
        patched.setattr(cache, "write_whole", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            open_chips(write_site(), RGB, 64, tmp_path / "cache")
    assert before < files(tmp_path / "cache"), "the new segment is there, but the index does not name it"
    (next((tmp_path / "cache").glob("*")) / "writing-uint8-0").write_bytes(b"left over")
    read.clear()
    assert len(open_chips(site, RGB, 64, tmp_path / "cache")) == 6
    assert read == []
    assert_same(open_chips(write_site(), RGB, 64, tmp_path / "cache"), open_chips(write_site(), RGB, 64, None))
    assert len(files(tmp_path / "cache", "*/*.npy")) == 6
    assert not files(tmp_path / "cache", "*/writing-*")


def test_long_work_is_put_in_place_as_it_goes(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    for i in range(4):
        write_tiff(f"{i}.tif", image(seed=i))
    monkeypatch.setattr(cache, "SEGMENT_BYTES", 100_000)

    def interrupted(done: int, of: int, chips: int) -> None:
        assert (of, chips) == (4, 6 * done)
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_chips(write_site(), RGB, 64, tmp_path / "cache", progress=interrupted)
    in_place = read[:2]
    read.clear()
    assert_same(open_chips(write_site(), RGB, 64, tmp_path / "cache"), open_chips(write_site(), RGB, 64, None))
    assert len(read[:-4]) == 2, "two segments were in place"
    assert not set(read[:-4]) & set(in_place)


def test_an_unwritable_cache_is_named(tmp_path: Path, write_tiff: Any, write_site: Any, image: Any) -> None:
    write_tiff("a.tif", image())
    (tmp_path / "file").touch()
    with pytest.raises(SiteError, match=r"cache cannot be written.*Give a cache folder"):
        open_chips(write_site(), RGB, 64, tmp_path / "file")


def test_a_full_disk_is_named_and_leaves_nothing_unfinished(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiff("a.tif", image())

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedsense_core.data.chips.cache.SegmentWriter.append", full)
    with pytest.raises(SiteError, match=r"No space left on device.*free space"):
        open_chips(write_site(), RGB, 64, tmp_path / "cache")
    assert files(tmp_path / "cache") == {".lock"}


def test_a_disk_that_is_full_at_the_last_moment_keeps_nothing(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    picture = image()
    write_tiff("a.tif", picture)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The last chips are small enough to wait in memory, so closing the file fails as well.
    resource.setrlimit(resource.RLIMIT_FSIZE, (picture.nbytes - 1, before[1]))
    try:
        with pytest.raises(SiteError, match="cannot be written"):
            open_chips(write_site(), RGB, 16, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files(tmp_path / "cache") == {".lock"}


def test_the_sources_of_a_site_share_the_cache_with_the_site(
    tmp_path: Path, write_tiff: Any, image: Any, read: list[str]
) -> None:
    from fedsense_core.data.opening import load_site

    write_tiff("a.tif", image())
    write_tiff("b.tif", image(seed=1))
    (tmp_path / "site.toml").write_text("""
        name = "two"
        sources = [{paths = ["a.tif"], sensor = "rgb"}, {paths = ["b.tif"], sensor = "rgb"}]""")
    site = load_site(tmp_path / "site.toml")
    whole = open_chips(site, RGB, 64, tmp_path / "cache")
    for _ in range(2):
        parts = open_sources(site, RGB, 64, tmp_path / "cache")
        assert np.array_equal(np.concatenate([pixels_of(part) for part in parts]), pixels_of(whole))
    assert read == ["a.tif", "b.tif"]


def test_processes_that_start_together_agree_and_do_the_work_once(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    for seed in range(4):
        write_tiff(f"{seed}.tif", image(height=512, width=512, seed=seed))
    site = write_site()
    program = (
        "import sys, hashlib, pathlib; from fedsense_core.data.opening import load_site, open_chips\n"
        "from fedsense_core.data.raster import scenes; from fedsense_core.data.chips import chipping\n"
        "site = load_site(pathlib.Path(sys.argv[1])); cache = pathlib.Path(sys.argv[2]); seen = []\n"
        "plain = scenes.read_scene\n"
        "def noted(scene, *rest):\n    seen.append(scene)\n    return plain(scene, *rest)\n"
        "chipping.read_scene = noted\n"
        "chips = [open_chips(site, ['red'], 64, cache).read(range(8)).numpy().tobytes() for _ in range(3)]\n"
        "print(len(seen), *[hashlib.sha256(one).hexdigest() for one in chips])"
    )
    command = [sys.executable, "-c", program, str(site.path), str(tmp_path / "cache")]
    root = str(Path(__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": root}
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum(int(output[0]) for output in outputs) == 4
    assert len({digest for output in outputs for digest in output[1:]}) == 1


def test_index_and_segments_keep_the_names_that_stores_of_old_have(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    write_tiff("a.tif", image())
    open_chips(write_site(), RGB, 64, tmp_path / "cache")
    (path,) = tmp_path.glob("cache/*/index.json")
    index = json.loads(path.read_text())
    assert list(index) == ["format", "subjects", "total_of", "total"]
    (record,) = index["subjects"].values()
    assert list(record) == ["reason", "segment", "start", "count", "whole", "constant", "other_bands"]
    kinds = {file.name.removeprefix(record["segment"]) for file in path.parent.glob(f"{record['segment']}*")}
    assert kinds == {".npy", ".places.npy", ".masks.npy", ".statistics.json"}
