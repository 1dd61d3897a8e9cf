"""Rasters of any size: what a file does not hold is neither decoded nor measured, and memory does
not grow with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from stored_chips import pixels_of

from fedsense_core.data.opening import open_chips
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.errors import SiteError

RGB = ("red", "green", "blue")


def write_sparse(path: Path, side: int, present: dict[tuple[int, int], np.ndarray[Any, Any]], **options: Any) -> None:
    """Write a raster that holds only some blocks of 256 x 256, by row and column."""
    shape = {"count": 3, "width": side, "height": side, "dtype": "uint8", "driver": "GTiff"}
    tiling = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "zstd"}
    with rasterio.open(path, "w", SPARSE_OK=True, BIGTIFF="YES", **(shape | tiling | options)) as file:
        for (row, column), block in present.items():
            file.write(block, window=Window(column * 256, row * 256, 256, 256))


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("window_bytes", [1, 1 << 26])
def test_a_block_that_the_file_does_not_hold_is_no_measurement(
    interleave: str, window_bytes: int, tmp_path: Path, write_site: Any, image: Any
) -> None:
    blocks = {(0, 1): image(height=256, width=256), (2, 2): image(height=256, width=256, seed=1)}
    write_sparse(tmp_path / "a.tif", 768, blocks, interleave=interleave)
    chips = open_chips(write_site(), RGB, 128, None, ReadLimits(max_window_bytes=window_bytes))
    assert sorted(zip(chips.row.tolist(), chips.col.tolist(), strict=True)) == [
        (y + dy, x + dx) for y, x in ((0, 256), (512, 512)) for dy in (0, 128) for dx in (0, 128)
    ]
    pixels = np.concatenate([block.reshape(3, -1) for block in blocks.values()], axis=1)
    np.testing.assert_allclose(chips.origin_mean[0], pixels.mean(1), rtol=1e-6)


def test_a_band_without_its_block_makes_the_pixel_invalid(tmp_path: Path, write_site: Any, image: Any) -> None:
    write_sparse(tmp_path / "a.tif", 512, {}, interleave="band")
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        for band in (1, 2, 3):
            file.write(image(1, 256, 256), [band], window=Window(0, 0, 256, 256))
        file.write(image(1, 256, 256), [2], window=Window(256, 256, 256, 256))
    site = write_site()
    assert len(open_chips(site, RGB, 256, None)) == 1
    assert len(open_chips(site, ["green"], 256, None)) == 2


def test_a_huge_raster_is_read_where_it_holds_something(tmp_path: Path, write_site: Any, image: Any) -> None:
    blocks = {(0, 0): image(height=256, width=256), (389, 7): image(height=256, width=256, seed=1)}
    write_sparse(tmp_path / "a.tif", 100_000, blocks)
    chips = open_chips(write_site(), RGB, 64, None)
    assert len(chips) == 32
    pixels = np.concatenate([block.reshape(3, -1) for block in blocks.values()], axis=1)
    np.testing.assert_allclose(chips.origin_mean[0], pixels.mean(1), rtol=1e-6)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_raster(tmp_path: Path, write_site: Any, image: Any) -> None:
    blocks = {(0, 0): image(height=256, width=256), (1168, 584): image(height=256, width=256, seed=1)}
    write_sparse(tmp_path / "a.tif", 300_000, blocks, blockxsize=512, blockysize=512)
    program = (
        "import sys, pathlib, resource, torch; from fedsense_core.data.opening import load_site, open_chips\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "chips = open_chips(load_site(pathlib.Path(sys.argv[1])), ['red', 'green', 'blue'], 64, None)\n"
        "print(len(chips), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", program, str(write_site().path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, grown = map(int, done.stdout.split())
    assert count == 2 * 64, "of both blocks of 512, each written to a quarter"
    assert grown * 1024 < 256 << 20


def test_more_blocks_than_allowed_are_refused(tmp_path: Path, write_site: Any) -> None:
    write_sparse(tmp_path / "a.tif", 5120, {})
    with pytest.raises(SiteError, match=r"claims 400 blocks of 256 x 256 pixels, more than 399.*TILED=YES"):
        open_chips(write_site(), RGB, 64, None, ReadLimits(max_blocks=399))


def test_only_blocks_that_are_there_count_as_expansion(tmp_path: Path, write_site: Any, image: Any) -> None:
    write_sparse(tmp_path / "a.tif", 5120, {(3, 3): image(height=256, width=256)})
    assert len(open_chips(write_site(), RGB, 64, None, ReadLimits(max_expansion=2))) == 16
    write_sparse(
        tmp_path / "a.tif", 5120, {(y, x): np.full((3, 256, 256), 7, "uint8") for y in range(9) for x in (1, 2)}
    )
    with pytest.raises(SiteError, match="times its own size, more than 20"):
        open_chips(write_site(), RGB, 64, None, ReadLimits(max_expansion=20))


@pytest.mark.parametrize("options", [{"compress": "deflate"}, {"compress": "lzw"}, {"compress": None}])
def test_a_file_of_one_long_strip_holds_all_its_rows(
    options: dict[str, Any], write_tiff: Any, write_site: Any, image: Any
) -> None:
    # GDAL shows such 8-bit files as rows, all but the first of which seem to be left out.
    picture = image(height=2304, width=64)
    write_tiff("a.tif", picture, tiled=False, blockxsize=None, blockysize=2304, **options)
    chips = open_chips(write_site(), RGB, 64, None)
    assert np.array_equal(np.concatenate(list(pixels_of(chips)), axis=1), picture)
