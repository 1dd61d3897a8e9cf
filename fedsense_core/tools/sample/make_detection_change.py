"""Make the small examples of object detection and of change detection, from a folder of ``.npz``
files.

    python fedsense_core/tools/sample/make_detection_change.py DATA

Both have the layouts of well-known data sets: DOTA and LEVIR-CD. What was made stands in the files'
tags and in ATTRIBUTION.md.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from fedsense_core.data.sites.locations import sample_folder
from fedsense_core.tools.downstream.boxes import boxes_of, within

Array = NDArray[Any]

TREES, HALF = "t6_trees_yell1_train", 574
"""The half east of this column: 345 of the 574 trees."""
TREES_SOURCE = "NEON Airborne Observation Platform camera, Yellowstone (YELL), 2019, 0.2 m; trees marked by hand"
NEON = "Open data of the National Ecological Observatory Network (NEON)"
TREES_FILE = """name = "yellowstone-trees"
note = "the sample's NEON chips are pieces of this scene: pre-training on them has seen its pixels, never its boxes"
sensor = "aerial-rgb"
gsd_m = 0.2
"""
CHANGE, DATES = "t5_change_egypt_s2", ("2017-01-04", "2021-10-16")
PARTS = {"train": slice(0, 118), "test": slice(134, 250)}
"""Columns; the 16 between them keep training and test pixels apart."""
UNKNOWN = 128
CHANGE_SOURCE = "Sentinel-2 level 2A, 8-bit rendering in natural colour, desert in Egypt"
COPERNICUS = "Contains modified Copernicus Sentinel data; free, full and open (Copernicus data licence)"
CHANGE_FILE = """name = "egypt-fields"
note = "PROXY labels: made by an algorithm from 13 dates, not by humans; {trivial}"
sensor = "rgb"
gsd_m = 10.0
"""
JPEG = {"compress": "jpeg", "jpeg_quality": 80, "photometric": "ycbcr"}
DEFLATE = {"compress": "deflate", "zlevel": 9, "predictor": 2, "photometric": "rgb"}
ONE_BAND = {"compress": "deflate", "zlevel": 9}


def main() -> None:
    """Read the command line and make both examples."""
    parser = argparse.ArgumentParser(description="Make the examples of detection and change detection.")
    parser.add_argument("data", type=Path, help="folder of .npz files")
    parser.add_argument(
        "--out", type=Path, default=sample_folder() / "tasks", help="where to write; default: the shipped sample"
    )
    arguments = parser.parse_args()
    made = [arguments.out / "detection" / "yellowstone-trees", arguments.out / "change" / "egypt-fields"]
    make_detection(arguments.data, made[0])
    make_change(arguments.data, made[1])
    for path in sorted(path for folder in made for path in folder.rglob("*") if path.is_file()):
        print(f"{path.stat().st_size:>9,} bytes  {path.relative_to(arguments.out)}")


def make_detection(data: Path, folder: Path) -> None:
    """Write the east half of a scene with its trees, in the layout of DOTA."""
    with np.load(data / f"{TREES}.npz", allow_pickle=False) as arrays:
        image, corners = arrays["image"][:, :, HALF:], arrays["boxes"]
    boxes = within(boxes_of([(box, 0, False) for box in corners]), 0, HALF, image.shape[1], image.shape[2])
    # Of the trees on the cut those stay of which enough shows.
    shown = boxes.xyxy_n4[~boxes.difficult_n]
    write_tiff(folder / "images" / "east.tif", image, JPEG, f"{TREES_SOURCE}; east half; JPEG", NEON)
    # Image, resolution, then the four corners of each box, clockwise from the top left.
    lines = ["imagesource:NEON", "gsd:0.2"]
    lines += [f"{l:g} {t:g} {r:g} {t:g} {r:g} {b:g} {l:g} {b:g} tree 0" for l, t, r, b in shown]  # noqa: E741
    _write_text(folder / "labelTxt" / "east.txt", "\n".join(lines) + "\n")
    _write_text(folder / "task.toml", TREES_FILE)


def make_change(data: Path, folder: Path) -> None:
    """Write the west part and the east part of a scene at two dates, in the layout of LEVIR-CD."""
    with np.load(data / f"{CHANGE}.npz", allow_pickle=False) as arrays:
        before, after = (arrays["frames"][list(arrays["date"]).index(date)].transpose(2, 0, 1) for date in DATES)
        # New fields (1) and new buildings (2) are changes alike.
        change = arrays["change"]
    truth = np.where(change == 255, UNKNOWN, np.where(change > 0, 255, 0)).astype(np.uint8)
    for part, columns in PARTS.items():
        for kind, image, date in (("A", before, DATES[0]), ("B", after, DATES[1])):
            path = folder / part / kind / f"{part}.tif"
            write_tiff(path, image[:, :, columns], DEFLATE, f"{CHANGE_SOURCE}, {date}", COPERNICUS)
        path = folder / part / "label" / f"{part}.tif"
        write_tiff(path, truth[None, :, columns], ONE_BAND, "What changed, by an algorithm", COPERNICUS)
    known = truth[:, PARTS["test"]][truth[:, PARTS["test"]] != UNKNOWN]
    share = float((known == 255).mean())
    trivial = f"calling every pixel changed has an F1 of {2 * share / (1 + share):.2f}"
    _write_text(folder / "task.toml", CHANGE_FILE.format(trivial=trivial))


def write_tiff(path: Path, image_CHW: Array, options: dict[str, Any], source: str, licence: str) -> None:
    """Write a compressed GeoTIFF that names its source and licence."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = image_CHW.shape
    tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        profile = {"driver": "GTiff", "width": width, "height": height, "count": count, "dtype": "uint8"}
        with rasterio.open(path, "w", **profile, **tiles, **options) as file:
            file.write(image_CHW)
            file.update_tags(TIFFTAG_IMAGEDESCRIPTION=f"{source}. {licence}.", SOURCE=source, LICENCE=licence)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
