"""Tiny labelled tasks: scenes and masks that colour tells apart, tiny encoders, and folders as
users have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import timm
import torch
from torch import nn

from fedsense_core.data.sites.locations import sample_folder
from fedsense_core.data.sites.sensors import shipped_card
from fedsense_core.encoder import export_encoder
from fedsense_core.tools.downstream.samples import Sample, TaskData, constant, measured

Array = np.ndarray[Any, Any]
RGB = ("red", "green", "blue")
SMALL = {"layers": [1, 1, 1, 1], "channels": [32, 32, 32, 32], "norm_layer": "groupnorm1"}
STAGED = SMALL | {"layers": [1, 1, 1, 0], "channels": [16, 32, 32, 32], "stem_type": "deep", "stem_width": 8}
COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], np.uint8)


def tiny_encoder(seed: int = 0, bands: tuple[str, ...] = RGB) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder: nn.Module = timm.create_model("resnet18", num_classes=0, in_chans=len(bands), **SMALL)
    encoder.bands = bands  # type: ignore[assignment]
    return encoder.eval()


def staged_encoder(architecture: str = "resnet18", **args: Any) -> nn.Module:
    """Return an encoder with a fine stem, as objects and changes need it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder: nn.Module = timm.create_model(architecture, num_classes=0, **(args or STAGED))
    encoder.bands = RGB  # type: ignore[assignment]
    return encoder.eval()


def exported(folder: Path) -> Path:
    """Export a tiny encoder of red, green and blue."""
    zeros, ones = [0.0] * 3, [1.0] * 3
    kwargs: dict[str, Any] = {"architecture": "resnet18", "model_args": SMALL, "image_size": 32}
    export_encoder(tiny_encoder(), folder, bands=RGB, mean=zeros, std=ones, **kwargs)
    return folder


def scenes(classes: int = 3, each: int = 8, truthful: bool = True, seed: int = 0) -> TaskData[int]:
    """Return noisy scenes of one colour a class; without ``truthful`` the labels are drawn at
    random."""
    rng = np.random.default_rng(seed)

    def part(name: str) -> tuple[Sample[int], ...]:
        found = []
        for i in range(classes * each):
            colour, label = i % classes, i % classes if truthful else int(rng.integers(classes))
            image = _noisy(np.broadcast_to(COLOURS[colour][:, None, None], (3, 32, 32)), rng)
            found.append(Sample(f"{name} {i}", f"group {i // classes}", constant(image), constant(label)))
        return tuple(found)

    return _task("classification", classes, part("train"), part("test"))


def fields(classes: int = 3, images: int = 8, truthful: bool = True, seed: int = 0, side: int = 64) -> TaskData[Array]:
    """Return images of four squares of one colour a class, with a border of unknown truth."""
    rng = np.random.default_rng(seed)

    def part(name: str) -> tuple[Sample[Array], ...]:
        found = []
        for i in range(images):
            colour = rng.integers(0, classes, (2, 2)).repeat(side // 2, 0).repeat(side // 2, 1)
            mask = colour if truthful else rng.integers(0, classes, (side, side))
            mask = mask.astype(np.int64)
            mask[:2] = 255
            image = _noisy(COLOURS[colour].transpose(2, 0, 1), rng)
            found.append(Sample(f"{name} {i}", f"{name} {i}", constant(image), constant(mask)))
        return tuple(found)

    return _task("segmentation", classes, part("train"), part("test"))


def real_chips(count: int, side: int = 32) -> list[Array]:
    """Return chips (3, side, side) uint8 of the shipped aerial imagery."""
    with rasterio.open(sample_folder() / "neon-aerial" / "san-joaquin-2018.tif") as file:
        image = file.read()
    across = image.shape[2] // side
    places = [divmod(i, across) for i in range(count)]
    return [image[:, r * side : (r + 1) * side, c * side : (c + 1) * side] for r, c in places]


def write_image(path: Path, image: Array, **options: Any) -> Path:
    """Write an image (C, H, W) in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = {".png": "PNG", ".jpg": "JPEG"}.get(path.suffix, "GTiff")
    count, height, width = image.shape
    profile = {"driver": driver, "count": count, "height": height, "width": width, "dtype": image.dtype}
    with rasterio.open(path, "w", **profile, **options) as file:
        file.write(image)
    return path


def _task(task: Any, classes: int, train: Any, test: Any) -> TaskData[Any]:
    mean, std = measured([sample.image for sample in train])
    names = tuple(f"class {i}" for i in range(classes))
    return TaskData(task, "toy", names, tuple(shipped_card("rgb", "toy").bands), train, test, mean, std)


def _noisy(image: Array, rng: np.random.Generator) -> Array:
    return np.clip(image + rng.normal(0, 15, image.shape), 0, 255).astype(np.uint8)
