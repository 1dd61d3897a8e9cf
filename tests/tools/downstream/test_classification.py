"""Scenes: what is separable is learned, noise is not, and evidence says what torchmetrics says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from labelled_toys import scenes, tiny_encoder

from fedsense_core.errors import ConfigError, FedSenseError, SiteError
from fedsense_core.tools.downstream.options import TaskOptions
from fedsense_core.tools.downstream.result import TaskResult
from fedsense_core.tools.downstream.tasks import evaluate_encoder

QUICK = TaskOptions(seeds=1, side=32, device="cpu")


def agree(result: TaskResult) -> bool:
    return all(
        one.value(np.ones(len(one.groups))) == pytest.approx(scores[result.metric], abs=1e-6)
        for one, scores in zip(result.evidence, result.scores, strict=True)
    )


def test_probes_learn_what_is_separable_and_their_evidence_is_the_score() -> None:
    results = evaluate_encoder(tiny_encoder(), scenes(), QUICK)
    assert [one.key for one in results] == ["classification/toy/frozen/knn", "classification/toy/frozen/linear"]
    assert all(one.value > 0.9 for one in results)
    assert all(map(agree, results))


def test_random_labels_give_chance() -> None:
    for result in evaluate_encoder(tiny_encoder(), scenes(each=30, truthful=False), QUICK):
        assert 0.15 < result.scores[0]["accuracy"] < 0.55
        assert agree(result)


def test_fine_tuning_learns_repeats_itself_and_leaves_the_encoder_alone() -> None:
    options = replace(QUICK, modes=("fine-tuned",), seeds=2, most_steps=20, batch_size=9, learning_rate=5e-3)
    encoder = tiny_encoder()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    (first,), (again,) = (evaluate_encoder(encoder, scenes(), options) for _ in range(2))
    assert first.scores == again.scores
    assert len(first.scores) == 2
    assert first.value > 0.9
    assert agree(first)
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


def test_data_that_cannot_be_scored_is_refused_by_name() -> None:
    data = scenes()
    with pytest.raises(SiteError, match="no training image of class 2"):
        evaluate_encoder(tiny_encoder(), replace(data, train=tuple(s for s in data.train if s.target() != 2)), QUICK)
    with pytest.raises(SiteError, match="test part of toy is empty"):
        evaluate_encoder(tiny_encoder(), replace(data, test=()), QUICK)
    with pytest.raises(SiteError, match=r"no band 'nir', but red, green, blue"):
        evaluate_encoder(tiny_encoder(bands=("red", "nir")), data, QUICK)


def test_heads_that_do_not_exist_or_do_not_fit_the_mode_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'linear'"):
        evaluate_encoder(tiny_encoder(), scenes(), replace(QUICK, heads=("liner",)))
    with pytest.raises(ConfigError, match="no head of knn can be fine-tuned"):
        evaluate_encoder(tiny_encoder(), scenes(), replace(QUICK, heads=("knn",), modes=("fine-tuned",)))


def test_an_encoder_that_has_diverged_is_named_as_such() -> None:
    encoder = tiny_encoder()
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    with pytest.raises(FedSenseError, match="the encoder diverged"):
        evaluate_encoder(encoder, scenes(), QUICK)
