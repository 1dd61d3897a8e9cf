"""Features of many chips under a frozen encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def embed(
    encoder: nn.Module,
    x_NCHW: Tensor,
    batch_size: int = 256,
    size: int | None = None,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Return the features (N, D) float32 of the chips ``x_NCHW``, which are standardised.

    With ``size`` the chips are first resized to ``size`` x ``size`` pixels, antialiased. The
    encoder is moved to ``device``; it computes in eval mode and in float32, and is then as
    trainable as it was before.
    """
    encoder.to(device)
    with evaluating(encoder):
        batches = (resize(batch.to(device).float(), size) for batch in torch.split(x_NCHW, batch_size))
        features = [encoder(batch).float().cpu() for batch in batches]
    return torch.cat(features).numpy() if features else np.zeros((0, 0), np.float32)


def resize(x_NCHW: Tensor, size: int | None) -> Tensor:
    """Resize chips to ``size`` x ``size`` pixels, antialiased; None leaves them as they are."""
    if size is None or x_NCHW.shape[-2:] == (size, size):
        return x_NCHW
    return F.interpolate(x_NCHW, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Hold ``module`` in eval mode, then give every submodule its own mode back (a frozen norm
    stays frozen)."""
    training = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, mode in training:
            child.training = mode
