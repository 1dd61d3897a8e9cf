"""Crafted and damaged files, read by a worker of little memory: each is named and skipped, or
harmless."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import reading_worker
from hostile_rasters import CASES, write_crafted, write_good
from hostile_tiffs import STOPPED, TOLERATED, UNLISTED
from mutated_rasters import originals, write_mutated
from reading_worker import BANDS, CHIP_SIZE, GOOD, TOGETHER, Read, read_in_worker
from stored_chips import pixels_of
from tiff_writer import METADATA, TILE_COUNTS, TILE_OFFSETS, long, page, pixels, text, tiff

from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.errors import SiteError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

GROWTH = 256 << 20
"""Bytes by which all files together may raise the worker's resident memory: GDAL's cache, one
window, one block."""
MUTATED, MANY_MUTATED = 500, 2000
"""In the usual run, and under ``slow``."""


@pytest.fixture(scope="module")
def crafted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Read]:
    folder = tmp_path_factory.mktemp("crafted")
    write_good(folder / GOOD)
    write_crafted(folder)
    return read_in_worker(folder, tmp_path_factory.mktemp("log") / "crafted.jsonl")


@pytest.fixture(scope="module")
def mutated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Read]:
    folder = tmp_path_factory.mktemp("mutated")
    write_good(folder / GOOD)
    write_mutated(folder, MUTATED, seed=7)
    return read_in_worker(folder, tmp_path_factory.mktemp("log") / "mutated.jsonl")


@pytest.fixture(scope="module")
def many_mutated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Read]:
    folder = tmp_path_factory.mktemp("many")
    write_good(folder / GOOD)
    write_mutated(folder, MANY_MUTATED, seed=11)
    return read_in_worker(folder, tmp_path_factory.mktemp("log") / "many.jsonl")


MANY = pytest.param("many_mutated", marks=pytest.mark.slow)


def chips_of(folder: Path, glob: str, more: str = "") -> Chips:
    site = folder / "site.toml"
    site.write_text(f'name = "here"\n[[sources]]\nsensor = "rgb"\npaths = ["{glob}"]\n{more}\n')
    return open_chips(load_site(site), BANDS, CHIP_SIZE, None)


def bad_words(reason: str) -> bool:
    """Tell whether a reason is none: no words, several lines, or memory that was asked for and not
    to be had."""
    wordless = len(reason.split()) < 3 or not reason.isprintable() or len(reason) > 600
    return wordless or "memory" in reason.lower() or "allocate" in reason.lower()


def misread(found: dict[str, Read]) -> dict[str, Read]:
    """Return what breaks the promises that hold for every file, whatever is in it."""
    return {
        name: item
        for name, item in found.items()
        if item.outcome in ("raised", "died") or item.faults or any(bad_words(reason) for reason in item.said)
    }


def test_every_crafted_file_is_skipped_with_a_reason_or_known_to_be_harmless(crafted: dict[str, Read]) -> None:
    assert len(CASES) >= 60
    allowed = {TOLERATED: {"read", "skipped"}, STOPPED: {"stopped"}, UNLISTED: {"unlisted"}}
    wrong = {
        name: (case.why, crafted[name])
        for name, case in CASES.items()
        if crafted[name].outcome not in allowed.get(case.outcome, {case.outcome})
    }
    assert wrong == {}
    assert misread(crafted) == {}


def test_a_crafted_file_that_stops_the_site_is_named(crafted: dict[str, Read]) -> None:
    stopped = {name: item.said[0] for name, item in crafted.items() if item.outcome == "stopped"}
    assert stopped
    assert all(f"/{name}/x.tif: holds" in message for name, message in stopped.items())


@pytest.mark.parametrize(
    ("corpus", "files"), [("mutated", MUTATED), pytest.param("many_mutated", MANY_MUTATED, marks=pytest.mark.slow)]
)
def test_every_mutated_file_is_skipped_with_a_reason_or_yields_whole_chips(
    corpus: str, files: int, request: pytest.FixtureRequest
) -> None:
    mutated: dict[str, Read] = request.getfixturevalue(corpus)
    assert len(mutated) == files + 1
    assert misread(mutated) == {}
    outcomes = Counter(item.outcome for name, item in mutated.items() if name != TOGETHER)
    assert set(outcomes) <= {"read", "skipped", "stopped"}
    # The mutations are neither so mild that nothing breaks nor so wild that nothing gets far.
    assert min(outcomes["read"], outcomes["skipped"]) > files // 10
    stopped = [(name, item.said[0]) for name, item in mutated.items() if item.outcome == "stopped"]
    assert all(f"/{name}: holds" in message for name, message in stopped)


@pytest.mark.parametrize("corpus", ["crafted", "mutated", MANY])
def test_no_file_takes_much_memory(corpus: str, request: pytest.FixtureRequest) -> None:
    found: dict[str, Read] = request.getfixturevalue(corpus)
    assert sum(item.grown for item in found.values()) < GROWTH


@pytest.mark.parametrize("corpus", ["crafted", "mutated", MANY])
def test_files_give_the_same_chips_and_reasons_together_as_alone(corpus: str, request: pytest.FixtureRequest) -> None:
    found: dict[str, Read] = request.getfixturevalue(corpus)
    alone = sorted(said for name, item in found.items() if item.outcome == "skipped" for said in item.said)
    assert sorted(found[TOGETHER].said) == alone
    chips = {path: digest for name, item in found.items() if name != TOGETHER for path, digest in item.chips.items()}
    assert found[TOGETHER].chips == chips


@pytest.mark.parametrize(
    ("hostile", "status"),
    [
        ("w.limit_memory(); bytearray(1 << 30)", 1),
        ("w.alarm(0.2, 60)\nwhile True: pass", -signal.SIGPROF),
        ("w.alarm(60, 0.2); time.sleep(60)", -signal.SIGALRM),
    ],
)
def test_the_worker_has_little_memory_and_time(hostile: str, status: int) -> None:
    command = [sys.executable, "-c", f"import time, reading_worker as w; {hostile}"]
    folder = Path(reading_worker.__file__).parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert ("MemoryError" in done.stderr) == (status == 1)


def test_a_case_that_kills_the_worker_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    worker, log = tmp_path / "worker.py", tmp_path / "log.jsonl"
    worker.write_text(DYING)
    found = read_in_worker(tmp_path, log, worker)
    assert {name: item.outcome for name, item in found.items()} == {"a": "read", "b": "died", "c": "read"}
    assert found["b"].said == ["by signal SIGSEGV"]


DYING = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(reading_worker.__file__).parent)!r})
from reading_worker import Log, Path
log = Log(Path(sys.argv[2]))
groups = [["c"], ["b"], ["a"]] if log.begun() else [["a", "b", "c"]]
for group in (group for group in groups if group[0] not in log.results()):
    log.add(group)
    if "b" in group:
        os.kill(os.getpid(), signal.SIGSEGV)
    log.add({{"name": group[0], "outcome": "read", "said": [], "faults": []}})
"""
"""A worker that dies of case b, and then of it alone, as a crash in a library would make it."""
FLIPS = 150


@pytest.mark.parametrize(
    ("kind", "least"), [("big", 0.5), ("lzw", 0.01), pytest.param("jp2", 0.1, marks=pytest.mark.slow)]
)
def test_silent_bit_flips_are_found_by_a_digest_list(kind: str, least: float, tmp_path: Path) -> None:
    """One flipped bit anywhere mostly changes pixels without a word if nothing is compressed or
    the compression notices nothing, as JPEG 2000's arithmetic codes, and rarely by LZW."""
    suffix, whole = originals()[kind]
    random = np.random.default_rng(3)
    write_good(tmp_path / GOOD)
    (tmp_path / f"whole{suffix}").write_bytes(whole)
    right = pixels_of(chips_of(tmp_path, f"whole{suffix}"))
    (tmp_path / f"whole{suffix}").unlink()
    sums = [f"{hashlib.sha256((tmp_path / GOOD).read_bytes()).hexdigest()}  {GOOD}"]
    silent = 0
    for name in (f"f{number:03}{suffix}" for number in range(FLIPS)):
        data = bytearray(whole)
        bit = random.integers(0, 8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        (tmp_path / name).write_bytes(data)
        sums.append(f"{hashlib.sha256(whole).hexdigest()}  {name}")
        with contextlib.suppress(SiteError):
            silent += not np.array_equal(pixels_of(chips_of(tmp_path, name)), right)
    print(f"{kind}: {silent} of {FLIPS} files with one flipped bit are silently other pixels")
    assert silent > least * FLIPS

    (tmp_path / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    chips = chips_of(tmp_path, "*.*[f2]", 'digests = "SHA256SUMS"')
    assert [Path(source).name for source in chips.scene_paths] == [GOOD]
    assert len(chips.skipped) == FLIPS
    assert all("SHA256SUMS" in item.reason or "digest" in item.reason for item in chips.skipped)


def test_files_beside_an_image_are_not_followed(tmp_path: Path) -> None:
    write_good(tmp_path / "a.tif")
    right = pixels_of(chips_of(tmp_path, "*.tif"))
    # A mask for the whole file that leaves no pixel, and a nodata value that most files hold
    # somewhere.
    flags = "".join(f'<Item name="INTERNAL_MASK_FLAGS_{band}">2</Item>' for band in (1, 2, 3))
    lies = {METADATA: text(f"<GDALMetadata>{flags}</GDALMetadata>")}
    (tmp_path / "a.tif.msk").write_bytes(tiff(page(lies, bands=1, blocks=[bytes(64 * 64)])))
    nodata = '<PAMRasterBand band="1"><NoDataValue>128</NoDataValue></PAMRasterBand>'
    (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset>{nodata}</PAMDataset>")
    assert np.array_equal(pixels_of(chips_of(tmp_path, "*.tif")), right)


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("max_file_pixels = 4095", "claims 64 x 64 pixels, more than 4095"),
        ("max_block_bytes = 3071", "3072 bytes decoded, more than 3071"),
        ("max_expansion = 2", r"claims \d times its own size, more than 2"),
    ],
)
def test_the_site_file_may_lower_the_limits(limit: str, says: str, tmp_path: Path) -> None:
    # All four tiles lie on the same bytes, so that it claims more than its size, but nothing that
    # matters.
    lies = {TILE_OFFSETS: long(*[8] * 4), TILE_COUNTS: long(*[32 * 32 * 3] * 4)}
    (tmp_path / "a.tif").write_bytes(tiff(page(lies, tile=32, blocks=[pixels(side=32)])))
    assert len(chips_of(tmp_path, "*.tif")) == 4
    with pytest.raises(SiteError, match=says):
        chips_of(tmp_path, "*.tif", f"[limits]\n{limit}")
