"""What an aggregation rule is, and the mean that every round has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedsense_core.config import Config
from fedsense_core.registry import implementation
from fedsense_core.tensors import TensorTable
from server_app.round import Accepted


class AggregationRule(ABC):
    """How accepted replies become one vector of the kind that travelled: updates, or models.

    Frames wait on disk and are decoded one at a time, so memory is a few vectors whatever the
    number of clients. The order is that of site names: floating-point sums depend on it, and
    Flower's node ids change from one run to the next.
    """

    name: ClassVar[str]
    moves_the_model: ClassVar[bool] = True
    """Whether what it returns is used."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @classmethod
    def of(cls, config: Config) -> AggregationRule:
        """Return the rule that ``aggregation.kind`` names."""
        return implementation("server_app.aggregation", config.aggregation.kind, AggregationRule)(config)

    @abstractmethod
    def combine(self, accepted: Sequence[Accepted], mean: Tensor, table: TensorTable, rounds_before: int) -> Tensor:
        """Return one vector (N,), given also Σ p_i x_i and how many rounds were aggregated
        before."""


def weights_of(accepted: Sequence[Accepted]) -> list[float]:
    """Return p_i: examples seen times what ``aggregation.weights`` makes of a site's chips,
    normalised to one."""
    sizes = [one.examples * one.factor for one in accepted]
    total = sum(sizes)
    return [size / total for size in sizes]


def weighted_mean(accepted: Sequence[Accepted]) -> Tensor:
    """Return Σ p_i x_i of what travelled (updates, or models) as float32 (N,).

    The operations and their order are those of Flower's FedAvg on the same ordered replies, so with
    full models the result equals it bit for bit (McMahan et al. 2017, algorithm 1).
    """
    mean: np.ndarray | None = None
    for one, weight in zip(accepted, weights_of(accepted), strict=True):
        value = one.value().numpy()
        if mean is None:
            mean = value * weight
        else:
            mean += value * weight
    if mean is None:
        raise ValueError("no accepted update to average")
    return torch.from_numpy(mean)
