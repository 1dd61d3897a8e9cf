"""How fast imagery reaches the model, as ratios to what the same machine does in the same run.

1. Chips from the cache against random windows read with rasterio from the same ZSTD-compressed,
   tiled GeoTIFF, and against a plain copy of the same bytes.
2. Preparing the cache against reading the same file block by block with rasterio.
3. How much of a local epoch on the CPU waits for data.
4. Memory while a sparse raster of 300,000 x 300,000 pixels is read.

The raster repeats the shipped Sentinel-2 scene. Medians over the turns. Prints Markdown.

    python docs/experiments/data_speed.py --turns 5
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from client_app.training import Start, train_locally
from fedsense_core.config import resolve
from fedsense_core.data.batches.feeding import Feed, draws
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.data.sites.locations import sample_folder, sample_sites
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.replica import Replica
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.tensors import TensorTable

CHIP = 64
BANDS = ("red", "green", "blue", "nir")
BATCH = 64
WINDOWS = 1500
SPARSE_SIDE = 300_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="times that everything is measured")
    parser.add_argument("--side", type=int, default=8192, help="width and height of the raster, pixels")
    parser.add_argument("--epochs", type=int, default=1, help="local epochs that are trained")
    parser.add_argument("--sparse", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.sparse:
        read_sparse(args.sparse)
        return
    torch.set_flush_denormal(True)
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    with tempfile.TemporaryDirectory(prefix="fedsense-data-speed-") as name:
        folder = Path(name)
        raster, site = write_raster(folder, args.side)
        print_reading(folder, raster, site, args.turns)
        print_waiting(args.turns, args.epochs)
        print_memory(folder)


def write_raster(folder: Path, side: int) -> tuple[Path, Path]:
    """Repeat the shipped Sentinel-2 scene over ``side`` x ``side`` pixels, in ZSTD tiles; return it
    and a site file."""
    source = next((sample_folder() / "sentinel2-virginia").glob("*.tif"))
    with rasterio.open(source) as file:
        image = file.read()
    down, across = (-(-side // length) for length in image.shape[1:])
    image = np.tile(image, (1, down, across))[:, :side, :side]
    path = folder / "scene.tif"
    tiling = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "zstd", "predictor": 2}
    shape = {"count": len(image), "height": side, "width": side, "dtype": image.dtype}
    with rasterio.open(path, "w", driver="GTiff", interleave="pixel", **tiling, **shape) as file:
        file.write(image)
    bands = ", ".join(f'"{band}"' for band in BANDS)
    text = f'name = "speed"\n[[sources]]\npaths = ["scene.tif"]\nsensor = "sentinel2-l1c"\nbands = [{bands}]\n'
    (folder / "site.toml").write_text(text)
    return path, folder / "site.toml"


def print_reading(folder: Path, raster: Path, site_file: Path, turns: int) -> None:
    """Time preparing and reading against rasterio and against a copy."""
    rates: dict[str, list[float]] = {}
    reading_turn(folder / "cache", raster, site_file, 0)  # the machine's memory is touched for the first time
    for turn in range(turns):
        for key, value in reading_turn(folder / "cache", raster, site_file, turn).items():
            rates.setdefault(key, []).append(value)
    print("| what | median | range |\n|---|---|---|")
    print(f"| chips from the cache, times as fast as random windows | {spread(rates['windows'])} |")
    print(f"| chips from the cache, share of the speed of a plain copy | {spread(rates['copy'])} |")
    print(f"| preparing, share of the speed of block-by-block reading | {spread(rates['prepare'])} |")
    print(f"| chips a second from the cache | {spread(rates['chips/s'], '.0f')} |")
    print(f"| chips a second by random windows | {spread(rates['windows/s'], '.0f')} |")
    print(f"| preparing, MB of pixels a second | {spread(rates['MB/s'], '.0f')} |")


def reading_turn(cache: Path, raster: Path, site_file: Path, seed: int) -> dict[str, float]:
    """Return the ratios and rates of one turn."""
    site = load_site(site_file)
    blocks_s = seconds(lambda: read_blocks(raster))
    prepare_s = seconds(lambda: open_chips(site, BANDS, CHIP, cache))
    chips = open_chips(site, BANDS, CHIP, cache)
    order = torch.randperm(len(chips), generator=torch.Generator().manual_seed(seed))[: WINDOWS * 4]
    windows_s = seconds(lambda: read_windows(raster, order[:WINDOWS])) / WINDOWS
    batches = [batch for batch in torch.split(order, BATCH) if len(batch) == BATCH]
    size = chips.read(batches[0]).numpy().nbytes
    for batch in batches:  # both ways of reading find the file in memory
        chips.read(batch)
    cached_s = seconds(lambda: [chips.read(batch) for batch in batches]) / (len(batches) * BATCH)
    data = stored(cache, size * len(batches))
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    copy_s = seconds(lambda: [piece.copy() for piece in pieces]) / (len(pieces) * BATCH)
    shutil.rmtree(cache)
    return {
        "windows": windows_s / cached_s,
        "copy": copy_s / cached_s,
        "prepare": blocks_s / prepare_s,
        "chips/s": 1 / cached_s,
        "windows/s": 1 / windows_s,
        "MB/s": raster_bytes(raster) / 1e6 / prepare_s,
    }


def stored(cache: Path, size: int) -> np.ndarray:
    """Map the first ``size`` bytes of the largest file of the cache, read once."""
    largest = max((path for path in cache.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = np.memmap(largest, np.uint8, "r")[:size]
    data.sum()
    return data


def raster_bytes(path: Path) -> int:
    """Return the decoded bytes of a raster."""
    with rasterio.open(path) as file:
        return int(file.width * file.height * file.count * np.dtype(file.dtypes[0]).itemsize)


def read_blocks(path: Path) -> None:
    """Read every block once."""
    with rasterio.Env(GDAL_CACHEMAX=64 << 20, GDAL_NUM_THREADS=1), rasterio.open(path) as file:
        for _, window in file.block_windows(1):
            file.read(window=window)


def read_windows(path: Path, order: torch.Tensor) -> None:
    """Read the windows of chips in random order, as a data set without a cache does."""
    with rasterio.Env(GDAL_CACHEMAX=64 << 20, GDAL_NUM_THREADS=1), rasterio.open(path) as file:
        across = file.width // CHIP
        for index in order.tolist():
            row, column = divmod(index, across)
            file.read(window=Window(column * CHIP, row * CHIP, CHIP, CHIP))


def print_waiting(turns: int, epochs: int) -> None:
    """Train local epochs of the shipped settings on each shipped institution and print the share
    spent on waiting."""
    shares = [epoch_turn(sample_sites()[turn % len(sample_sites())], epochs, turn) for turn in range(turns)]
    print(f"| per cent of a local epoch that waits for chips | {spread(shares)} |")


def epoch_turn(site_file: Path, epochs: int, seed: int) -> float:
    """Return the per cent of some local epochs that one institution's training waits."""
    data, batch_size = resolve({}).data, resolve({}).train.batch_size
    chips = open_chips(load_site(site_file), data.bands, data.chip_size, None)
    config = resolve({"train.local_steps": max(1, epochs * len(chips) // batch_size)})
    model = build_model(config).to(memory_format=torch.channels_last)
    table = TensorTable.of(model)
    start = Start(1, Replica.first(table.read(model)), torch.zeros(len(table)), seed)
    order = draws([[chips]], batch_size, torch.Generator().manual_seed(seed))
    with Feed(order, torch.device("cpu")) as feed:
        took = seconds(lambda: train_locally(config, model, table, build_recipe(config), feed, start))
        return 100 * feed.waited_s / took


def print_memory(folder: Path) -> None:
    """Read the sparse raster in a process of its own and print how far its memory grew."""
    path = folder / "sparse.tif"
    tiling = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "zstd"}
    shape = {"count": 1, "height": SPARSE_SIDE, "width": SPARSE_SIDE, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", BIGTIFF="YES", SPARSE_OK="TRUE", **tiling, **shape) as file:
        rng = np.random.default_rng(0)
        for row, column in ((0, 0), (150_016, 150_016), (299_008, 512)):
            file.write(rng.integers(1, 255, (1, 512, 512), dtype=np.uint8), window=Window(column, row, 512, 512))
    (folder / "sparse.toml").write_text(
        'name = "sparse"\n[[sources]]\npaths = ["sparse.tif"]\n[sources.sensor]\ngsd_m = 1.0\n'
        'bands = [{ name = "grey", wavelength_um = 0.6 }]\n'
    )
    command = [sys.executable, __file__, "--sparse", str(folder / "sparse.toml")]
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def read_sparse(site_file: Path) -> None:
    """Cut the sparse raster and say what that took."""
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    Path("/proc/self/clear_refs").write_text("5")  # the highest memory so far is that of now (Linux)
    before, began = highest_kib(), time.perf_counter()
    chips = open_chips(load_site(site_file), ("grey",), CHIP, None)
    took, grown = time.perf_counter() - began, highest_kib() - before
    text = f"| MiB that memory grew over a raster of {SPARSE_SIDE:,} x {SPARSE_SIDE:,}, {len(chips)} chips"
    print(f"{text} | {grown / 1024:.0f} | in {took:.1f} s |")


def highest_kib() -> int:
    """Return the most memory that this process had, in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def seconds(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def spread(values: list[float], form: str = ".2f") -> str:
    """Return median and range as two cells."""
    return f"{median(values):{form}} | {min(values):{form}} to {max(values):{form}}"


if __name__ == "__main__":
    main()
