"""Bits dealt out over tensors: within the budget, where they remove the most error, and never
believed from a frame."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsense_core.codecs.block_format import BlockLayout
from fedsense_core.codecs.codec import Codec, get_codec
from fedsense_core.codecs.eden import DISTORTION
from fedsense_core.codecs.water_filling import allocate, energies
from fedsense_core.config import resolve
from fedsense_core.errors import ConfigError, FrameError
from fedsense_core.tensors import TensorTable

TABLE = TensorTable.from_shapes({"a": (4, 1024), "bias": (7,), "b": (2, 1024), "empty": (0, 3), "c": (3, 1024)})


def scaled(seed: int) -> torch.Tensor:
    vector = torch.randn(TABLE.numel, generator=torch.Generator().manual_seed(seed))
    for scale, (_, view) in zip((1.0, 1.0, 0.03, 1.0, 0.001), TABLE.views(vector), strict=True):
        view *= scale
    return vector


def error(codec: Codec, vector: torch.Tensor) -> float:
    decoded = codec.decode(codec.encode(vector, TABLE, 3), TABLE, 3)
    return float((decoded - vector).double().square().sum() / vector.double().square().sum())


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    exponents=st.lists(st.integers(-300, 30), min_size=6, max_size=6),
    budget=st.integers(1, 8),
)
def test_the_budget_holds_and_what_is_left_fits_no_tensor(blocks: list[int], exponents: list[int], budget: int) -> None:
    layout = BlockLayout.of(TensorTable.from_shapes({str(i): (n, 1024) for i, n in enumerate(blocks)}))
    bits = allocate([2.0**e for e in exponents], layout, budget, DISTORTION)
    used = sum(b * n for b, n in zip(bits, blocks, strict=True))
    assert used <= budget * sum(blocks)
    assert all(b == 0 for b, n in zip(bits, blocks, strict=True) if not n)
    left = budget * sum(blocks) - used
    assert all(n > left or b == len(DISTORTION) - 1 for b, n in zip(bits, blocks, strict=True) if n)


def test_among_equal_tensors_no_other_deal_leaves_less_error() -> None:
    layout = BlockLayout.of(TensorTable.from_shapes({str(i): (2, 1024) for i in range(4)}))
    found = [100.0, 9.0, 1.0, 0.0]

    def left(bits: tuple[int, ...]) -> float:
        return sum(e * DISTORTION[b] for e, b in zip(found, bits, strict=True))

    deals = [deal for deal in itertools.product(range(9), repeat=4) if sum(deal) <= 8]
    assert left(allocate(found, layout, 2, DISTORTION)) == pytest.approx(min(map(left, deals)))


def test_energies_are_those_of_coded_tensors() -> None:
    vector = scaled(0)
    expected = [float(view.double().square().sum()) for _, view in TABLE.views(vector)]
    assert energies(vector, BlockLayout.of(TABLE)) == pytest.approx([expected[0], 0, expected[2], 0, expected[4]])


@pytest.mark.parametrize("name", ["eden", "trellis"])
@pytest.mark.parametrize("bits", [1, 2])
def test_where_tensors_differ_the_same_bytes_lose_less(name: str, bits: int) -> None:
    equal, dealt = get_codec(name, bits), get_codec(name, bits, waterfill=True)
    assert dealt.payload_bytes(TABLE) == equal.payload_bytes(TABLE) + len(TABLE)
    assert error(dealt, scaled(1)) < 0.7 * error(equal, scaled(1))


@pytest.mark.parametrize("name", ["eden", "trellis"])
def test_feedback_delivers_what_a_tensor_without_bits_has_lost(name: str) -> None:
    codec, residual, sent = get_codec(name, 1, waterfill=True), torch.zeros(TABLE.numel), torch.zeros(TABLE.numel)
    update = scaled(2)
    for seed in range(60):
        due = update + residual
        decoded = codec.decode(codec.encode(due, TABLE, seed), TABLE, seed)
        residual, sent = due - decoded, sent + decoded
    for spec, view in TABLE.views(sent):
        mine = update[spec.offset : spec.end] * 60
        assert spec.name == "c" or float((view - mine).norm()) <= 0.5 * float(mine.norm())


def test_bits_that_no_encoder_deals_are_refused() -> None:
    codec = get_codec("eden", 2, waterfill=True)
    payload = np.frombuffer(codec.encode(scaled(3), TABLE, 0), np.uint8)
    for position, value, message in [(0, 9, "9 bits"), (0, 255, "255 bits"), (1, 1, "not coded"), (3, 1, "not coded")]:
        forged = payload.copy()
        forged[position] = value
        with pytest.raises(FrameError, match=message):
            codec.decode(forged.tobytes(), TABLE, 0)
    greedy = payload.copy()
    greedy[[0, 2, 4]] = 8
    with pytest.raises(FrameError, match="bytes of codes, there are"):
        codec.decode(greedy.tobytes(), TABLE, 0)
    modest = payload.copy()
    modest[[0, 2, 4]] = 1
    with pytest.raises(FrameError, match="filling after its codes is not zero"):
        codec.decode(modest.tobytes(), TABLE, 0)


def test_without_feedback_nothing_may_be_left_out() -> None:
    with pytest.raises(ValueError, match="needs error feedback"):
        get_codec("eden", 1, waterfill=True).encode(scaled(0), TABLE, 0, unbiased=True)
    for changes in ({"uplink.feedback": False}, {"federation.participation": 0.4}, {"uplink.codec": "qsgd"}):
        with pytest.raises(ConfigError, match="needs error feedback"):
            resolve({"uplink.waterfill": True, **changes}, {})
    assert resolve({"uplink.waterfill": True}, {}).uplink.waterfill
