"""Folders of image pairs with a map of what changed: LEVIR-CD and OSCD, as they are downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from fedsense_core.data.sites.sensors import SensorCard, shipped_card
from fedsense_core.errors import SiteError
from fedsense_core.tools.downstream.annotations import read_names
from fedsense_core.tools.downstream.group_counts import FEWEST_GROUPS
from fedsense_core.tools.downstream.reading import (
    IMAGE_SUFFIXES,
    About,
    Described,
    Extent,
    ImageFiles,
    about_folder,
    image_files,
    read_mask,
)
from fedsense_core.tools.downstream.samples import IGNORED, Array, Load, Sample, TaskData, measured
from fedsense_core.tools.downstream.tiling import windows

BLOCK = 256
"""Images of a longer side are read in blocks of at most this, each a sample."""
SMALL_BLOCK = 64
"""Of sets of a few images, of which each block counts as its own group."""
UNKNOWN = 128
"""In a map of what changed, which is 0 where nothing and 255 (or 1) where something did: the truth
is not known."""
OSCD = "Onera Satellite Change Detection dataset - "
OSCD_TRUTH = {"train": "Train Labels", "test": "Test Labels"}
LAYOUTS = (
    "LEVIR-CD: train/ and test/ (or val/), each with A/NAME.png, B/NAME.png and label/NAME.png (or .tif); or OSCD: "
    f"'{OSCD}Images'/CITY/imgs_1_rect and imgs_2_rect, '{OSCD}Train Labels' and '{OSCD}Test Labels'"
)
Read = Callable[[Window], Load]


@dataclass(frozen=True)
class _Pair:
    """One place: two images, and what changed between them."""

    part: str
    name: str
    extent: Extent
    before: Read
    after: Read
    truth: Callable[[Window], Array]


def load_change(folder: Path, described: Described) -> TaskData[Array]:
    """Read a folder of image pairs with masks of what changed.

    Images of more than 256 pixels along a side are cut into blocks. A group is an image, or a block
    of at most 64 pixels where there are fewer than 8 test images. Raises SiteError.
    """
    about = about_folder(folder, described)
    card, pairs = _oscd(about) if (folder / f"{OSCD}Images").is_dir() else _levir(about)
    count = {part: sum(pair.part == part for pair in pairs) for part in ("train", "test")}
    if not count["train"] or not count["test"]:
        raise SiteError(
            f"{folder}: has {count['train']} training and {count['test']} test pairs of images; it needs both. Looked "
            f"for: {LAYOUTS}."
        )
    by_block = count["test"] < FEWEST_GROUPS
    samples = {
        part: tuple(one for pair in pairs if pair.part == part for one in _blocks(pair, by_block)) for part in count
    }
    seconds = [sample.after for sample in samples["train"] if sample.after is not None]
    mean, std = measured([*(sample.image for sample in samples["train"]), *seconds])
    return TaskData(
        task="change",
        name=about.name,
        classes=("unchanged", "changed"),
        spectrum=tuple(card.bands),
        train=samples["train"],
        test=samples["test"],
        mean=mean,
        std=std,
        note=about.note,
    )


def change_mask(path: Path, window: Window | None = None) -> Array:
    """Return a map of what changed (H, W) int64: 0 unchanged, 1 changed (255 or 1 in the file), 255
    unknown (128).

    Raises SiteError for another number, such as those that JPEG makes, and for a file that cannot
    be read.
    """
    values = read_mask(path, window)
    changed, unknown = (values == 255) | (values == 1), values == UNKNOWN
    _check_values(path, values, changed | unknown | (values == 0), "0 (unchanged), 255 (changed) or 128 (unknown)")
    return np.asarray(np.where(unknown, IGNORED, changed), np.int64)


def oscd_mask(path: Path, window: Window | None = None) -> Array:
    """Return a map of OSCD (H, W) int64: its GeoTIFFs have 1 for unchanged and 2 for changed, its
    PNGs 0 and 255."""
    if path.suffix == ".png":
        return change_mask(path, window)
    values = read_mask(path, window)
    _check_values(path, values, (values == 1) | (values == 2), "1 (unchanged) or 2 (changed)")
    return np.asarray(values == 2, np.int64)


def _check_values(path: Path, values: Array, known: Array, words: str) -> None:
    if not known.all():
        raise SiteError(f"{path}: a map of what changed holds {words}, and this one {int(values[~known][0])}.")


def _blocks(pair: _Pair, by_block: bool) -> list[Sample[Array]]:
    parts = windows(pair.extent.height, pair.extent.width, SMALL_BLOCK if by_block else BLOCK)
    samples = []
    for part in parts:
        name = pair.name if len(parts) == 1 else f"{pair.name} row {part.top} column {part.left}"
        window = Window(part.left, part.top, part.width, part.height)
        group = name if by_block else pair.name
        samples.append(
            Sample(name, group, pair.before(window), partial(pair.truth, window), after=pair.after(window))
        )  # fmt: skip
    return samples


def _levir(about: About) -> tuple[SensorCard, list[_Pair]]:
    """Return the pairs of LEVIR-CD. Its validation part is used only where there is no test
    part."""
    folder = about.folder
    scored = "test" if (folder / "test" / "A").is_dir() else "val"
    found = [
        (part, path)
        for name, part in (("train", "train"), (scored, "test"))
        if (folder / name / "A").is_dir()
        for path in image_files(folder / name / "A")
    ]
    if not found:
        raise SiteError(f"{folder}: holds no pairs of images. Looked for: {LAYOUTS}.")
    files = about.described.images(found[0][1])
    return files.card, [_levir_pair(files, part, path) for part, path in found]


def _levir_pair(files: ImageFiles, part: str, before: Path) -> _Pair:
    after, label = (_beside(before, kind) for kind in ("B", "label"))
    extent = files.extent(before)
    _check_grid(extent, files.extent(after), after, before)
    _check_grid(extent, files.extent(label), label, before)
    return _Pair(
        part=part,
        name=f"{before.parent.parent.name}/{before.stem}",
        extent=extent,
        before=partial(files.later, before),
        after=partial(files.later, after),
        truth=partial(change_mask, label),
    )


def _beside(before: Path, kind: str) -> Path:
    for suffix in (before.suffix, *IMAGE_SUFFIXES):
        path = before.parent.parent / kind / f"{before.stem}{suffix}"
        if path.is_file():
            return path
    raise SiteError(f"{before}: there is no {kind}/{before.name} beside A/. Each pair needs A, B and label.")


def _check_grid(wanted: Extent, extent: Extent, path: Path, before: Path) -> None:
    if (extent.height, extent.width) != (wanted.height, wanted.width):
        raise SiteError(
            f"{path}: has {extent.width} x {extent.height} pixels, {before.name} has {wanted.width} x {wanted.height}. "
            "Bring both images and the map onto one grid."
        )


def _oscd(about: About) -> tuple[SensorCard, list[_Pair]]:
    """Return the cities of OSCD, whose bands are a file each, with the bands that the first city
    has."""
    folder = about.folder / f"{OSCD}Images"
    listed = {part: folder / f"{part}.txt" for part in OSCD_TRUTH}
    cities = [
        (part, city, where) for part, path in listed.items() if path.is_file() for city, where in read_names(path)
    ]
    if not cities:
        raise SiteError(f"{folder}: has no train.txt and test.txt with the names of cities, or they are empty.")
    whole = about.described.card or shipped_card(about.described.sensor or "sentinel2-l1c", "--sensor")
    wanted = about.described.bands or [
        band.name for band in whole.bands if _band_file(folder / cities[0][1] / "imgs_1_rect", band.code) is not None
    ]
    if not wanted:
        raise SiteError(f"{folder / cities[0][1] / 'imgs_1_rect'}: holds no bands such as B02.tif. {cities[0][2]}.")
    card = whole.only(wanted, "--bands")
    return card, [_oscd_pair(about, card, part, city) for part, city, _ in cities]


def _oscd_pair(about: About, card: SensorCard, part: str, city: str) -> _Pair:
    reads = [_bands(about, card, city, date) for date in ("imgs_1_rect", "imgs_2_rect")]
    label = about.folder / f"{OSCD}{OSCD_TRUTH[part]}" / city / "cm"
    paths = [label / f"{city}-cm.tif", label / "cm.png"]
    truth = next((path for path in paths if path.is_file()), None)
    if truth is None:
        raise SiteError(f"{label}: holds neither {paths[0].name} nor {paths[1].name}, the map of what changed.")
    extents = [files.extent(path) for read in reads for files, path in read]
    for extent, (_, path) in zip(extents, [one for read in reads for one in read], strict=True):
        _check_grid(extents[0], extent, path, reads[0][0][1])
    _check_grid(extents[0], reads[0][0][0].extent(truth), truth, reads[0][0][1])
    before, after = (partial(_stacked_later, read) for read in reads)
    return _Pair(part, city, extents[0], before, after, partial(oscd_mask, truth))


def _bands(about: About, card: SensorCard, city: str, date: str) -> list[tuple[ImageFiles, Path]]:
    """Return a reader and the file of each band."""
    folder, found = about.folder / f"{OSCD}Images" / city / date, []
    for band in card.bands:
        path = _band_file(folder, band.code)
        if path is None:
            raise SiteError(f"{folder}: has no band {band.code}, which the first city has. Name --bands that all have.")
        found.append((ImageFiles(card.only([band.name], str(path)), "sentinel2-l1c", about.described.limits), path))
    return found


def _band_file(folder: Path, code: str) -> Path | None:
    """Return a band's file: ``B02.tif``, or as first published ``CITY_..._B02.tif``."""
    exact = folder / f"{code}.tif"
    return exact if exact.is_file() else next(iter(sorted(folder.glob(f"*_{code}.tif"))), None)


def _stacked_later(read: list[tuple[ImageFiles, Path]], window: Window) -> Load:
    return partial(_stacked, read, window)


def _stacked(read: list[tuple[ImageFiles, Path]], window: Window) -> Array:
    return np.concatenate([files.read(path, window) for files, path in read])
