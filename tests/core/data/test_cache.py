from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsense_core.data import cutting, open_chips
from fedsense_core.errors import SiteError

RGB = ("red", "green", "blue")


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count how often files are read: one entry a cutting."""
    seen: list[str] = []
    plain = cutting.cut_site

    def counted(site: Any, *rest: Any) -> Any:
        seen.append(site.name)
        return plain(site, *rest)

    monkeypatch.setattr("fedsense_core.data.cache.cut_site", counted)
    return seen


def test_cache_equals_direct_reading_and_is_used_again(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any, cuts: list[str]
) -> None:
    write_tiff("a.tif", image(dtype="uint16"))
    (tmp_path / "b.tif").write_text("broken")
    direct = open_chips(write_site(), RGB, 64, None)
    for _ in range(3):
        mapped = open_chips(write_site(), RGB, 64, tmp_path / "cache")
        assert isinstance(mapped.values, np.memmap)
        assert mapped.values.dtype == direct.values.dtype
        assert np.array_equal(mapped.values, direct.values)
        assert np.array_equal(mapped.batch([0, 5]), direct.batch([0, 5]))
        for field in ("mean", "std", "origin", "origin_mean", "origin_std"):
            assert np.array_equal(getattr(mapped, field), getattr(direct, field))
        assert (mapped.skipped, mapped.sources) == (direct.skipped, direct.sources)
    assert len(cuts) == 1


def test_the_cache_is_a_plain_npy_file(tmp_path: Path, write_tiff: Any, write_site: Any, image: Any) -> None:
    write_tiff("a.tif", image())
    chips = open_chips(write_site(), RGB, 64, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*/*.npy")
    assert np.array_equal(np.load(path, allow_pickle=False), chips.values)


def test_cache_is_rebuilt_when_a_source_changes_and_the_old_one_goes(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any, cuts: list[str]
) -> None:
    path = write_tiff("a.tif", image(seed=1))
    before = open_chips(write_site(), RGB, 64, tmp_path / "cache")
    old = before.values.copy()
    write_tiff("a.tif", image(seed=2))
    os.utime(path, ns=(1, 1))
    after = open_chips(write_site(), RGB, 64, tmp_path / "cache")
    assert len(cuts) == 2
    assert np.array_equal(after.values, open_chips(write_site(), RGB, 64, None).values)
    assert np.array_equal(before.values, old), "a map that is in use keeps its contents"
    assert len(list((tmp_path / "cache").glob("*/*.npy"))) == 1


def test_a_new_file_another_card_or_other_bands_are_not_served_from_the_old_cache(
    tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    cache = tmp_path / "cache"
    write_tiff("a.tif", image())
    assert len(open_chips(write_site(), RGB, 64, cache)) == 6
    assert len(open_chips(write_site(), RGB, 32, cache)) == 24
    assert open_chips(write_site(), ["red"], 64, cache).values.shape[1] == 1
    assert np.array_equal(
        open_chips(write_site('sensor = "rgb"\nbands = ["blue", "green", "red"]'), ["red"], 64, cache).values[:, 0],
        open_chips(write_site(), ["blue"], 64, cache).values[:, 0],
    )
    write_tiff("b.tif", image(seed=1))
    assert len(open_chips(write_site(), RGB, 64, cache)) == 12


@pytest.mark.parametrize("suffix", [".json", ".npy"])
@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY garbage", None])
def test_a_damaged_cache_is_cut_anew(
    suffix: str, damage: bytes | None, tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    write_tiff("a.tif", image())
    expected = open_chips(write_site(), RGB, 64, tmp_path / "cache").values.copy()
    (path,) = (tmp_path / "cache").glob(f"*/*{suffix}")
    path.write_bytes(damage if damage is not None else path.read_bytes()[:-50])
    assert np.array_equal(open_chips(write_site(), RGB, 64, tmp_path / "cache").values, expected)


def test_a_failed_cutting_leaves_nothing_behind(tmp_path: Path, write_site: Any) -> None:
    (tmp_path / "a.tif").write_text("broken")
    with pytest.raises(SiteError):
        open_chips(write_site(), RGB, 64, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/*"))


def test_an_unwritable_cache_is_named(tmp_path: Path, write_tiff: Any, write_site: Any, image: Any) -> None:
    write_tiff("a.tif", image())
    (tmp_path / "file").touch()
    with pytest.raises(SiteError, match=r"cache cannot be written.*Give a cache folder"):
        open_chips(write_site(), RGB, 64, tmp_path / "file")


def test_processes_that_start_together_agree(tmp_path: Path, write_tiff: Any, write_site: Any, image: Any) -> None:
    for seed in range(4):
        write_tiff(f"{seed}.tif", image(height=512, width=512, seed=seed))
    site = write_site()
    program = (
        "import sys, hashlib, pathlib; from fedsense_core.data import load_site, open_chips;"
        "site = load_site(pathlib.Path(sys.argv[1])); cache = pathlib.Path(sys.argv[2]);"
        "print([hashlib.md5(open_chips(site, ['red'], 64, cache).values.tobytes()).hexdigest() for _ in range(5)])"
    )
    command = [sys.executable, "-c", program, str(site.path), str(tmp_path / "cache")]
    root = str(Path(__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": root}
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert len({digest for output in outputs for digest in output.strip("[]\n").split(", ")}) == 1
    assert not list(tmp_path.glob("cache/*/writing-*"))
