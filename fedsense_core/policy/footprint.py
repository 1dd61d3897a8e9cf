"""What a run's model takes of a machine, estimated before anything of it is built: the network is
made on torch's meta device, which has shapes and no memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedsense_core.config import Config
from fedsense_core.models.pretraining import PretrainingModel, build_model

BYTES_A_PARAMETER = 48
"""Of main memory in a round: model, gradient, replica and its momentum, start and end, update, and
two moments of the optimiser, each float32, and what a codec takes beside them."""
KEPT_A_PARAMETER = 40
"""Of disk: two rounds of replica, momentum, residual and the optimiser's moments."""
SAMPLE = 2
"""Images that are sent through the model on the meta device: layers that look at a batch need
two."""


@dataclass(frozen=True)
class Footprint:
    """What one client's round takes."""

    parameters: int
    memory: int
    """Bytes of main memory, at least: the libraries, and what is alike for every model, come on
    top."""
    disk: int
    """Bytes that are kept between rounds."""

    @classmethod
    def of(cls, config: Config, device: torch.device) -> Footprint:
        """Estimate it for training on ``device``. Raises ConfigError for a model that cannot be
        built."""
        with torch.device("meta"):
            model = build_model(config)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        copies = 1 + (config.alignment_weight > 0) + config.needs_teacher
        memory = parameters * (BYTES_A_PARAMETER + 4 * (copies - 1))
        if device.type == "cpu":
            memory += _activations(model, config)
        return cls(parameters, memory, parameters * KEPT_A_PARAMETER)


def _activations(model: PretrainingModel, config: Config) -> int:
    """Return the bytes that a step keeps for its backward pass; 0 for a model that the meta device
    cannot run."""
    kept: dict[int, tuple[int, Tensor]] = {}  # by storage, of which several tensors may be views

    def keep(tensor: Tensor) -> Tensor:
        if (storage := storage_of(tensor)) not in weights:
            kept[storage] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    def storage_of(tensor: Tensor) -> int:
        return int(tensor.untyped_storage()._cdata)  # meta tensors have no address

    weights = {storage_of(parameter) for parameter in model.parameters()}

    channels, size = 3 if config.conditioned else len(config.data.bands), config.data.view_size
    try:
        with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.project(torch.empty(SAMPLE, channels, size, size))
    except (RuntimeError, NotImplementedError, ValueError, TypeError, AssertionError):
        return 0
    return sum(size for size, _ in kept.values()) * config.train.batch_size * _views(config) // SAMPLE


def _views(config: Config) -> int:
    """Return how many views of each chip one step trains on."""
    match config.train.recipe:
        case "mae":
            return 1
        case "lejepa":
            return config.train.views
        case _:
            return 2


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*") if folder.exists() else ():
        try:
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
        except OSError:
            continue
    return total
