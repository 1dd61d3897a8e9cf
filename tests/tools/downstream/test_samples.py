"""Images of a task: standardised by the training part, read once where they fit, picked by band."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from labelled_toys import Array, fields, scenes

from fedsense_core.errors import ConfigError, SiteError
from fedsense_core.tools.downstream.options import TaskOptions
from fedsense_core.tools.downstream.samples import measured


def test_training_images_have_mean_0_and_deviation_1_by_band_and_outliers_are_clamped() -> None:
    data = scenes()
    x = torch.stack([data.standardise(sample.image()) for sample in data.train])
    assert x.mean((0, 2, 3)).abs().max() < 1e-5
    assert (x.var((0, 2, 3), correction=0) - 1).abs().max() < 1e-4
    assert data.standardise(np.full((3, 2, 2), 1e9)).max() == 6


def test_each_image_is_read_once_for_the_statistics() -> None:
    reads = []

    def load() -> Array:
        reads.append(1)
        return np.zeros((1, 2, 2), np.uint8)

    measured([load] * 3)
    assert len(reads) == 3


def test_a_flat_band_does_not_divide_by_nothing() -> None:
    mean, std = measured([lambda: np.full((2, 4, 4), 7, np.uint8)])
    assert mean.tolist() == [7, 7]
    assert std.tolist() == [1, 1]


def test_images_that_fit_are_read_once_and_others_each_time() -> None:
    data = fields(images=2)
    reads: list[str] = []

    def counting(name: str, image: Array) -> Array:
        reads.append(name)
        return image

    lazy = replace(
        data, train=tuple(replace(one, image=partial(counting, one.name, one.image())) for one in data.train), test=()
    )
    kept = lazy.in_memory()
    reads.clear()
    for _ in range(3):
        [sample.image() for sample in kept.train]
    assert len(reads) == 2
    # An image has 3 bytes a pixel, its mask of int64 8.
    large = lazy.in_memory(most_bytes=2 * 64 * 64 * 10)
    assert lazy.in_memory(most_bytes=2 * 64 * 64 * 11) is not lazy
    reads.clear()
    [sample.image() for _ in range(3) for sample in large.train]
    assert len(reads) == 6


def test_a_band_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(SiteError, match=r"no band 'gren', but red, green, blue\. Did you mean 'green'"):
        scenes().only(("gren",))


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_by_name(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device '{device}' cannot be used here .*: give cpu, cuda or auto"):
        _ = TaskOptions(device=device).torch_device


def test_budgets() -> None:
    assert TaskOptions(batch_size=16).steps(31) == 200
    assert TaskOptions(batch_size=16).steps(6300) == 10 * 394
    assert TaskOptions(batch_size=16, epochs=1).steps(31) == 2
    assert TaskOptions(most_steps=5).steps(31) == 5
    assert TaskOptions(modes=("frozen", "fine-tuned")).quick().modes == ("frozen",)
