"""The model that a run ended with, put together again from what its folder still holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fedsense_core.config import Config
from fedsense_core.data.sites.sensors import Band
from fedsense_core.device import chosen_device
from fedsense_core.encoder import load_encoder
from fedsense_core.models.pretraining import PretrainingModel, build_model
from fedsense_core.run_folder import RunFolder
from fedsense_core.run_folder.snapshots import Snapshots
from fedsense_core.tensors import TensorTable


@dataclass(frozen=True)
class FinalModel:
    """What pictures need of it."""

    encoder_for: Callable[[Sequence[Band]], nn.Module]
    """Returns the encoder for some bands, in eval mode and on ``device``."""
    whole: PretrainingModel | None
    """With heads and decoder; None where only the exported encoder is left."""
    device: torch.device


def final_model(config: Config, run: RunFolder) -> FinalModel:
    """Return the final model of a finished run: from ``models/``, else from the newest checkpoint,
    else the exported encoder alone.

    Raises CheckpointError where not even that is left, or it belongs to another release.
    """
    device = chosen_device()
    model = build_model(config)
    table = TensorTable.of(model, config.model.local_parameters)
    weights = _weights(run, table)
    if weights is None:
        return FinalModel(lambda bands: load_encoder(run.encoder, bands=bands).to(device), None, device)
    table.write(weights, model)
    model.to(device).eval()
    return FinalModel(model.encoder_for, model, device)


def _weights(run: RunFolder, table: TensorTable) -> Tensor | None:
    """Return w (N,), None where neither ``models/`` nor a readable checkpoint holds it."""
    if run.models.is_dir():
        return Snapshots(run.models, table).final()
    for path in sorted(run.checkpoints.glob("round-*"), reverse=True):
        try:
            # As server_app.checkpoints writes it, which nothing here may import.
            with safe_open(path / "server.safetensors", framework="pt") as file:
                weights: Tensor = file.get_tensor("weights")
        except (OSError, SafetensorError):
            continue  # damaged: an older one, or the exported encoder, will do for pictures
        if len(weights) == table.numel:
            return weights
    return None
