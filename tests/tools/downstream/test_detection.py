"""The detector learns on any encoder, leaves it as it was, and gives the same result for the same
seed."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from labelled_toys import STAGED
from labelled_toys import staged_encoder as encoder

from fedsense_core.data.sites.sensors import shipped_card
from fedsense_core.errors import ConfigError, SiteError
from fedsense_core.tools.downstream.boxes import Detections, boxes_of
from fedsense_core.tools.downstream.detection import Scored, detection_pictures, outlined
from fedsense_core.tools.downstream.encoders import Pyramid
from fedsense_core.tools.downstream.fcos import STRIDES, Detector, Levels
from fedsense_core.tools.downstream.options import TaskOptions
from fedsense_core.tools.downstream.samples import Boxes, Sample, TaskData, constant, measured
from fedsense_core.tools.downstream.tasks import evaluate_encoder
from fedsense_core.tools.downstream.tiling import FoldedData, windows
from fedsense_core.tools.reporting.tiles import Row

SIDE = 96
QUICK = TaskOptions(seeds=1, most_steps=40, learning_rate=3e-3, batch_size=16, side=SIDE, device="cpu")


def squares(count: int, seed: int) -> tuple[Sample[Boxes], ...]:
    """Return images of noise with two or three bright squares."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        image = rng.integers(0, 60, (3, SIDE, SIDE)).astype(np.uint8)
        rows: list[tuple[tuple[int, int, int, int], int, bool]] = []
        for corner in ((0, 0), (0, 48), (48, 20)):
            size = int(rng.integers(12, 24))
            top, left = (int(at + rng.integers(0, 48 - size)) for at in corner)
            image[:, top : top + size, left : left + size] = 220
            rows.append(((left, top, left + size, top + size), 0, False))
        samples.append(Sample(f"{i}", f"{i}", constant(image), constant(boxes_of(rows))))
    return tuple(samples)


def toy(folded: bool = False) -> TaskData[Boxes]:
    train, test = squares(12, 0), squares(4, 1)
    mean, std = measured([sample.image for sample in train])
    bands = tuple(shipped_card("rgb", "here").bands)
    if folded:
        return FoldedData("detection", "squares", ("square",), bands, train, train, mean, std, folds=2)
    return TaskData("detection", "squares", ("square",), bands, train, test, mean, std)


def test_squares_are_found_and_the_score_is_that_of_the_evidence() -> None:
    pictures: dict[str, list[Row]] = {}
    shown = replace(QUICK, show=lambda name, rows: pictures.update({name: list(rows)}))
    (result,) = evaluate_encoder(encoder(), toy(), shown)
    assert (result.task, result.mode, result.head, result.metric) == ("detection", "frozen", "fcos", "map-50")
    assert result.value > 0.7
    assert set(result.scores[0]) == {"map", "map-50"}
    assert result.evidence[0].value(np.ones(4)) == pytest.approx(result.value, abs=1e-6)
    assert [len(row.tiles) for row in pictures["frozen-fcos"]] == [3] * 4


def test_the_same_seed_gives_the_same_result_and_the_encoder_stays_as_it_was() -> None:
    given = encoder()
    before = deepcopy(given.state_dict())
    short = replace(QUICK, most_steps=4, modes=("fine-tuned",), seeds=2)
    state = torch.random.get_rng_state()
    (one,), (other,) = (evaluate_encoder(given, toy(), short) for _ in range(2))
    assert one.scores == other.scores
    assert np.array_equal(one.evidence[0].scores_D, other.evidence[0].scores_D)  # type: ignore[union-attr]
    assert not np.array_equal(one.evidence[0].scores_D, one.evidence[1].scores_D)  # type: ignore[union-attr]
    assert all(torch.equal(value, before[key]) for key, value in given.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_cross_validation_scores_every_sample_once() -> None:
    (result,) = evaluate_encoder(encoder(), toy(folded=True), replace(QUICK, most_steps=2))
    assert sorted(result.evidence[0].groups) == sorted(f"{i}" for i in range(12))
    assert result.evidence[0].objects_GK.sum() == 36  # type: ignore[union-attr]


def test_a_frozen_encoder_has_no_gradient_and_a_fine_tuned_one_has() -> None:
    x = torch.randn(1, 3, SIDE, SIDE)
    truth = [boxes_of([((10, 10, 30, 30), 0, False)])]
    for trained in (False, True):
        detector = Detector(Pyramid(encoder(), SIDE, trained), 1, 32).train()
        detector.loss(x, truth).backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad is not None for parameter in detector.fcos.backbone.pyramid.encoder.parameters()]
        assert any(gradients) == trained


def test_difficult_objects_are_not_learned_from() -> None:
    x = torch.randn(1, 3, SIDE, SIDE)
    detector = Detector(Pyramid(encoder(), SIDE, False), 1, 32).train()
    alone, with_difficult, none, difficult_alone = (
        float(detector.loss(x, [boxes_of(rows)]).detach())
        for rows in (
            [((10, 10, 30, 30), 0, False)],
            [((10, 10, 30, 30), 0, False), ((50, 50, 70, 70), 0, True)],
            [],
            [((50, 50, 70, 70), 0, True)],
        )
    )
    assert alone == with_difficult
    assert none == difficult_alone
    assert np.isfinite(none)


@pytest.mark.parametrize(
    ("architecture", "args"),
    [
        ("resnet18", STAGED),
        ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [16, 16, 32, 32]}),
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 4, "embed_dim": 48, "num_heads": 3}),
    ],
)
def test_every_encoder_gives_the_same_fine_strides(architecture: str, args: dict[str, Any]) -> None:
    levels = Levels(Pyramid(encoder(architecture, **args), SIDE, False), 32)
    shapes = [tuple(level.shape) for level in levels(torch.zeros(2, 3, SIDE, SIDE)).values()]
    assert shapes == [(2, 32, SIDE // stride, SIDE // stride) for stride in STRIDES]


@pytest.mark.parametrize(("height", "width", "side"), [(100, 100, 100), (1236, 575, 224), (10, 500, 64)])
def test_windows_show_each_pixel_once(height: int, width: int, side: int) -> None:
    seen = np.zeros((height, width), int)
    for window in windows(height, width, side):
        assert max(window.height, window.width) <= side
        seen[window.slices] += 1
    assert (seen == 1).all()


def test_outlines_are_where_the_boxes_are() -> None:
    image = np.full((20, 30, 3), 9, np.uint8)
    picture = outlined(image, np.array([[5, 4, 15, 12], [25, 15, 99, 99]], np.float32), np.array([[255, 0, 0]] * 2))
    changed = (picture != image).any(2)
    assert changed[4, 5:15].all()
    assert changed[11, 5:15].all()
    assert changed[4:12, 5].all()
    assert changed[4:12, 14].all()
    assert changed[4:12, 5:15].sum() == 2 * 10 + 2 * 6
    assert changed[15:, 25:].sum() == 5 * 5 - 3 * 3, "a box that reaches out is closed at the border"
    assert changed.sum() == 2 * 10 + 2 * 6 + 16
    assert (image == 9).all()


def test_only_the_surest_detections_are_shown() -> None:
    found = Detections(
        np.array([[1, 1, 9, 9]] * 2, np.float32), np.zeros(2, np.int64), np.array([0.9, 0.1], np.float32)
    )
    tile = Scored("here", "here", torch.randn(3, 16, 16), boxes_of([((1, 1, 9, 9), 0, False)]), found)
    (row,) = detection_pictures([tile], ("red", "green", "blue"))
    assert [one.caption for one in row.tiles] == ["here", "truth: 1", "predicted: the surest 1"]


def test_what_cannot_be_done_is_said() -> None:
    data = toy()
    with pytest.raises(ConfigError, match="no head 'retinanet'"):
        evaluate_encoder(encoder(), data, replace(QUICK, heads=("retinanet",)))
    with pytest.raises(SiteError, match="12 training and 0 test images"):
        evaluate_encoder(encoder(), replace(data, test=()), QUICK)
    empty = tuple(replace(one, target=constant(boxes_of([]))) for one in data.test)
    with pytest.raises(SiteError, match="no object that counts"):
        evaluate_encoder(encoder(), replace(data, test=empty), replace(QUICK, most_steps=1))
