"""What rotated codecs are tried on: numbers that are normal, heavy-tailed, and of another scale in
every layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

Draw = Callable[[np.random.Generator, int], np.ndarray]
DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "laplace": lambda rng, n: rng.laplace(size=n),
    "student_t3": lambda rng, n: rng.standard_t(3, n),
    "layer_scaled": lambda rng, n: rng.standard_normal(n) * np.repeat(10.0 ** rng.uniform(-4, 0, 8), n // 8),
}
"""By name; the last wants a size that eight layers share evenly."""
ONE_QUICK = [
    pytest.param(name, marks=() if name == "student_t3" else pytest.mark.slow, id=name) for name in DISTRIBUTIONS
]
"""For a promise that takes seconds to prove and is the same under each: the others run under
``slow``."""


def drawn(name: str, rms: float, size: int, seed: int = 0) -> Tensor:
    """Numbers of one distribution with the given root mean square, float32."""
    values = DISTRIBUTIONS[name](np.random.default_rng(seed), size)
    return torch.from_numpy(values * (rms / np.sqrt(np.mean(values**2)))).float()
