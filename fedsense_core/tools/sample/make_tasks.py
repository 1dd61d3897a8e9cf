"""Make the small labelled examples of `fedsense evaluate`, from a folder of ``.npz`` files of real
imagery.

    python fedsense_core/tools/sample/make_tasks.py DATA

Each is a folder in a layout that users have, too. What was made stands in the files' tags and in
ATTRIBUTION.md.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from fedsense_core.data.raster.rasters import CHIP_TAG
from fedsense_core.data.sites.locations import sample_folder

Array = NDArray[Any]

SCENE = "t2_nc_scene_segmentation"
STEP, SIDE, FIRST = 48, 40, 4
"""Blocks of 40 pixels, 48 apart from pixel 4 on: the 8 between them keep training and test pixels
apart."""
PARTS = {"train": 1, "test": 2}
SCENE_BANDS = ("blue", "green", "red", "nir", "swir_1", "swir_2")
SCENE_FILE = """name = "north-carolina"
note = "truth of 1996, image of 2000"
sensor = "landsat7-l1"
gsd_m = 28.5
# 0 is a dark pixel here.
nodata = -1.0
"""
SCENE_SOURCE = (
    "Landsat 7 ETM+, level 1 counts, Wake County, North Carolina, 2000, 28.5 m; land cover of 1996 (landclass96)"
)
SCENE_LICENCE = "Public domain (GRASS GIS sample data set nc_spm)"


def main() -> None:
    """Read the command line and make every example."""
    parser = argparse.ArgumentParser(description="Make the labelled examples of the downstream tasks.")
    parser.add_argument("data", type=Path, help="folder of .npz files with their MANIFEST.json")
    parser.add_argument(
        "--out", type=Path, default=sample_folder() / "tasks", help="where to write; default: the shipped sample"
    )
    arguments = parser.parse_args()
    make_segmentation(arguments.data, arguments.out / "segmentation" / "north-carolina")
    for path in sorted(arguments.out.rglob("*.tif")):
        print(f"{path.stat().st_size:>9,} bytes  {path.relative_to(arguments.out)}")


def make_segmentation(data: Path, folder: Path) -> None:
    """Write the blocks of the training and the test part of one scene as a mosaic each, beside
    their masks."""
    classes = json.loads((data / "MANIFEST.json").read_text())[f"{SCENE}.npz"]["classes"]
    with np.load(data / f"{SCENE}.npz", allow_pickle=False) as arrays:
        image, label, split = arrays["image"], arrays["label"], arrays["split"]
    for part, number in PARTS.items():
        chosen = [block for block in _blocks(split.shape) if (split[block] == number).all()]
        if SIDE * SIDE * len(chosen) != (split == number).sum():
            raise SystemExit(f"{SCENE}: the {part} part is not made of blocks of {SIDE} pixels")
        # Class 0 means none; as 255 it is neither learned from nor scored.
        truth = np.where(label == 0, 255, label - 1).astype(np.uint8)
        images = np.concatenate([image[:, *block] for block in chosen], 2)
        masks = np.concatenate([truth[block] for block in chosen], 1)
        write_tiff(folder / "images" / part / "blocks.tif", images, SCENE_BANDS, SCENE_SOURCE, SCENE_LICENCE, SIDE)
        write_tiff(folder / "masks" / part / "blocks.tif", masks[None], ("class",), SCENE_SOURCE, SCENE_LICENCE, SIDE)
    (folder / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
    (folder / "task.toml").write_text(SCENE_FILE, encoding="utf-8")


def write_tiff(
    path: Path, image_CHW: Array, bands: tuple[str, ...], source: str, licence: str, chip: int | None = None
) -> None:  # fmt: skip
    """Write a compressed GeoTIFF with names of bands, source and licence; ``chip``: a mosaic of
    such."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = image_CHW.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": count, "dtype": image_CHW.dtype}
    small = {"compress": "deflate", "zlevel": 9, "predictor": 2, "interleave": "band"}
    text = f"{source}. {licence}." + (f" Chips of {chip} x {chip} pixels, without position." if chip else "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile, **small) as file:
            file.write(image_CHW)
            for band, name in enumerate(bands, start=1):
                file.set_band_description(band, name)
            tags = {"SOURCE": source, "LICENCE": licence, **({CHIP_TAG: chip} if chip else {})}
            file.update_tags(TIFFTAG_IMAGEDESCRIPTION=text, **tags)


def _blocks(shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    rows, columns = (range(FIRST, length - SIDE + 1, STEP) for length in shape)
    return [(slice(row, row + SIDE), slice(column, column + SIDE)) for row in rows for column in columns]


if __name__ == "__main__":
    main()
