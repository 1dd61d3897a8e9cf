"""The difference decoder learns what changed, does not ask which image came first, and repeats
itself."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from labelled_toys import staged_encoder as encoder

from fedsense_core.data.sites.sensors import shipped_card
from fedsense_core.errors import SiteError
from fedsense_core.tools.downstream.change import ChangeModel, DifferenceHead
from fedsense_core.tools.downstream.encoders import Pyramid
from fedsense_core.tools.downstream.options import TaskOptions
from fedsense_core.tools.downstream.samples import IGNORED, Sample, TaskData, constant, measured
from fedsense_core.tools.downstream.tasks import evaluate_encoder
from fedsense_core.tools.reporting.tiles import Row

SIDE = 64
QUICK = TaskOptions(seeds=1, most_steps=60, learning_rate=3e-3, batch_size=4, device="cpu")


def pairs(count: int, seed: int) -> tuple[Sample[Any], ...]:
    """Return images of stripes, in which a square turns bright; some other squares are bright in
    both."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        before = rng.integers(40, 80, (3, SIDE, SIDE)).astype(np.uint8)
        truth = np.zeros((SIDE, SIDE), np.int64)
        before[:, 40:60, int(rng.integers(0, 40)) :][:, :, :20] = 220
        after = before.copy()
        top, left = int(rng.integers(0, 16)), int(rng.integers(0, 40))
        after[:, top : top + 20, left : left + 20] = 220
        truth[top : top + 20, left : left + 20] = 1
        samples.append(Sample(f"{i}", f"{i}", constant(before), constant(truth), after=constant(after)))
    return tuple(samples)


def toy() -> TaskData[Any]:
    train, test = pairs(8, 0), pairs(4, 1)
    mean, std = measured([sample.image for sample in train])
    bands = tuple(shipped_card("rgb", "here").bands)
    return TaskData("change", "squares", ("unchanged", "changed"), bands, train, test, mean, std, "PROXY")


def test_changed_squares_are_found_and_the_score_is_that_of_the_evidence() -> None:
    pictures: dict[str, list[Row]] = {}
    shown = replace(QUICK, show=lambda name, rows: pictures.update({name: list(rows)}))
    (result,) = evaluate_encoder(encoder(), toy(), shown)
    assert (result.task, result.mode, result.head, result.metric) == ("change", "frozen", "difference", "f1")
    assert result.note == "PROXY"
    assert result.value > 0.75
    assert result.evidence[0].value(np.ones(4)) == pytest.approx(result.value, abs=1e-6)
    f1, iou = result.scores[0]["f1"], result.scores[0]["iou"]
    assert iou == pytest.approx(f1 / (2 - f1), abs=1e-6)
    rows = pictures["frozen-difference"]
    assert [tile.caption for tile in rows[0].tiles] == ["0", "after", "truth", "predicted"]
    truth = toy().test[0].target()
    assert np.array_equal(rows[0].tiles[2].image[..., 0] == 255, truth == 1)


def test_the_same_seed_gives_the_same_result_and_the_encoder_stays_as_it_was() -> None:
    given = encoder()
    before = deepcopy(given.state_dict())
    short = replace(QUICK, most_steps=15, modes=("fine-tuned",), seeds=2)
    state = torch.random.get_rng_state()
    (one,), (other,) = (evaluate_encoder(given, toy(), short) for _ in range(2))
    assert one.scores == other.scores
    assert 0 < one.scores[0]["f1"] != one.scores[1]["f1"] > 0
    assert all(torch.equal(value, before[key]) for key, value in given.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.fixture(scope="module")
def model() -> ChangeModel:
    pyramid = Pyramid(encoder(), SIDE, trained=False)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return ChangeModel(pyramid, DifferenceHead(pyramid.channels)).eval()


def test_which_image_came_first_does_not_matter(model: ChangeModel) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        a, b = torch.randn(2, 2, 3, SIDE, SIDE)
    forth, back = model(torch.cat([a, b], 1)), model(torch.cat([b, a], 1))
    assert forth.shape == (2, 2, SIDE, SIDE)
    assert torch.allclose(forth, back, atol=1e-5)
    assert not torch.allclose(forth, model(torch.cat([a, a], 1)), atol=1e-3)


def test_two_equal_images_look_alike_wherever_they_are(model: ChangeModel) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        a, b = torch.randn(2, 1, 3, SIDE, SIDE)
    # no feature of the place itself reaches the head, only differences, which are zero
    assert torch.equal(model(torch.cat([a, a], 1)), model(torch.cat([b, b], 1)))


def test_unknown_pixels_are_not_scored() -> None:
    data = toy()

    def half_known(sample: Sample[Any]) -> Sample[Any]:
        mask = sample.target().copy()
        mask[:, SIDE // 2 :] = IGNORED
        return replace(sample, target=constant(mask))

    known = replace(data, test=tuple(map(half_known, data.test)))
    (result,) = evaluate_encoder(encoder(), known, replace(QUICK, most_steps=2))
    assert result.evidence[0].counts_GKK.sum() == 4 * SIDE * SIDE / 2  # type: ignore[union-attr]


def test_what_cannot_be_scored_is_said() -> None:
    data, short = toy(), replace(QUICK, most_steps=1)
    still = tuple(replace(one, target=constant(np.zeros((SIDE, SIDE), np.int64))) for one in data.test)
    with pytest.raises(SiteError, match="nothing changed in the truth"):
        evaluate_encoder(encoder(), replace(data, test=still), short)
    alone = tuple(replace(one, after=None) for one in data.train)
    with pytest.raises(SiteError, match="needs two images on one grid, and has 64 x 64"):
        evaluate_encoder(encoder(), replace(data, train=alone), short)
    smaller = tuple(replace(one, after=constant(one.image()[:, :32])) for one in data.train)
    with pytest.raises(SiteError, match="64 x 64 and 64 x 32"):
        evaluate_encoder(encoder(), replace(data, train=smaller), short)
