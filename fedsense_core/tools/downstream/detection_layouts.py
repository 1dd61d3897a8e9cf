"""Folders of images with boxes: DOTA and DIOR, as they are downloaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rasterio.windows import Window

from fedsense_core.errors import SiteError
from fedsense_core.tools.downstream.annotations import Marked, read_dota, read_names, read_voc
from fedsense_core.tools.downstream.boxes import boxes_of, within
from fedsense_core.tools.downstream.group_counts import FEWEST_GROUPS
from fedsense_core.tools.downstream.reading import (
    IMAGE_SUFFIXES,
    About,
    Described,
    ImageFiles,
    about_folder,
    image_files,
)
from fedsense_core.tools.downstream.samples import Boxes, Sample, TaskData, measured
from fedsense_core.tools.downstream.tiling import FoldedData, windows

BLOCK = 896
"""Images of a longer side are read in blocks of at most this, each a sample."""
SMALL_BLOCK = 224
"""Of sets of a few images, of which each block counts as its own group."""
FOLDS = 3
LABELS = "labelTxt"
DIOR_LISTS = Path("ImageSets", "Main")
DIOR_BOXES = (Path("Annotations", "Horizontal Bounding Boxes"), Path("Annotations"))
DIOR_IMAGES = ("JPEGImages-trainval", "JPEGImages-test", "JPEGImages")
LAYOUTS = (
    f"DOTA: images/NAME.png (or .tif, .jpg) with {LABELS}/NAME.txt, in subfolders train/ and test/ (or val/), or "
    "without them to be cross-validated; or DIOR: JPEGImages-trainval/, JPEGImages-test/, Annotations/ and "
    "ImageSets/Main/"
)
UPRIGHT = "oriented boxes are taken as the upright ones around them"


@dataclass(frozen=True)
class _Image:
    part: str
    path: Path
    objects: list[Marked]


def load_detection(folder: Path, described: Described) -> TaskData[Boxes]:
    """Read a folder of images with boxes.

    Images of more than 896 pixels along a side are cut into blocks, of which each shows an object
    where at least 30 % of it lies inside. A group is an image, or a block of at most 224 pixels
    where there are fewer than 8 test images. A set without a test part is split into 3 folds of
    neighbours. Raises SiteError.
    """
    about = about_folder(folder, described)
    images = _dior(folder) if (folder / DIOR_LISTS).is_dir() else _dota(folder)
    if not images:
        raise SiteError(f"{folder}: holds no images with boxes. Looked for: {LAYOUTS}.")
    classes = tuple(sorted({one.name for image in images for one in image.objects}))
    if not classes:
        raise SiteError(f"{folder}: no image has an object.")
    parts = Counter(image.part for image in images)
    if len(parts) == 1 and "" not in parts:
        raise SiteError(f"{folder}: has a {next(iter(parts))} part only. Looked for: {LAYOUTS}.")
    files = about.described.images(images[0].path)
    by_block = (parts["test"] or parts[""]) < FEWEST_GROUPS
    samples = {
        part: tuple(one for image in images if image.part == part for one in _blocks(image, files, classes, by_block))
        for part in parts
    }
    return _data(about, files, classes, samples, UPRIGHT if any(_oriented(image) for image in images) else "")


def _data(
    about: About, files: ImageFiles, classes: tuple[str, ...], samples: dict[str, tuple[Sample[Boxes], ...]], note: str
) -> TaskData[Boxes]:
    folded = "" in samples
    train, test = (samples[""], samples[""]) if folded else (samples["train"], samples["test"])
    mean, std = measured([sample.image for sample in train])
    data = FoldedData(
        task="detection",
        name=about.name,
        classes=classes,
        spectrum=tuple(files.card.bands),
        train=train,
        test=test,
        mean=mean,
        std=std,
        folds=min(FOLDS, len(train)) if folded else 1,
    )
    crossed = f"no split comes with the data: cross-validated in {data.folds} parts of neighbours" if folded else ""
    return replace(data, note=about.with_note("; ".join(filter(None, (crossed, note)))))


def _blocks(image: _Image, files: ImageFiles, classes: Sequence[str], by_block: bool) -> list[Sample[Boxes]]:
    """Return an image as samples, in an order in which neighbours along its longer side follow each
    other."""
    extent = files.extent(image.path)
    boxes = _boxes(image, classes, (extent.height, extent.width))
    parts = windows(extent.height, extent.width, SMALL_BLOCK if by_block else BLOCK)
    if extent.width > extent.height:
        parts = sorted(parts, key=lambda part: (part.left, part.top))
    samples = []
    for part in parts:
        name = image.path.stem
        shown = name if len(parts) == 1 else f"{name} row {part.top} column {part.left}"
        here = within(boxes, part.top, part.left, part.height, part.width)
        load = files.later(image.path, Window(part.left, part.top, part.width, part.height))
        samples.append(Sample(shown, shown if by_block else name, load, partial(_same, here)))
    return samples


def _boxes(image: _Image, classes: Sequence[str], size: tuple[int, int]) -> Boxes:
    height, width = size
    for one in image.objects:
        left, top, right, bottom = one.corners
        if left >= width or top >= height or right <= 0 or bottom <= 0:
            raise SiteError(
                f"{one.where}: a box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) lies outside its image "
                f"{image.path.name}, which has {width} x {height} pixels."
            )
    return boxes_of([(one.corners, classes.index(one.name), one.difficult) for one in image.objects])


def _dota(folder: Path) -> list[_Image]:
    """Return the images of a folder of DOTA; its own test part has no truth, so ``val`` stands for
    it."""
    parts = {"train": "train", "val": "test", "test": "test"} if (folder / "train").is_dir() else {".": ""}
    if (folder / "test" / LABELS).is_dir():
        parts.pop("val", None)
    return [
        _Image(part, path, read_dota(labels / f"{path.stem}.txt"))
        for name, part in parts.items()
        for labels in [folder / name / LABELS]
        if labels.is_dir() and (folder / name / "images").is_dir()
        for path in image_files(folder / name / "images")
    ]


def _dior(folder: Path) -> list[_Image]:
    """Return the images of DIOR: as in its paper, training and validation part together train."""
    lists = {name: folder / DIOR_LISTS / f"{name}.txt" for name in ("train", "val", "test")}
    scored = "test" if lists["test"].is_file() else "val"
    boxes = next((folder / name for name in DIOR_BOXES if (folder / name).is_dir()), None)
    if boxes is None:
        raise SiteError(f"{folder}: has lists of images but no Annotations/. Looked for: {LAYOUTS}.")
    return [
        _Image("test" if name == scored else "train", _dior_image(folder, stem, where), read_voc(boxes / f"{stem}.xml"))
        for name, path in lists.items()
        if path.is_file()
        for stem, where in read_names(path)
    ]


def _dior_image(folder: Path, stem: str, where: str) -> Path:
    for name in DIOR_IMAGES:
        for suffix in IMAGE_SUFFIXES:
            if (folder / name / f"{stem}{suffix}").is_file():
                return folder / name / f"{stem}{suffix}"
    raise SiteError(f"{where}: there is no image {stem}.jpg in {', '.join(DIOR_IMAGES)}.")


def _oriented(image: _Image) -> bool:
    return any(one.oriented for one in image.objects)


def _same(boxes: Boxes) -> Boxes:
    return boxes
