from __future__ import annotations

import numpy as np
import pytest
import torch

from fedsense_core.codecs.scales import halves, read_halves, read_tensor_scales, tensor_scales
from fedsense_core.errors import FrameError


def test_scales_keep_eleven_bits_down_to_a_billionth_of_the_largest() -> None:
    for top in (1e-9, 1.0, 1e3, 2.0**40):
        scales = torch.tensor(top) * 2.0 ** -torch.linspace(0, 29, 500)
        (tensor_scale,) = tensor_scales(scales[:1])
        numbers = halves(scales, tensor_scale)
        assert np.isfinite(numbers).all()
        decoded = torch.from_numpy(numbers.astype(np.float32)) * tensor_scale
        assert ((decoded - scales).abs() <= scales * 2.0**-11).all()


def test_a_tensor_of_next_to_nothing_has_scale_zero() -> None:
    assert tensor_scales(torch.tensor([0.0, 1e-16, 1e-45])).tolist() == [0, 0, 0]
    assert halves(torch.tensor([1e-16, 0.0]), torch.tensor(0.0)).tolist() == [0, 0]


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, -1.0, 1e38, 2.0**31 * 1.001, 1e-30, 1e-45])
def test_hostile_tensor_scales_are_refused(hostile: float) -> None:
    words = np.array([1.0, hostile], "<f4").view(np.uint8)
    with pytest.raises(FrameError, match="tensor scale"):
        read_tensor_scales(words)


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, -1.0, 65504.0])
def test_hostile_block_scales_are_refused(hostile: float) -> None:
    words = np.array([1.0, hostile], "<f2").view(np.uint8)
    with pytest.raises(FrameError, match="block scale"):
        read_halves(words, signed=False)


def test_small_values_may_be_negative_but_not_beyond_their_largest() -> None:
    assert read_halves(np.array([-32768, 32768, 0.5], "<f2").view(np.uint8), signed=True).tolist() == [
        -32768,
        32768,
        0.5,
    ]
    with pytest.raises(FrameError):
        read_halves(np.array([-65504], "<f2").view(np.uint8), signed=True)
