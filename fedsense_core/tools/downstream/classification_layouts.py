"""Folders of labelled scenes: FedSense's own labelled set, or a folder a class, as NWPU-RESISC45,
AID and EuroSAT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fedsense_core.data.chips.labelled import LabelledSplit, load_labelled
from fedsense_core.errors import SiteError
from fedsense_core.seeds import seed_of
from fedsense_core.tools.downstream.reading import Described, about_folder, image_files
from fedsense_core.tools.downstream.samples import Sample, TaskData, constant, measured
from fedsense_core.tools.downstream.splitting import DRAWN, PARTS, drawn_halves, listed_parts, part_folders

MOST_GROUPS = 1000
"""Of images that are taken to be independent: a table by group and classes must stay small."""
LAYOUTS = (
    "labelled.toml; or CLASS/IMAGE.tif, .jpg or .png, at least two classes, with train.txt and test.txt beside the "
    "class folders or without; or train/CLASS/IMAGE and test/CLASS/IMAGE"
)


@dataclass(frozen=True)
class _Scene:
    path: Path
    label: str
    part: str


def load_classification(folder: Path, described: Described) -> TaskData[int]:
    """Read a folder of labelled scenes.

    The split is that of ``labels.csv``, of folders ``train`` and ``test``, or of lists; without any
    it is drawn, half and half, and the note says so. Only labelled sets name groups; elsewhere each
    image is its own. Raises SiteError.
    """
    if not folder.is_dir():
        raise SiteError(f"{folder}: is no folder. Looked for: {LAYOUTS}.")
    if (folder / "labelled.toml").is_file():
        if described.sensor or described.bands:
            raise SiteError(f"{folder / 'labelled.toml'}: says what the files hold; leave --sensor and --bands away.")
        return _labelled(folder)
    about = about_folder(folder, described)
    scenes, split = _scenes(folder)
    classes = tuple(sorted({scene.label for scene in scenes}))
    if len(classes) < 2:
        raise SiteError(f"{folder}: holds images of {len(classes)} classes. Looked for: {LAYOUTS}.")
    files = about.described.images(scenes[0].path)
    samples = {
        part: tuple(
            Sample(
                f"{scene.label}/{scene.path.name}", group, files.later(scene.path), constant(classes.index(scene.label))
            )
            for scene, group in zip(scenes, _bundles(len(scenes)), strict=True)
            if scene.part == part
        )
        for part in PARTS
    }
    for part in PARTS:
        if not samples[part]:
            raise SiteError(f"{folder}: no image is of the {part} part. Looked for: {LAYOUTS}.")
    mean, std = measured([sample.image for sample in samples["train"]])
    return TaskData(
        task="classification",
        name=about.name,
        classes=classes,
        spectrum=tuple(files.card.bands),
        train=samples["train"],
        test=samples["test"],
        mean=mean,
        std=std,
        note=about.with_note(split),
    )


def _bundles(count: int) -> list[str]:
    """Return a group for each image: its own, or one of many random bundles, which make as wide an
    interval."""
    order = np.random.default_rng(seed_of("bundles")).permutation(count)
    return [str(rank % MOST_GROUPS) for rank in order.tolist()]


def _scenes(folder: Path) -> tuple[list[_Scene], str]:
    """Return the images with class and part, and what the reader must know of the split."""
    if parts := part_folders(folder):
        return [_Scene(path, label, part) for part in PARTS for path, label in _by_class(parts[part])], ""
    found = _by_class(folder)
    if not found:
        raise SiteError(f"{folder}: holds no labelled scenes. Looked for: {LAYOUTS}.")
    labels = sorted({label for _, label in found})
    listed = listed_parts(folder, labels)
    if listed is None:
        halves = drawn_halves([labels.index(label) for _, label in found])
        return [_Scene(path, label, part) for (path, label), part in zip(found, halves, strict=True)], DRAWN
    scenes, there = [], set()
    for path, label in found:
        for name in (f"{label}/{path.stem}", path.stem):
            if name in listed:
                scenes.append(_Scene(path, label, listed[name]))
                there.add(name)
                break
    if missing := len(listed) - len(there):
        raise SiteError(f"{folder}: {missing} of the {len(listed)} images that the lists name are not there.")
    return scenes, ""


def _by_class(folder: Path) -> list[tuple[Path, str]]:
    """Return the images of the subfolders, and their class, which is the subfolder's name."""
    classes = sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    return [(path, one.name) for one in classes for path in image_files(one)]


def _labelled(folder: Path) -> TaskData[int]:
    labelled = load_labelled(folder, "all")
    bands = len(labelled.bands)
    return TaskData(
        task="classification",
        name=labelled.name,
        classes=labelled.classes,
        spectrum=labelled.spectrum,
        train=_samples(labelled.train, "train"),
        test=_samples(labelled.test, "test"),
        # Standardised already, by the training part or chip by chip, as the folder says.
        mean=torch.zeros(bands),
        std=torch.ones(bands),
        note=labelled.note,
    )


def _samples(split: LabelledSplit, part: str) -> tuple[Sample[int], ...]:
    rows = zip(split.values.numpy(), split.labels.tolist(), split.groups.tolist(), strict=True)
    return tuple(
        Sample(f"{part} {i}", str(group), constant(image), constant(int(label)))
        for i, (image, label, group) in enumerate(rows)
    )
