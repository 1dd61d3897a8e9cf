"""The reference codecs, and what their tests measure with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsense_core.codecs.float8 import Float8
from fedsense_core.codecs.int8 import Int8
from fedsense_core.codecs.qsgd import Qsgd
from fedsense_core.codecs.reference import ReferenceCodec
from fedsense_core.codecs.sign import Sign
from fedsense_core.codecs.ternary import Ternary
from fedsense_core.codecs.topk import TopK
from fedsense_core.tensors import TensorTable

QSGD = [Qsgd(bits) for bits in range(2, 9)]
TOPK = [TopK(bits) for bits in range(1, 9)]
CONTRACTIONS: list[ReferenceCodec] = [Sign(), *TOPK, Float8(), Int8()]
UNBIASED: list[ReferenceCodec] = [*QSGD, Ternary()]
EVERY = [*CONTRACTIONS, *UNBIASED]
KEPT = {1: 39, 2: 78, 3: 118, 4: 157, 5: 196, 6: 236, 7: 275, 8: 315}
"""Numbers of a block that top-k keeps, by bits."""
DISTRIBUTIONS = ("normal", "laplace", "student_t3")


def name_of(codec: ReferenceCodec) -> str:
    return f"{codec.name}{codec.bits}"


every_codec_form = pytest.mark.parametrize("codec", EVERY, ids=name_of)
every_distribution = pytest.mark.parametrize("distribution", DISTRIBUTIONS)


def flat(size: int) -> TensorTable:
    return TensorTable.from_shapes({"w": (1, size)})


def draw(distribution: str, size: int, rms: float = 1e-3, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    values = {
        "normal": rng.standard_normal(size),
        "laplace": rng.laplace(size=size),
        "student_t3": rng.standard_t(3, size),
    }[distribution]
    return torch.from_numpy(values * (rms / np.sqrt(np.mean(values**2)))).float()


def round_trip(codec: ReferenceCodec, vector: Tensor, table: TensorTable | None = None, seed: int = 0) -> Tensor:
    table = table or flat(len(vector))
    payload = codec.encode(vector, table, seed)
    assert isinstance(payload, bytes)
    assert len(payload) == codec.payload_bytes(table)
    return codec.decode(payload, table, seed)


def energy(vector: Tensor) -> float:
    return float(vector.double().square().sum())


def error(vector: Tensor, decoded: Tensor) -> float:
    """|x - C(x)|^2 / |x|^2."""
    return energy(vector.double() - decoded.double()) / energy(vector)


def blocks_of(vector: Tensor) -> tuple[Tensor, ...]:
    return vector.double().split(1024)
