"""Scores from evidence equal those of libraries, follow the weights of groups, and survive the
disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from fedsense_core.errors import FedSenseError
from fedsense_core.tools.downstream.evidence import ConfusionEvidence, DetectionEvidence, Statistic
from fedsense_core.tools.downstream.result import TaskResult, load_results, save_results

RNG = np.random.default_rng(0)
TRUTH, PREDICTED, GROUP = RNG.integers(0, 3, 200), RNG.integers(0, 3, 200), RNG.integers(0, 4, 200)


def confusion(statistic: Statistic) -> ConfusionEvidence:
    counts = np.zeros((4, 3, 3))
    np.add.at(counts, (GROUP, TRUTH, PREDICTED), 1.0)
    return ConfusionEvidence(("a", "b", "c", "d"), counts, statistic)


def expected(statistic: Statistic, truth: np.ndarray, predicted: np.ndarray) -> float:
    if statistic == "accuracy":
        return float(accuracy_score(truth, predicted))
    if statistic == "macro-f1":
        return float(f1_score(truth, predicted, average="macro"))
    if statistic == "mean-iou":
        return float(jaccard_score(truth, predicted, average="macro"))
    return float(f1_score(truth == 1, predicted == 1))


@pytest.mark.parametrize("statistic", ["accuracy", "macro-f1", "mean-iou", "positive-f1"])
def test_confusions_score_as_scikit_learn_does_on_the_samples_that_were_drawn(statistic: Statistic) -> None:
    for weights in ([1, 1, 1, 1], [2, 0, 1, 3]):
        rows = np.concatenate([np.tile(np.flatnonzero(g == GROUP), w) for g, w in enumerate(weights)])
        value = confusion(statistic).value(np.array(weights))
        assert value == pytest.approx(expected(statistic, TRUTH[rows], PREDICTED[rows]))


def detection() -> DetectionEvidence:
    """Two tiles. Class 0: 3 objects, detections hit, miss, hit by falling score; class 1: 1 object,
    never found."""
    return DetectionEvidence(
        groups=("left", "right"),
        objects_GK=np.array([[2.0, 1.0], [1.0, 0.0]]),
        scores_D=np.array([0.9, 0.8, 0.7]),
        hits_D=np.array([True, False, True]),
        classes_D=np.array([0, 0, 0]),
        group_D=np.array([0, 0, 1]),
    )


def test_average_precision_of_a_case_worked_by_hand() -> None:
    # class 0: precision 1 at the recalls 0 to 0.33, 34 of 101, then 2/3 at 33 more, up to 0.66;
    # class 1: 0
    assert detection().value(np.ones(2)) == pytest.approx((34 + 33 * 2 / 3) / 101 / 2)
    # without the right tile class 0 has 2 objects, one found first: precision 1 at the recalls 0 to
    # 0.5
    assert detection().value(np.array([1, 0])) == pytest.approx(51 / 101 / 2)
    # the right tile alone has no object of class 1, which then does not count
    assert detection().value(np.array([0, 1])) == pytest.approx(1.0)


def test_nothing_to_score_is_not_a_number() -> None:
    assert np.isnan(detection().value(np.zeros(2)))
    assert np.isnan(confusion("mean-iou").value(np.zeros(4)))


def test_results_come_back_from_the_disk_as_they_were(tmp_path: Path) -> None:
    results = [
        TaskResult(
            "segmentation",
            "x",
            "frozen",
            "linear",
            "mean-iou",
            ({"mean-iou": 0.5},),
            (confusion("mean-iou"),),
            "PROXY",
        ),
        TaskResult(
            "detection",
            "y",
            "fine-tuned",
            "fcos",
            "map-50",
            ({"map-50": 0.1}, {"map-50": 0.3}),
            (detection(), detection()),
        ),
    ]
    save_results(tmp_path / "results.npz", results)
    back = load_results(tmp_path / "results.npz")
    assert [one.key for one in back] == ["segmentation/x/frozen/linear", "detection/y/fine-tuned/fcos"]
    assert back[0].note == "PROXY"
    assert back[1].value == pytest.approx(0.2)
    for old, new in zip(results, back, strict=True):
        assert old.scores == new.scores
        for one, other in zip(old.evidence, new.evidence, strict=True):
            weights = np.arange(1, 1 + len(one.groups))
            assert one.groups == other.groups
            assert one.value(weights) == other.value(weights)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_another_file_is_no_result(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "results.npz").write_bytes(content)
    with pytest.raises(FedSenseError, match="delete it, and run again"):
        load_results(tmp_path / "results.npz")
