"""Labelled chips for probes: mosaics, and a table that says where in them each labelled chip lies.

A labelled folder holds `labelled.toml`, `labels.csv` with the columns
file,row,col,class,split,group, and the GeoTIFFs. ``row`` and ``col`` count chips from the top left;
``split`` is ``train`` or ``test``; ``group`` joins neighbours, which are alike.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from fedsense_core.data.chips.chipping import usable_chips
from fedsense_core.data.chips.chips import as_tensor
from fedsense_core.data.chips.gaps import filled
from fedsense_core.data.chips.statistics import Statistics
from fedsense_core.data.raster.formats import Unreadable
from fedsense_core.data.raster.scenes import ChipSpec, read_scene
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.schema import Layer, Scene, Source
from fedsense_core.data.sites.sensors import Band
from fedsense_core.data.sites.site_file import SensorChoice, read_strict_toml
from fedsense_core.data.standardise import standardise
from fedsense_core.errors import SiteError

COLUMNS = ("file", "row", "col", "class", "split", "group")
SPLITS = ("train", "test")


class LabelledFile(SensorChoice):
    """`labelled.toml`: the sensor of the files, the name of the task and the chip size."""

    name: Annotated[str, Field(min_length=1)]
    """Short name of the task."""
    description: str = ""
    """One sentence for the report."""
    note: str = ""
    """What every table of results must say, such as labels that no person made."""
    chip_size: Annotated[int, Field(ge=8, le=4096)]
    """Pixels along a chip's side."""
    standardise: Literal["set", "chip"] = "set"
    """``set``: by the training part's statistics. ``chip``: each chip and band by its own, so that
    mean colour, which untrained networks read as well as trained ones, answers nothing and texture
    must."""


@dataclass(frozen=True)
class LabelledSplit:
    """One part of a labelled set."""

    values: Tensor
    """(n, C, S, S) float32, standardised by the training part's statistics and clamped."""
    labels: Tensor
    """(n,) int64, positions in ``classes``."""
    groups: Tensor
    """(n,) int64: chips of one group are neighbours; bootstrap over groups."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class LabelledSet:
    """A scene-classification task."""

    name: str
    classes: tuple[str, ...]
    bands: tuple[str, ...]
    """Band names, in channel order."""
    train: LabelledSplit
    test: LabelledSplit
    spectrum: tuple[Band, ...]
    """What each channel is."""
    sensor: str
    """Name of the sensor card, or ``custom``."""
    note: str = ""


@dataclass(frozen=True)
class _Row:
    file: str
    row: int
    col: int
    label: str
    split: str
    group: int


def load_labelled(
    folder: Path, bands: Sequence[str] | Literal["all"], by: Literal["set", "chip"] | None = None
) -> LabelledSet:
    """Read a labelled folder with the named bands or ``all`` of its card's; ``by`` overrides the
    folder's own ``standardise``.

    Raises SiteError naming the file, the line and the remedy.
    """
    folder = Path(folder)
    head = read_strict_toml(folder / "labelled.toml", LabelledFile)
    table = _read_table(folder / "labels.csv")
    classes = tuple(sorted({row.label for row in table}))
    where = str(folder / "labelled.toml")
    card = head.card(where)
    bands = tuple(card.names if bands == "all" else bands)
    spectrum = tuple(card.bands[i] for i in card.positions(bands, where))
    sensor = head.sensor if isinstance(head.sensor, str) else "custom"
    # A label stands for its chip, whatever is missing of it.
    spec = ChipSpec(bands, head.chip_size, head.chip_size, ReadLimits(min_valid=1e-9))
    source = Source(sensor, card, (), baseline_offset=card.baseline_offset)
    chips = _read_chips(folder, table, source, spec)
    in_train = np.array([row.split == "train" for row in table])
    if in_train.all() or not in_train.any():
        raise SiteError(f"{folder / 'labels.csv'}: needs rows of both splits, 'train' and 'test'.")
    valid = np.ones((int(in_train.sum()), *chips.shape[2:]), dtype=bool)
    statistics = Statistics.of(chips[in_train], valid)
    train, test = (
        _split(chips, np.flatnonzero(part).tolist(), table, classes, statistics) for part in (in_train, ~in_train)
    )
    match by or head.standardise:
        case "set":
            pass
        case "chip":
            train, test = _by_chip(train), _by_chip(test)
        case unknown:
            assert_never(unknown)
    return LabelledSet(head.name, classes, bands, train, test, spectrum, sensor, head.note)


def _by_chip(split: LabelledSplit) -> LabelledSplit:
    """Return the split with every chip and band at mean 0 and deviation 1; a flat band becomes
    0."""
    mean = split.values.mean((2, 3))
    std = (split.values - mean[..., None, None]).square().mean((2, 3)).sqrt().clamp_min(1e-3)
    return replace(split, values=standardise(split.values, mean, std))


def _split(
    chips: NDArray[Any], rows: Sequence[int], table: Sequence[_Row], classes: Sequence[str], statistics: Statistics
) -> LabelledSplit:
    mean, std = as_tensor(statistics.mean), as_tensor(statistics.std)
    x = standardise(torch.from_numpy(chips[rows].astype(np.float32)), mean, std)
    labels = torch.tensor([classes.index(table[i].label) for i in rows])
    return LabelledSplit(x, labels, torch.tensor([table[i].group for i in rows]))


def _read_table(path: Path) -> list[_Row]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise SiteError(f"{path}: the first line must be {','.join(COLUMNS)}, not {reader.fieldnames}.")
            rows = [_row(fields, f"{path}, line {reader.line_num}") for fields in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SiteError(f"{path}: cannot be read ({error}). A labelled folder needs this table.") from error
    if not rows:
        raise SiteError(f"{path}: holds no labelled chip.")
    return rows


def _row(fields: dict[str, str], where: str) -> _Row:
    if fields["split"] not in SPLITS:
        raise SiteError(f"{where}: split is {fields['split']!r}; it must be one of {', '.join(SPLITS)}.")
    try:
        numbers = [int(fields[key]) for key in ("row", "col", "group")]
    except (TypeError, ValueError) as error:
        raise SiteError(f"{where}: row, col and group must be whole numbers ({error}).") from error
    return _Row(fields["file"], numbers[0], numbers[1], fields["class"], fields["split"], numbers[2])


def _read_chips(folder: Path, table: Sequence[_Row], source: Source, spec: ChipSpec) -> NDArray[Any]:
    """Return the chips of ``table``, in its order (n, C, S, S). Unlike imagery, a labelled file
    must not be missing."""
    mosaics = {name: _read_mosaic(folder, name, source, spec) for name in sorted({row.file for row in table})}
    chips = []
    for row in table:
        mosaic = mosaics[row.file]
        if (row.row, row.col) not in mosaic:
            rows, columns = (max(cell[axis] for cell in mosaic) + 1 if mosaic else 0 for axis in (0, 1))
            raise SiteError(
                f"{folder / row.file}: has {rows} x {columns} chips with valid pixels, "
                f"labels.csv names row {row.row}, column {row.col}."
            )
        chips.append(mosaic[row.row, row.col])
    return np.stack(chips)


def _read_mosaic(folder: Path, name: str, source: Source, spec: ChipSpec) -> dict[tuple[int, int], NDArray[Any]]:
    """Return a mosaic's chips (C, S, S) by row and column; one without any measurement is not
    there."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise SiteError(f"{folder / 'labels.csv'}: {name!r} lies outside the labelled folder.")
    scene = Scene((Layer(path, tuple(range(len(source.card.bands)))),))
    found = {}
    try:
        for window in read_scene(scene, source, spec):
            chips, valid, locations = usable_chips(window, spec)
            for chip, location in zip(chips if valid is None else filled(chips, valid), locations, strict=True):
                found[int(location["row"]) // spec.size, int(location["col"]) // spec.size] = chip
    except Unreadable as reason:
        raise SiteError(f"{path}: {reason}.") from reason
    return found
