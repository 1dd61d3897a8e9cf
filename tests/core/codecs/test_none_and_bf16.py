from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedsense_core.codecs.bf16 import Bfloat16
from fedsense_core.codecs.none import Float32
from fedsense_core.errors import FrameError
from fedsense_core.tensors import TensorTable

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def flat(size: int) -> TensorTable:
    return TensorTable.from_shapes({"w": (1, size)})


@settings(deadline=None)
@given(values=arrays(np.float32, st.integers(0, 3000), elements=FINITE))
def test_none_returns_every_bit(values: np.ndarray) -> None:
    payload = Float32().encode(torch.from_numpy(values), flat(values.size), seed=0)
    assert payload == values.astype("<f4").tobytes()
    assert Float32().decode(payload, flat(values.size), seed=0).numpy().tobytes() == values.tobytes()


@settings(deadline=None)
@given(values=arrays(np.float32, st.integers(0, 3000), elements=st.floats(-(2.0**127), 2.0**127, width=32)))
def test_bf16_rounds_to_nearest_even(values: np.ndarray) -> None:
    payload = Bfloat16().encode(torch.from_numpy(values), flat(values.size), seed=0)
    decoded = Bfloat16().decode(payload, flat(values.size), seed=0)
    assert len(payload) == Bfloat16().payload_bytes(flat(values.size))
    assert torch.equal(decoded, torch.from_numpy(values).to(torch.bfloat16).float())


def test_bf16_ties_go_to_the_even_neighbour_both_ways() -> None:
    ties = torch.tensor([1 + 2.0**-8, 1 + 3 * 2.0**-8, -(1 + 2.0**-8), 1 + 2.0**-8 + 2.0**-20])
    decoded = Bfloat16().decode(Bfloat16().encode(ties, flat(4), 0), flat(4), 0)
    assert decoded.tolist() == [1.0, 1 + 2.0**-6, -1.0, 1 + 2.0**-7]


@pytest.mark.parametrize("codec", [Float32(), Bfloat16()])
def test_vectors_longer_than_a_piece_and_strided_ones_survive(codec: Float32 | Bfloat16) -> None:
    vector = torch.arange(2 * 300_001, dtype=torch.float64)[::2] % 256
    table = flat(300_001)
    assert torch.equal(codec.decode(codec.encode(vector, table, 0), table, 0), vector.float())


def test_golden_bytes_are_little_endian() -> None:
    vector = torch.tensor([1.0, -2.5, 3.1415927, 0.0])
    assert Float32().encode(vector, flat(4), 0).hex() == "0000803f000020c0db0f494000000000"
    assert Bfloat16().encode(vector, flat(4), 0).hex() == "803f20c049400000"


@pytest.mark.parametrize("codec", [Float32(), Bfloat16()])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_numbers_that_cannot_travel_are_named_by_their_tensor(codec: Float32 | Bfloat16, bad: float) -> None:
    table = TensorTable.from_shapes({"fine": (5,), "broken": (5,)})
    vector = torch.zeros(10, dtype=torch.float64)
    vector[7] = bad
    with pytest.raises(ValueError, match="'broken' holds NaN, infinity or a number beyond"):
        codec.encode(vector, table, 0)


def test_bf16_refuses_what_would_round_to_infinity() -> None:
    with pytest.raises(ValueError, match="beyond"):
        Bfloat16().encode(torch.tensor([torch.finfo(torch.float32).max]), flat(1), 0)


@pytest.mark.parametrize("codec", [Float32(), Bfloat16()])
@pytest.mark.parametrize("upper", [0x7F80, 0xFF80, 0x7FC0, 0xFFFF])
def test_payloads_with_nan_or_infinity_are_refused(codec: Float32 | Bfloat16, upper: int) -> None:
    word = upper.to_bytes(2, "little") if codec.bits == 16 else b"\0\0" + upper.to_bytes(2, "little")
    with pytest.raises(FrameError, match="NaN or infinity"):
        codec.decode(bytes(codec.bits // 8) + word, flat(2), 0)


@pytest.mark.parametrize("codec", [Float32(), Bfloat16()])
def test_payloads_of_a_wrong_length_are_refused(codec: Float32 | Bfloat16) -> None:
    for size in (0, 1, 7, 9, 800):
        if size != codec.payload_bytes(flat(2)):
            with pytest.raises(FrameError, match=f"has {size} bytes"):
                codec.decode(bytes(size), flat(2), 0)


def test_wrong_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\), not \(4,\)"):
        Float32().encode(torch.zeros(4), flat(3), 0)
    with pytest.raises(ValueError, match=r"shape \(4,\), not \(1, 4\)"):
        Float32().encode(torch.zeros(1, 4), flat(4), 0)
    with pytest.raises(ValueError, match="float16"):
        Float32().encode(torch.zeros(3, dtype=torch.float16), flat(3), 0)
