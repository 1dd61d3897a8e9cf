"""Images from a dataset class of another package, such as torchgeo's, instead of from files.

The class is named by the institution's own site file and by nobody else: importing it runs code of
this machine.

Shapes: C bands, H x W pixels.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsense_core.data.raster.formats import Unreadable
from fedsense_core.data.raster.units import CHIP_DTYPES
from fedsense_core.data.sites.schema import DatasetRef
from fedsense_core.data.sites.sensors import SensorCard
from fedsense_core.errors import SiteError, nearest


class DatasetImages:
    """The images of a map-style dataset: one with a length, whose items hold a tensor (C, H, W)."""

    def __init__(self, dataset: Any, ref: DatasetRef, card: SensorCard, where: str) -> None:
        self._dataset = dataset
        self._ref = ref
        self._card = card
        self._where = where

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self._dataset)

    def key(self, i: int) -> str:
        """Return what identifies image ``i``: its file's path, size and time of change where the
        dataset tells.

        Datasets that do not tell are identified by class, arguments and length.
        """
        file = self._file(i)
        if file is not None:
            stat = file.stat()
            return f"{file}|{stat.st_size}|{stat.st_mtime_ns}"
        return f"{self._ref.target}|{json.dumps(dict(self._ref.args), sort_keys=True, default=str)}|{len(self)}|{i}"

    def name(self, i: int) -> str:
        """Return the image's file where the dataset tells, else the class and the number."""
        file = self._file(i)
        return f"{self._ref.target}[{i}]" if file is None else str(file)

    def label(self, i: int) -> int | None:
        """Return the number of the image's class, or None where the dataset has none. Raises
        Unreadable."""
        item = self._item(i)
        if isinstance(item, Mapping):
            label = item.get("label")
        else:
            label = item[1] if isinstance(item, tuple | list) and len(item) > 1 else None
        numbers = np.asarray(label if label is not None else ())
        return int(numbers.item()) if numbers.size == 1 and numbers.dtype.kind in "iu" else None

    def read(self, i: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return values (C, H, W), of a type that chips may have, and the pixels (H, W) that are no
        gaps: all of them.

        Raises Unreadable for an image that the dataset cannot read, SiteError for one that
        contradicts the card.
        """
        values = _as_chip_type(self._image(i))
        return values, np.ones(values.shape[1:], dtype=bool)

    def _image(self, i: int) -> NDArray[Any]:
        item = self._item(i)
        if isinstance(item, Mapping):
            if "image" not in item:
                raise SiteError(f"{self._at(i)} has no 'image', only {', '.join(map(str, item))}.")
            item = item["image"]
        image = item[0] if isinstance(item, tuple | list) and item else item
        if not isinstance(image, torch.Tensor | np.ndarray):
            raise SiteError(
                f"{self._at(i)} holds an image of the type {type(image).__name__}; a tensor (bands, height, width) was "
                "expected. List the files under `paths`, or name a class whose items are tensors."
            )
        values = _as_array(image)
        values = values[None] if values.ndim == 2 else values
        if values.ndim != 3 or len(values) != len(self._card.bands):
            raise SiteError(
                f"{self._at(i)} has the shape {tuple(image.shape)}, but its sensor card has {len(self._card.bands)} "
                f"bands ({', '.join(self._card.names)}): (bands, height, width) was expected. Name the right card, or "
                "list the image's bands under `bands`."
            )
        if values.dtype.kind not in "biuf":
            raise SiteError(f"{self._at(i)} holds {values.dtype} numbers; real numbers were expected.")
        return values

    def _item(self, i: int) -> Any:
        try:
            return self._dataset[i]
        except Exception as error:  # whatever the foreign class raises, it is one image that cannot be had
            raise Unreadable(f"cannot be read by {self._ref.target} ({_said(error)})") from error

    def _file(self, i: int) -> Path | None:
        """Return the image's file. Datasets of torchvision's ImageFolder, on which torchgeo's
        build, list them."""
        try:
            file = Path(self._dataset.samples[i][0])
        except (AttributeError, IndexError, KeyError, TypeError):
            return None
        return file if file.is_file() else None

    def _at(self, i: int) -> str:
        return f"{self._where}.dataset: item {i} of {self._ref.target}"


def open_dataset(ref: DatasetRef, card: SensorCard, where: str) -> DatasetImages:
    """Import and construct the dataset that a site file names, and read its first image.

    ``where`` names file and source, as in ``site.toml: sources[1]``. Raises SiteError beginning
    with it when a package or class is missing, an argument is wrong, or the images do not fit
    ``card``.
    """
    kind = _class(ref.target, f"{where}.dataset")
    try:
        dataset = kind(**ref.args)
    except Exception as error:  # foreign code may raise anything; the site file's owner must read it
        raise SiteError(
            f"{where}.args: {ref.target} refuses them: {_said(error)}.{_argument_hint(kind, ref)}"
        ) from error
    try:
        count = len(dataset)
    except TypeError as error:
        raise SiteError(
            f"{where}.dataset: {ref.target} has no length, so its images cannot be numbered. Datasets that are asked "
            "by area and time, such as torchgeo's RasterDataset, do not fit: list their files under `paths`."
        ) from error
    if count == 0:
        raise SiteError(f"{where}.dataset: {ref.target} is empty. Correct `args`.")
    images = DatasetImages(dataset, ref, card, where)
    # An image that cannot be read is the reader's to skip and says nothing of the others; a wrong
    # card does.
    with contextlib.suppress(Unreadable):
        images.read(0)
    return images


def _class(target: str, where: str) -> Any:
    module_name, _, name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise SiteError(f"{where}: {target!r} needs the package {error.name!r}. {_remedy(error.name or '')}") from error
    except ImportError as error:
        raise SiteError(f"{where}: {module_name!r} cannot be imported: {_said(error)}.") from error
    kind = getattr(module, name, None)
    if not callable(kind):
        known = [key for key in dir(module) if not key.startswith("_")]
        raise SiteError(f"{where}: {module_name!r} has no class {name!r}.{nearest(name, known)}")
    return kind


def _remedy(package: str) -> str:
    root = package.split(".")[0]
    if root == "torchgeo":
        return 'Install it: python -m pip install "fedsense[torchgeo]".'
    if root != package and find_spec(root) is not None:
        return f"{root!r} is installed, but has no such module: correct the name."
    return f"Install it: python -m pip install {root}, or correct the name."


def _argument_hint(kind: Any, ref: DatasetRef) -> str:
    try:
        known = list(inspect.signature(kind).parameters)
    except (TypeError, ValueError):
        return ""
    wrong = [key for key in ref.args if key not in known]
    return f" It takes {', '.join(known)}.{nearest(wrong[0], known)}" if wrong and "kwargs" not in known else ""


def _as_array(image: torch.Tensor | NDArray[Any]) -> NDArray[Any]:
    if isinstance(image, np.ndarray):
        return image
    image = image.detach().cpu()
    return np.asarray(image.float() if image.dtype == torch.bfloat16 else image)  # numpy has no bfloat16


def _as_chip_type(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values in a type that chips may have: as they are, else as float32."""
    if values.dtype == bool:
        return values.astype(np.uint8)
    return values if str(values.dtype) in CHIP_DTYPES else values.astype(np.float32)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(": ")
