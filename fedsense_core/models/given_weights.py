"""Weights that a run starts from: read from a file, from the folder of an exported encoder, or from
where timm publishes them.

Only tensors are read. A pickle is never run: torch files go through ``weights_only=True``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor, nn

from fedsense_core.config.imagery import PUBLISHED
from fedsense_core.data.sites.sensors import Band, shipped_card
from fedsense_core.encoder import CONFIG, WEIGHTS, load_to_train
from fedsense_core.errors import ConfigError
from fedsense_core.models.bands import band_stem, encoder_for

RGB = (
    Band(name="red", wavelength_um=0.665),
    Band(name="green", wavelength_um=0.56),
    Band(name="blue", wavelength_um=0.49),
)
"""Bands of weights that read three channels and do not say which: those of photographs."""
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "teacher", "model", "module")
"""Names under which training scripts store the tensors in a torch file, averages first."""
TORCH_FILE = "pytorch_model.bin"
"""Name of the weights in a folder of timm's layout, where they are no safetensors file."""


@dataclass(frozen=True)
class GivenWeights:
    """Tensors by name, and the bands that their first layer reads."""

    source: str
    """As ``model.weights`` has it."""
    tensors: Mapping[str, Tensor] = field(repr=False)
    bands: tuple[Band, ...] = ()
    """Empty where nothing says it."""
    encoder: nn.Module | None = field(default=None, repr=False)
    """The encoder of any bands whose tensors these are; None where they are of a plain one."""

    def plain(self, bands: Sequence[Band]) -> GivenWeights:
        """Return the weights of the plain encoder for ``bands``: these, unless they read any."""
        if self.encoder is None:
            return self
        return GivenWeights(self.source, encoder_for(self.encoder, bands).state_dict(), tuple(bands))


def read_given(source: str) -> GivenWeights:
    """Read the weights that ``model.weights`` names.

    Raises ConfigError where there are none or they cannot be read, CheckpointError for an exported
    encoder that was altered.
    """
    if source.startswith(PUBLISHED):
        return GivenWeights(source, _published(source.removeprefix("timm:")))
    path = Path(source).expanduser()
    if path.is_file():
        return GivenWeights(source, _read_file(path))
    if (path / "encoder" / CONFIG).is_file():
        raise ConfigError(f"model.weights = {source!r} is the folder of a run: give {path / 'encoder'}")
    if not (path / CONFIG).is_file():
        raise ConfigError(
            f"model.weights = {source!r} is neither a file, nor the folder of an encoder (with {CONFIG}), nor a name "
            f"such as timm:convnext_atto. Paths are those of the coordinator's machine"
        )
    if '"fedsense"' in (path / CONFIG).read_text(encoding="utf-8"):
        return _exported(source, path)
    file = next((path / name for name in (WEIGHTS, TORCH_FILE) if (path / name).is_file()), None)
    if file is None:
        raise ConfigError(f"model.weights = {source!r} holds neither {WEIGHTS} nor {TORCH_FILE}: copy it again")
    return GivenWeights(source, _read_file(file))


def _exported(source: str, folder: Path) -> GivenWeights:
    encoder, names, spectrum = load_to_train(folder)
    if band_stem(encoder) is not None:
        return GivenWeights(source, encoder.state_dict(), spectrum, encoder)
    return GivenWeights(source, encoder.state_dict(), spectrum or _called(names))


def _called(names: Sequence[str]) -> tuple[Band, ...]:
    """Return the bands that names stand for on Sentinel-2, or nothing where one is no such name.

    Releases before the spectrum was exported wrote names alone.
    """
    card = shipped_card("sentinel2-l1c", "model.weights")
    found = [card.position(name) for name in names]
    if any(position is None for position in found):
        return ()
    return tuple(
        card.bands[position].model_copy(update={"name": name})
        for name, position in zip(names, found, strict=True)
        if position is not None
    )


def _published(name: str) -> dict[str, Tensor]:
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # a hub's client raises whatever its own transport does
        raise ConfigError(
            f"model.weights: timm {timm.__version__} has no pretrained weights {name!r} at hand "
            f"({type(error).__name__}: {error}). Check the name and whether this machine reaches the hub, or fetch "
            "the file elsewhere and give its path"
        ) from error
    return dict(model.state_dict())


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        loaded: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # torch raises what its unpickler does, which is never imported here
        raise ConfigError(
            f"model.weights: {path} cannot be read as tensors alone ({type(error).__name__}): it is damaged, neither a "
            "safetensors nor a torch file, or holds pickled objects, which could run code here. Where it comes from, "
            "torch.save(model.state_dict(), path) writes tensors alone"
        ) from error
    tensors = _unwrapped(loaded)
    if not tensors:
        raise ConfigError(f"model.weights: {path} holds no tensors by name. Save model.state_dict()")
    return tensors


def _unwrapped(loaded: Any) -> dict[str, Tensor]:
    for _ in range(3):
        if not isinstance(loaded, Mapping):
            return {}
        inner = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    return dict(clean_state_dict(tensors))
