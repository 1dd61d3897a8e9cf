"""Write UC Merced from an npz into one folder a class, as `fedsense evaluate` and `fedsense
benchmark` read it.

python docs/experiments/ucmerced_folder.py t0_ucmerced_96px.npz OUT
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio


def main() -> None:
    """Write every image as a GeoTIFF without coordinates, named by its number in its class."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("npz", type=Path, help="x (n, 3, H, W) uint8, y (n,) and classes")
    parser.add_argument("out", type=Path, help="folder to make")
    args = parser.parse_args()
    data = np.load(args.npz)
    counts: dict[str, int] = {}
    for image, label in zip(data["x"], data["y"], strict=True):
        name = str(data["classes"][label]).replace(" ", "-")
        counts[name] = counts.get(name, -1) + 1
        folder = args.out / name
        folder.mkdir(parents=True, exist_ok=True)
        profile = {"driver": "GTiff", "count": 3, "height": image.shape[1], "width": image.shape[2], "dtype": "uint8"}
        with rasterio.open(folder / f"{name}{counts[name]:02d}.tif", "w", photometric="RGB", **profile) as raster:
            raster.write(image)


if __name__ == "__main__":
    main()
