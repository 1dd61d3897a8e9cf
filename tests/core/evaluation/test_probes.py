"""Probes are exact where the answer is known, deterministic, quick, and say what a labelled set
lacks."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fedsense_core.errors import FedSenseError, SiteError
from fedsense_core.evaluation.embedding import embed
from fedsense_core.evaluation.probes import knn_scores, linear_scores, probe

# Directions on the circle: class 0 near 0°, class 1 near 90°, with one stray of class 1 at 10°.
ANGLES = np.deg2rad([0, 5, 8, 90, 95, 10])
TRAIN_F = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1).astype(np.float32)
TRAIN_Y = np.array([0, 0, 0, 1, 1, 1])


def direction(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def blobs(n: int, features: int, classes: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, features))
    labels = np.arange(n) % classes
    return (centres[labels] + spread * rng.normal(size=(n, features))).astype(np.float32), labels


def test_one_neighbour_decides_alone():
    result = knn_scores(TRAIN_F, TRAIN_Y, direction(11, 6), np.array([1, 0]), k=1)
    assert result.accuracy == result.macro_f1 == 1


def test_votes_are_weighted_by_cosine():
    # With k = 6 there are three votes for each class; at 60° the two near 90° outweigh the three
    # near 0°.
    weights = np.exp(np.cos(np.deg2rad(60) - ANGLES) / 0.07)
    assert weights[TRAIN_Y == 1].sum() > weights[TRAIN_Y == 0].sum()
    assert knn_scores(TRAIN_F, TRAIN_Y, direction(60), np.array([1]), k=6).accuracy == 1
    assert knn_scores(TRAIN_F, TRAIN_Y, direction(3), np.array([0]), k=6).accuracy == 1


def test_neighbours_ignore_the_length_of_features():
    lengths = np.array([[1], [100], [0.01], [5], [7], [3]], np.float32)
    assert knn_scores(TRAIN_F * lengths, TRAIN_Y, 50 * direction(11, 6), np.array([1, 0]), k=1).accuracy == 1


@pytest.mark.parametrize("score_of", [knn_scores, linear_scores])
def test_separable_classes_are_told_apart(score_of):
    train, test = blobs(200, 16, 5, 0.1, 0), blobs(100, 16, 5, 0.1, 1)
    result = score_of(*train, *test)
    assert result.accuracy == result.macro_f1 == 1
    assert result.macro_f1_se == 0


@pytest.mark.parametrize("score_of", [knn_scores, linear_scores])
def test_features_without_information_score_at_chance(score_of):
    rng = np.random.default_rng(0)
    result = score_of(
        rng.normal(size=(500, 8)).astype(np.float32),
        rng.integers(0, 4, 500),
        rng.normal(size=(500, 8)).astype(np.float32),
        rng.integers(0, 4, 500),
    )
    assert result.accuracy == pytest.approx(0.25, abs=0.08)


def test_linear_probe_is_unchanged_by_scale_and_offset_of_features():
    train, test = blobs(300, 12, 4, 2.0, 0), blobs(300, 12, 4, 2.0, 1)
    scale, offset = np.geomspace(1e-2, 1e2, 12).astype(np.float32), np.arange(12, dtype=np.float32)
    plain = linear_scores(*train, *test)
    moved = linear_scores(train[0] * scale + offset, train[1], test[0] * scale + offset, test[1])
    assert moved.accuracy == pytest.approx(plain.accuracy, abs=0.01)
    assert 0.5 < plain.accuracy < 1


def test_dead_features_do_no_harm():
    train, test = blobs(200, 16, 5, 0.1, 0), blobs(100, 16, 5, 0.1, 1)
    for features, _ in (train, test):
        features[:, :4] = 7
    assert linear_scores(*train, *test).accuracy == 1


def test_linear_probe_is_deterministic_and_quick():
    train, test = blobs(1200, 256, 10, 6.0, 0), blobs(1200, 256, 10, 6.0, 1)
    start = time.perf_counter()
    first = linear_scores(*train, *test)
    assert time.perf_counter() - start < 5  # about 0.3 s on an idle core
    assert first == linear_scores(*train, *test)


@pytest.mark.parametrize("score_of", [knn_scores, linear_scores])
def test_labelled_sets_that_cannot_be_probed_are_named(score_of):
    features, labels = blobs(20, 4, 2, 0.1, 0)
    with pytest.raises(SiteError, match="training part of the labelled set is empty"):
        score_of(features[:0], labels[:0], features, labels)
    with pytest.raises(SiteError, match="test part of the labelled set is empty"):
        score_of(features, labels, features[:0], labels[:0])
    with pytest.raises(SiteError, match=r"classes \[3, 5\] .* no training samples"):
        score_of(features, labels, features[:3], np.array([5, 0, 3]))
    with pytest.raises(SiteError, match="at least two classes"):
        score_of(features, labels * 0, features, labels * 0)
    with pytest.raises(FedSenseError, match="the encoder diverged"):
        score_of(features * np.nan, labels, features, labels)


class Means(nn.Module):
    """An encoder one can compute by hand: the mean of each band, and how many pixels it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        pixels = torch.full((len(x), 1), float(x.shape[-1] * x.shape[-2]))
        return torch.cat([self.dropout(x.mean((2, 3))), pixels], 1)


def test_embedding_is_in_order_batched_and_in_eval_mode():
    x = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 2, 8, 8)
    encoder = Means().train()
    features = embed(encoder, x, batch_size=3)
    assert features.dtype == np.float32
    assert features.tolist() == [[i, i, 64.0] for i in range(10)]
    assert encoder.training
    assert encoder.dropout.training


def test_frozen_part_of_an_encoder_in_training_stays_in_eval_mode():
    encoder = Means().train()
    encoder.dropout.eval()
    embed(encoder, torch.zeros(1, 2, 4, 4))
    assert encoder.training
    assert not encoder.dropout.training


def test_embedding_resizes_first():
    assert embed(Means(), torch.ones(2, 2, 8, 8), size=4).tolist() == [[1.0, 1.0, 16.0]] * 2


def part(n: int, seed: int) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    values = torch.randn(n, 2, 8, 8, generator=generator) + labels.view(-1, 1, 1, 1)
    return SimpleNamespace(values=values, labels=labels, groups=torch.arange(n) // 4)


def test_probe_reports_both_probes_of_a_labelled_set():
    scores = probe(Means(), SimpleNamespace(train=part(90, 0), test=part(60, 1)), size=4)
    assert scores.knn_accuracy == scores.linear_accuracy == 1
    assert scores.as_dict() == {
        "knn_accuracy": 1.0,
        "knn_macro_f1": 1.0,
        "linear_accuracy": 1.0,
        "linear_macro_f1": 1.0,
        "linear_macro_f1_se": 0.0,
    }
