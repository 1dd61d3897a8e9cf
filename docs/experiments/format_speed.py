"""How fast JPEG 2000 is read beside GeoTIFF, in folders and in archives, in the same run.

The raster repeats the shipped Sentinel-2 scene, one file a band as products have it: JPEG 2000 is
lossless in tiles of 1024, GeoTIFF is DEFLATE with a predictor in tiles of 512. What is timed is
preparing chips, without a cache. Medians over the turns. Prints Markdown.

    python docs/experiments/format_speed.py --turns 5
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
import zipfile
from pathlib import Path
from statistics import median

import numpy as np
import rasterio
from numpy.typing import NDArray

from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.data.sites.locations import sample_folder

BANDS = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir"}
PRODUCT = "S2A_MSIL1C_20200101T100000_N0208_R022_T32TQM_20200101T120000.SAFE"
IMAGES = Path(PRODUCT, "GRANULE", "L1C_T32TQM_A000001_20200101T100000", "IMG_DATA")
TIFF = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "predictor": 2}
JP2 = {"driver": "JP2OpenJPEG", "tiled": True, "blockxsize": 1024, "blockysize": 1024, "QUALITY": "100"}
JP2 |= {"REVERSIBLE": "YES", "YCBCR420": "NO", "NBITS": 15}
ARCHIVES = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="times that everything is measured")
    parser.add_argument("--side", type=int, default=5490, help="width and height of the raster, pixels")
    args = parser.parse_args()
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    with tempfile.TemporaryDirectory(prefix="fedsense-format-speed-") as name:
        sites = write_sites(Path(name), args.side)
        rates: dict[str, list[float]] = {}
        for _ in range(args.turns):
            for kind, site in sites.items():
                rates.setdefault(kind, []).append(len(BANDS) * args.side**2 * 2 / 1e6 / seconds(site))
    print("| what | MB of pixels a second | range | share of GeoTIFF |\n|---|---|---|---|")
    for kind, values in rates.items():
        share = median(a / b for a, b in zip(values, rates["GeoTIFF"], strict=True))
        print(f"| {kind} | {median(values):.0f} | {min(values):.0f} to {max(values):.0f} | {share:.2f} |")


def write_sites(folder: Path, side: int) -> dict[str, Path]:
    """Write the raster in each form; return a site file for each."""
    with rasterio.open(next((sample_folder() / "sentinel2-virginia").glob("*.tif"))) as file:
        image = file.read()
    image = np.tile(image, (1, *(-(-side // length) for length in image.shape[1:])))[:, :side, :side]
    write_bands(folder, Path("tiff", "scene"), ".tif", image, TIFF)
    write_bands(folder, IMAGES / "T32TQM_20200101T100000", ".jp2", image, JP2)
    for kind, method in ARCHIVES.items():
        with zipfile.ZipFile(folder / f"{kind}.zip", "w", method) as archive:
            for path in sorted((folder / IMAGES).iterdir()):
                archive.write(path, path.relative_to(folder))
    globs = {"GeoTIFF": "tiff/{scene}_{band}.tif", "JPEG 2000 in a SAFE folder": "*.SAFE"}
    globs |= {f"JPEG 2000 in an archive, {kind}": f"{kind}.zip" for kind in ARCHIVES}
    return {kind: write_site(folder / f"{i}.toml", glob) for i, (kind, glob) in enumerate(globs.items())}


def write_bands(folder: Path, start: Path, suffix: str, image: NDArray[np.uint16], profile: dict[str, object]) -> None:
    """Write one file a band."""
    (folder / start).parent.mkdir(parents=True)
    for band, values in zip(BANDS, image, strict=True):
        shape = {"count": 1, "height": values.shape[0], "width": values.shape[1], "dtype": values.dtype}
        with rasterio.open(folder / f"{start}_{band}{suffix}", "w", **profile, **shape) as file:
            file.write(values, 1)


def write_site(path: Path, glob: str) -> Path:
    """Write a site file of one source."""
    bands = ", ".join(f'"{band}"' for band in BANDS)
    path.write_text(f'name = "speed"\n[[sources]]\npaths = ["{glob}"]\nsensor = "sentinel2-l1c"\nbands = [{bands}]\n')
    return path


def seconds(site_file: Path) -> float:
    """Return how long the chips of a site take."""
    site = load_site(site_file)
    began = time.perf_counter()
    open_chips(site, tuple(BANDS.values()), 64, None)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
