"""Chips without files, and chips as they are stored, for tests that look at pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsense_core.data.chips.chips import Chips, as_tensor
from fedsense_core.data.chips.statistics import Statistics


def pixels_of(chips: Chips) -> NDArray[Any]:
    """Return every chip (n, C, S, S) as stored."""
    return np.asarray(chips.read(np.arange(len(chips))).numpy())


def chips_of_array(values: NDArray[Any], bands: Sequence[str], name: str = "chips") -> Chips:
    """Wrap an array (n, C, S, S) whose pixels are all valid."""
    statistics = Statistics.of(values, np.ones((len(values), *values.shape[2:]), dtype=bool))
    zeros = np.zeros(len(values), dtype=np.int64)
    return Chips(
        segments=(values,),
        segment=zeros,
        position=np.arange(len(values)),
        statistics=(statistics,),
        sensor=("custom",),
        scene_paths=(name,),
        skipped=(),
        bands=tuple(bands),
        spectrum=(),
        name=name,
        origin=torch.zeros(len(values), dtype=torch.int64),
        origin_mean=as_tensor(statistics.mean)[None],
        origin_std=as_tensor(statistics.std)[None],
        scene=zeros,
        row=zeros,
        col=zeros,
        valid=np.ones(len(values), dtype=np.float32),
    )
