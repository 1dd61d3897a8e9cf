"""Folders of images with masks: ISPRS Potsdam as it is downloaded, and a plain layout of images and
masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from fedsense_core.errors import SiteError
from fedsense_core.tools.downstream.group_counts import FEWEST_GROUPS
from fedsense_core.tools.downstream.reading import (
    About,
    Described,
    ImageFiles,
    about_folder,
    extent_of,
    image_files,
    read_colours,
    read_mask,
)
from fedsense_core.tools.downstream.samples import IGNORED, Array, Sample, TaskData, measured
from fedsense_core.tools.downstream.splitting import DRAWN, PARTS, drawn_halves, part_folders
from fedsense_core.tools.downstream.tiling import Window as Part
from fedsense_core.tools.downstream.tiling import windows

BLOCK = 512
"""Images of a longer side are read in blocks of at most this, each a sample."""
IMAGES, MASKS, CLASSES = "images", "masks", "classes.txt"
POTSDAM_IMAGES, POTSDAM_MASKS = "2_Ortho_RGB", "5_Labels_all"
POTSDAM_CLASSES = ("impervious surface", "building", "low vegetation", "tree", "car", "clutter")
POTSDAM_COLOURS = (0b111, 0b001, 0b011, 0b010, 0b110, 0b100)
"""Of each class: white, blue, cyan, green, yellow, red; a bit for red, green and blue, where the
band is above half."""
POTSDAM_TEST = {2: (13, 14), 3: (13, 14), 4: (13, 14, 15), 5: (13, 14, 15), 6: (13, 14, 15), 7: (13,)}
"""Row -> columns of the 14 tiles whose truth the organisers held back; the other 24 train."""
LAYOUTS = (
    f"{IMAGES}/NAME.tif, .png or .jpg with {MASKS}/NAME.tif or .png, both perhaps in subfolders train/ and test/, and "
    f"perhaps {CLASSES}; or {POTSDAM_IMAGES}/top_potsdam_R_C_RGB.tif with {POTSDAM_MASKS}/top_potsdam_R_C_label.tif"
)
ReadMask = Callable[[Path, Window], Array]


@dataclass(frozen=True)
class _Pair:
    name: str
    image: Path
    mask: Path
    part: str


@dataclass(frozen=True)
class _Truth:
    pairs: Sequence[_Pair]
    classes: tuple[str, ...]
    read: ReadMask
    split: str = ""
    """What the reader must know of it."""


def load_segmentation(folder: Path, described: Described) -> TaskData[Array]:
    """Read a folder of images with masks.

    Masks hold class numbers from 0, and 255 where the truth is not known; of Potsdam they hold its
    colours. Images of more than 512 pixels along a side are cut into blocks. A group is an image,
    or a block where there are fewer than 8 test images. Raises SiteError.
    """
    about = about_folder(folder, described)
    if (folder / POTSDAM_IMAGES).is_dir() and (folder / POTSDAM_MASKS).is_dir():
        return _data(about.of_sensor("aerial-rgb"), _Truth(_potsdam(folder), POTSDAM_CLASSES, potsdam_mask))
    if not (folder / IMAGES).is_dir() or not (folder / MASKS).is_dir():
        raise SiteError(f"{folder}: holds no images with masks. Looked for: {LAYOUTS}.")
    pairs, split = _pairs(folder)
    classes = _classes(folder, pairs)
    return _data(about, _Truth(pairs, classes, partial(_checked_mask, len(classes)), split))


def potsdam_mask(path: Path, window: Window) -> Array:
    """Return the classes (H, W) int64 of a colour-coded mask of Potsdam; black, the boundaries, is
    255.

    Some of its files hold colours that are a little off, so each band is judged by whether it is
    above half.
    """
    colours = read_colours(path, window)
    if len(colours) != 3:
        raise SiteError(f"{path}: a mask of Potsdam has three bands of colours, this file has {len(colours)}.")
    bits_HW = (colours > 127).astype(np.int64).transpose(1, 2, 0) @ np.array([4, 2, 1])
    classes_8 = np.full(8, IGNORED)
    classes_8[list(POTSDAM_COLOURS)] = np.arange(len(POTSDAM_CLASSES))
    return np.asarray(classes_8[bits_HW])


def _data(about: About, truth: _Truth) -> TaskData[Array]:
    pairs = truth.pairs
    for part in PARTS:
        if not any(pair.part == part for pair in pairs):
            raise SiteError(f"{about.folder}: no image is of the {part} part. Looked for: {LAYOUTS}.")
    files = about.described.images(pairs[0].image)
    by_block = sum(pair.part == "test" for pair in pairs) < FEWEST_GROUPS
    samples = {
        part: tuple(
            sample for pair in pairs if pair.part == part for sample in _blocks(pair, files, truth.read, by_block)
        )
        for part in PARTS
    }
    mean, std = measured([sample.image for sample in samples["train"]])
    return TaskData(
        task="segmentation",
        name=about.name,
        classes=truth.classes,
        spectrum=tuple(files.card.bands),
        train=samples["train"],
        test=samples["test"],
        mean=mean,
        std=std,
        note=about.with_note(truth.split),
    )


def _blocks(pair: _Pair, files: ImageFiles, read: ReadMask, by_block: bool) -> list[Sample[Array]]:
    """Return an image as samples of at most ``BLOCK`` pixels; a mosaic of unrelated chips as its
    chips."""
    extent, truth = files.extent(pair.image), files.extent(pair.mask)
    if (extent.height, extent.width) != (truth.height, truth.width):
        raise SiteError(
            f"{pair.mask}: has {truth.width} x {truth.height} pixels, its image {extent.width} x {extent.height}. "
            "Bring both onto one grid."
        )
    parts = windows(extent.height, extent.width, extent.chip or BLOCK)
    samples = []
    for part in parts:
        window = _raster_window(part)
        name = pair.name if len(parts) == 1 else f"{pair.name} row {part.top} column {part.left}"
        group = name if by_block or extent.chip else pair.name
        samples.append(Sample(name, group, files.later(pair.image, window), partial(read, pair.mask, window)))
    return samples


def _raster_window(part: Part) -> Window:
    return Window(part.left, part.top, part.width, part.height)


def _potsdam(folder: Path) -> list[_Pair]:
    pairs = []
    tested = {f"{row}_{column}" for row, columns in POTSDAM_TEST.items() for column in columns}
    for image in sorted((folder / POTSDAM_IMAGES).glob("top_potsdam_*_RGB.tif")):
        tile = image.stem.removeprefix("top_potsdam_").removesuffix("_RGB")
        mask = folder / POTSDAM_MASKS / f"top_potsdam_{tile}_label.tif"
        if mask.is_file():  # as first published, the test tiles had no truth
            pairs.append(_Pair(tile, image, mask, "test" if tile in tested else "train"))
    return pairs


def _pairs(folder: Path) -> tuple[list[_Pair], str]:
    parts = part_folders(folder / IMAGES)
    if parts:
        return [
            _Pair(f"{part}/{image.stem}", image, _mask_of(image, folder / MASKS / part), part)
            for part in PARTS
            for image in image_files(parts[part])
        ], ""
    images = image_files(folder / IMAGES)
    halves = drawn_halves([0] * len(images))
    return [
        _Pair(image.stem, image, _mask_of(image, folder / MASKS), part)
        for image, part in zip(images, halves, strict=True)
    ], DRAWN.replace("of each class", "of the images")


def _mask_of(image: Path, folder: Path) -> Path:
    for suffix in (".tif", ".tiff", ".png"):
        if (folder / f"{image.stem}{suffix}").is_file():
            return folder / f"{image.stem}{suffix}"
    raise SiteError(f"{image}: has no mask {folder / image.stem}.tif or .png. Add it, or take the image away.")


def _classes(folder: Path, pairs: Sequence[_Pair]) -> tuple[str, ...]:
    """Return the names in ``classes.txt``, else a name for each number up to the largest in any
    mask."""
    path = folder / CLASSES
    if path.is_file():
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not 2 <= len(names) <= IGNORED:
            raise SiteError(f"{path}: needs the names of 2 to {IGNORED} classes, one a line, and has {len(names)}.")
        return tuple(names)
    largest = 0
    for pair in pairs:
        extent = extent_of(pair.mask)
        for part in windows(extent.height, extent.width, BLOCK):
            mask = read_mask(pair.mask, _raster_window(part))
            largest = int(mask[mask != IGNORED].max(initial=largest))
    if largest >= IGNORED:
        raise SiteError(f"{folder / MASKS}: holds the class {largest}; numbers go from 0 to 254, and 255 is unknown.")
    return tuple(f"class {i}" for i in range(max(largest, 1) + 1))


def _checked_mask(classes: int, path: Path, window: Window) -> Array:
    mask = read_mask(path, window)
    wrong = (mask != IGNORED) & ((mask < 0) | (mask >= classes))
    if wrong.any():
        raise SiteError(
            f"{path}: holds the class {int(mask[wrong][0])}, but there are {classes} classes, numbered from 0. Name "
            f"them all in {CLASSES}, or write {IGNORED} where the truth is not known."
        )
    return mask
