"""Pixels: what is separable is learned, noise is not, windows cover images of any size, unknown
truth stays out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from labelled_toys import fields, tiny_encoder
from torch import nn

from fedsense_core.errors import SiteError
from fedsense_core.tools.downstream import segmentation
from fedsense_core.tools.downstream.encoders import Pyramid
from fedsense_core.tools.downstream.heads import LinearHead, PyramidHead, resized
from fedsense_core.tools.downstream.options import TaskOptions
from fedsense_core.tools.downstream.pixels import PixelModel, predicted_classes, starts
from fedsense_core.tools.downstream.samples import constant
from fedsense_core.tools.downstream.segmentation import coloured
from fedsense_core.tools.downstream.tasks import evaluate_encoder

LINEAR = TaskOptions(heads=("linear",), seeds=1, most_steps=40, batch_size=4, device="cpu")


def test_a_linear_head_learns_what_is_separable_and_its_evidence_is_the_score() -> None:
    (result,) = evaluate_encoder(tiny_encoder(), fields(), LINEAR)
    assert result.scores[0]["accuracy"] > 0.9
    assert result.value > 0.8
    evidence = result.evidence[0]
    assert evidence.value(np.ones(len(evidence.groups))) == pytest.approx(result.value, abs=1e-6)
    # 64 x 62 pixels of each of 8 images: the border is 255
    assert evidence.counts_GKK.sum() == 8 * 64 * 62  # type: ignore[union-attr]


def test_random_truth_gives_chance() -> None:
    (result,) = evaluate_encoder(tiny_encoder(), fields(truthful=False), LINEAR)
    assert result.scores[0]["accuracy"] == pytest.approx(1 / 3, abs=0.04)


@pytest.mark.parametrize("mode", ["frozen", "fine-tuned"])
def test_the_decoder_learns_repeats_itself_and_leaves_the_encoder_alone(mode: str) -> None:
    options = replace(LINEAR, modes=(mode,), heads=("upernet",), most_steps=20, learning_rate=5e-3)
    encoder = tiny_encoder()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    (first,), (again,) = (evaluate_encoder(encoder, fields(images=4), options) for _ in range(2))
    assert first.scores == again.scores
    assert first.scores[0]["accuracy"] > 0.7
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


def test_the_linear_head_equals_one_convolution_on_all_levels_together() -> None:
    head = LinearHead((3, 5), 4).eval()
    maps = [torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)]
    weight = torch.cat([one.weight for one in head.maps], 1)
    bias = torch.stack([one.bias for one in head.maps]).sum(0)
    scale = 1 / np.sqrt(1 + 1e-5)  # of the fresh norms
    together = torch.cat([maps[0], resized(maps[1], maps[0])], 1) * scale
    assert torch.allclose(head(maps), nn.functional.conv2d(together, weight, bias), atol=1e-5)


def test_the_decoder_sees_the_whole_image_from_every_cell() -> None:
    head = PyramidHead((8, 8, 8), 2).eval()
    maps = [torch.randn(1, 8, side, side) for side in (16, 8, 4)]
    other = [*maps[:2], maps[2].clone()]
    other[2][..., -1, -1] += 10
    assert head(maps).shape == (1, 2, 16, 16)
    assert not torch.allclose(head(maps)[..., 0, 0], head(other)[..., 0, 0])


@pytest.mark.parametrize(("length", "side"), [(10, 64), (64, 64), (65, 64), (500, 64), (129, 64)])
def test_windows_cover_an_image_and_overlap(length: int, side: int) -> None:
    begins = starts(length, side)
    assert begins[0] == 0
    assert begins[-1] == max(0, length - side)
    assert all(b - a <= side * 0.75 + 1 for a, b in pairwise(begins))


@pytest.mark.parametrize("shape", [(40, 100), (64, 64), (97, 30)])
def test_an_image_of_any_size_is_predicted_as_a_whole(shape: tuple[int, int]) -> None:
    pyramid = Pyramid(tiny_encoder(), 64, trained=False)
    model = PixelModel(pyramid, LinearHead(pyramid.channels, 3)).eval()
    x_CHW = torch.randn(3, *shape)
    assert predicted_classes(model, x_CHW, 2).shape == shape
    model.forward = lambda x: x  # type: ignore[assignment]
    assert np.array_equal(predicted_classes(model, x_CHW, 2), x_CHW.argmax(0))  # every pixel in its place


@pytest.mark.parametrize("classes", [2, 7, 19])
def test_a_legend_names_every_class_in_rows_that_can_be_read(classes: int) -> None:
    rows = segmentation._legend([f"class {i}" for i in range(classes)])
    assert [tile.caption for row in rows for tile in row.tiles] == [f"class {i}" for i in range(classes)]
    assert max(len(row.tiles) for row in rows) <= 7


def test_masks_without_any_truth_are_refused() -> None:
    data = fields(images=2)
    unknown = tuple(replace(one, target=constant(np.full((64, 64), 255))) for one in data.test)
    with pytest.raises(SiteError, match="no pixel of the test images has a class"):
        evaluate_encoder(tiny_encoder(), replace(data, test=unknown), replace(LINEAR, most_steps=1))


def test_a_batch_without_any_truth_is_no_reason_to_stop() -> None:
    data = fields(images=2)
    unknown = tuple(replace(one, target=constant(np.full((64, 64), 255))) for one in data.train)
    (result,) = evaluate_encoder(tiny_encoder(), replace(data, train=unknown), replace(LINEAR, most_steps=2))
    assert np.isfinite(result.value)


def test_colours_tell_classes_apart_and_unknown_is_black() -> None:
    picture = coloured(np.array([[0, 1, 8, 255]]))[0]
    assert len({tuple(colour) for colour in picture.tolist()}) == 4
    assert picture[3].tolist() == [0, 0, 0]
