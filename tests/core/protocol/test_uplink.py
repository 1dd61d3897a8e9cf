"""The stages of the uplink: each by itself, in their order, and the way back at the server."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from federation import tiny
from torch import Tensor

from fedsense_core.codecs.codec import get_codec
from fedsense_core.protocol.uplink.clip import Clip
from fedsense_core.protocol.uplink.encode import Encode
from fedsense_core.protocol.uplink.feedback import Feedback
from fedsense_core.protocol.uplink.pipeline import Uplink
from fedsense_core.protocol.uplink.predict import Predict
from fedsense_core.tensors import TensorTable

TABLE = TensorTable.from_shapes({"a": (4, 1024), "b": (7,)})


def numbers(seed: int, size: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(TABLE.numel, generator=generator, dtype=dtype)


def test_clip_scales_what_is_too_long_and_leaves_the_rest_alone() -> None:
    x = numbers(0)
    length = float(x.double().norm())
    assert Clip(2 * length).forward(x) is x
    clipped = Clip(length / 2).forward(x)
    assert float(clipped.double().norm()) == pytest.approx(length / 2, rel=1e-6)
    assert torch.allclose(clipped, x / 2, rtol=1e-5)


def test_predict_is_undone_by_its_inverse() -> None:
    x, predicted = numbers(0, dtype=torch.float64), numbers(1, dtype=torch.float64)
    stage = Predict(predicted)
    assert torch.equal(stage.forward(x), x - predicted)
    assert torch.allclose(stage.inverse(stage.forward(x).clone()), x)


def test_feedback_carries_over_what_the_server_does_not_get() -> None:
    stage = Feedback(numbers(1, 0.1))
    before, x, restored = stage.residual, numbers(0), numbers(2)
    assert before is not None
    assert torch.equal(stage.forward(x), x + before)
    stage.settle(restored)
    assert torch.equal(stage.state_dict()["residual"], x + before - restored)


def test_encode_is_a_codec_with_its_seed() -> None:
    x, codec = numbers(0), get_codec("eden", 2)
    stage = Encode(codec, TABLE, 7)
    assert stage.forward(x) == codec.encode(x, TABLE, 7)
    assert torch.equal(stage.inverse(stage.forward(x)), codec.decode(codec.encode(x, TABLE, 7), TABLE, 7))


EVERYTHING: dict[str, Any] = {"uplink__prediction": True, "uplink__clip": 30.0}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["feedback"]),
        (EVERYTHING, ["clip", "feedback", "predict"]),
        ({"uplink__feedback": False}, []),
        ({"preset": "fedavg", **EVERYTHING}, []),
    ],
    ids=["usual", "all", "unbiased", "whole-models"],
)
def test_stages_stand_in_their_order(changes: dict[str, Any], names: list[str]) -> None:
    config = tiny(**changes)
    uplink = Uplink.of(config, TABLE, 0, numbers(1) if config.prediction_in_use else None)
    assert [stage.name for stage in uplink.stages] == names


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_client_knows_to_the_bit_what_the_server_decodes(dtype: torch.dtype) -> None:
    config, predicted, e = tiny(**EVERYTHING), numbers(1, 0.5), numbers(2, 0.1, dtype)
    delta = numbers(0, dtype=dtype)
    client = Uplink.of(config, TABLE, 3, predicted, e)
    payload = client.send(delta)
    decoded = Uplink.of(config, TABLE, 3, predicted).receive(payload, torch.empty(TABLE.numel))
    assert torch.equal(client.state_dict()["feedback.residual"], Clip(30.0).forward(delta) + e - decoded)


def test_feedback_brings_a_sum_nearer_and_every_single_update_farther() -> None:
    """So clients that only teach carry no residual: nobody sums what they send."""
    delta = numbers(0)
    errors: dict[bool, tuple[float, float]] = {}
    for feedback in (False, True):
        config = tiny(uplink__feedback=feedback)
        residual, total, last = None, torch.zeros(TABLE.numel), delta
        for seed in range(12):
            uplink = Uplink.of(config, TABLE, seed, None, residual)
            last = uplink.receive(uplink.send(delta))
            residual = uplink.state_dict().get("feedback.residual")
            total += last
        errors[feedback] = float((total - 12 * delta).norm()), float((last - delta).norm())
    assert errors[True][0] < 0.8 * errors[False][0]
    assert errors[True][1] > 1.2 * errors[False][1]
