"""Boxes are cut, matched and scored as COCO does, on cases worked by hand and beside
torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedsense_core.errors import SiteError
from fedsense_core.tools.downstream.boxes import (
    Detections,
    boxes_of,
    checked_box,
    detection_evidence,
    match,
    mean_precisions,
    within,
)
from fedsense_core.tools.downstream.dihedral import SYMMETRIES, transformed, transformed_boxes
from fedsense_core.tools.downstream.samples import Boxes

Corners = tuple[float, float, float, float]


def objects(*corners: Corners, k: int = 0, difficult: bool = False) -> Boxes:
    return boxes_of([(one, k, difficult) for one in corners])


def found(*scored: tuple[Corners, float], k: int = 0) -> Detections:
    return Detections(
        np.array([corners for corners, _ in scored], np.float32).reshape(-1, 4),
        np.full(len(scored), k, np.int64),
        np.array([score for _, score in scored], np.float32),
    )


SQUARE: Corners = (0, 0, 10, 10)
NEAR: Corners = (0, 0, 10, 9)
FAR: Corners = (50, 50, 60, 60)


def test_the_surest_detection_takes_the_object_and_the_second_finds_none() -> None:
    hits, counts = match(found((SQUARE, 0.4), (NEAR, 0.9)), objects(SQUARE))
    assert hits.tolist() == [False, True]
    assert counts.all()


def test_a_detection_takes_the_object_that_it_covers_best() -> None:
    # the first detection could have either object; it takes the nearer one and leaves the other to
    # the second
    truth = objects((0, 0, 10, 10), (0, 2, 10, 12))
    hits, _ = match(found(((0, 2, 10, 12), 0.9), ((0, 0, 10, 10), 0.8)), truth)
    assert hits.all()


@pytest.mark.parametrize(("right", "hit"), [(5.0, True), (4.99, False)])
def test_half_an_object_is_just_enough(right: float, hit: bool) -> None:
    assert match(found(((0, 0, right, 10), 0.9)), objects(SQUARE))[0].tolist() == [hit]


def test_another_class_is_no_hit() -> None:
    assert not match(found((SQUARE, 0.9), k=1), objects(SQUARE))[0].any()


def test_a_difficult_object_takes_any_number_at_no_cost_and_counts_as_none() -> None:
    truth = objects(SQUARE, difficult=True)
    hits, counts = match(found((SQUARE, 0.9), (NEAR, 0.8), (FAR, 0.7)), truth)
    assert hits.tolist() == [False, False, False]
    assert counts.tolist() == [False, False, True]
    one = detection_evidence([found((SQUARE, 0.9))], [truth], ["a"], 1)
    assert one.objects_GK.tolist() == [[0.0]]
    assert np.isnan(one.value(np.ones(1)))


def test_average_precision_of_a_case_worked_by_hand() -> None:
    # 2 objects; by falling score: hit, miss, hit. Precision 1 up to recall 1/2 (51 of 101 recalls),
    # then 2/3 (50).
    truth = objects(SQUARE, FAR)
    detections = found((SQUARE, 0.9), ((20, 20, 30, 30), 0.8), (FAR, 0.7))
    expected = (51 + 50 * 2 / 3) / 101
    assert detection_evidence([detections], [truth], ["a"], 1).value(np.ones(1)) == pytest.approx(expected)
    assert mean_precisions([detections], [truth])["map-50"] == pytest.approx(expected, abs=1e-6)


def test_nothing_found_and_nothing_there_are_no_accidents() -> None:
    evidence = detection_evidence([found(), found((SQUARE, 0.5))], [objects(SQUARE), objects()], ["a", "b"], 1)
    assert evidence.value(np.ones(2)) == 0.0
    assert mean_precisions([found(), found((SQUARE, 0.5))], [objects(SQUARE), objects()])["map-50"] == 0.0


def drawn(rng: np.random.Generator, n: int) -> Boxes:
    corner, size = rng.uniform(0, 80, (n, 2)), rng.uniform(10, 40, (n, 2))
    rows = np.hstack([corner, corner + size]).astype(np.float32)
    return Boxes(rows, rng.integers(0, 2, n), rng.random(n) < 0.2)


@pytest.mark.parametrize("seed", range(5))
def test_evidence_equals_torchmetrics_on_random_scenes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = [drawn(rng, int(rng.integers(0, 12))) for _ in range(6)]
    detections = []
    for one in truth:
        other = drawn(rng, 10)
        near = (one.xyxy_n4 + rng.normal(0, 2, one.xyxy_n4.shape)).astype(np.float32)
        classes = np.concatenate([other.classes_n, one.classes_n])
        scores = rng.random(len(classes)).astype(np.float32)
        detections.append(Detections(np.vstack([other.xyxy_n4, near]), classes, scores))
    value = detection_evidence(detections, truth, list("aabbcc"), 2).value(np.ones(3))
    assert 0 < value < 1
    assert value == pytest.approx(mean_precisions(detections, truth)["map-50"], abs=1e-6)


def test_a_window_clips_its_objects_and_asks_only_for_what_shows() -> None:
    boxes = objects((0, 0, 10, 10), (5, 5, 15, 15), (12, 0, 22, 10), (30, 30, 40, 40))
    here = within(boxes, top=0, left=8, height=10, width=10)
    # 20 % of the first show, 25 % of the second, 60 % of the third, nothing of the last
    assert here.xyxy_n4.tolist() == [[0, 0, 2, 10], [0, 5, 7, 10], [4, 0, 10, 10]]
    assert here.difficult_n.tolist() == [True, False, False]


@pytest.mark.parametrize("symmetry", range(SYMMETRIES))
def test_boxes_move_with_the_picture(symmetry: int) -> None:
    picture = torch.zeros(16, 16)
    picture[2:5, 7:14] = 1
    left, top, right, bottom = (int(v) for v in transformed_boxes(objects((7, 2, 14, 5)), symmetry, 16).xyxy_n4[0])
    moved = transformed(picture, symmetry)
    assert moved.sum() == 21
    assert moved[top:bottom, left:right].sum() == 21


def test_the_eight_turns_differ() -> None:
    picture = torch.arange(9.0).view(3, 3)
    assert len({tuple(transformed(picture, symmetry).flatten().tolist()) for symmetry in range(SYMMETRIES)}) == 8


@pytest.mark.parametrize(
    ("corners", "words"),
    [
        ((0, 0, float("nan"), 5), "finite"),
        ((0, 0, float("inf"), 5), "finite"),
        ((0, 0, 1e9, 5), "finite"),
        ((4, 0, 1, 5), "width and a height above 0"),
        ((4, 0, 4, 5), "width and a height above 0"),
    ],
)
def test_a_box_without_size_or_of_no_numbers_is_refused(corners: Corners, words: str) -> None:
    with pytest.raises(SiteError, match=f"here.*{words}"):
        checked_box(corners, "here")
