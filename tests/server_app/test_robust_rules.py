"""Clipping and the rules that bear attackers, by hand and over frames on disk, whatever the order
of arrival."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federation import tiny
from spooled import spooled

from fedsense_core.config import resolve
from fedsense_core.errors import ConfigError
from server_app.aggregation import slices
from server_app.aggregation.clipping import clipped
from server_app.aggregation.median import coordinate_median
from server_app.aggregation.multi_krum import chosen_rows, squared_distances
from server_app.aggregation.rule import AggregationRule, weighted_mean
from server_app.aggregation.trimmed_mean import trimmed_mean

VALUES = np.array([[1, 5, 0], [2, 4, 0], [3, 3, 1], [100, -100, 9]], np.float32)
RULES = ("median", "trimmed-mean", "multi-krum")


def config_of(kind: str, **more: Any) -> Any:
    return tiny(aggregation__kind=kind, federation__quorum=5, **more)


def test_median_by_hand() -> None:
    assert coordinate_median(VALUES).tolist() == [2.5, 3.5, 0.5]
    assert coordinate_median(VALUES[:3]).tolist() == [2, 4, 0]


def test_trimmed_mean_by_hand() -> None:
    assert trimmed_mean(VALUES, 1).tolist() == [2.5, 3.5, 0.5]
    assert trimmed_mean(VALUES, 0).tolist() == [26.5, -22, 2.5]


def test_krum_by_hand() -> None:
    # Five points on a line; with f = 1 the score is the sum of the two smallest squared distances.
    places = np.array([0.0, 1.0, 2.0, 3.5, 50.0])
    distances = (places[:, None] - places) ** 2
    assert chosen_rows(distances, 1) == [0, 1, 2, 3]
    assert chosen_rows(distances, 0) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("models", [False, True], ids=["updates", "models"])
def test_longer_updates_count_with_the_median_norm(tmp_path: Path, models: bool) -> None:
    vectors = [torch.tensor([float(size), 0.0, 0.0]) for size in (1, 2, 4, 40)]
    accepted = spooled(tmp_path, vectors, tiny(**({"preset": "fedavg"} if models else {"uplink__codec": "none"})))
    settings = resolve({"aggregation.clip": "median"}, {}).aggregation
    kept = clipped(accepted, settings)
    assert [one.update()[0].item() for one in kept] == pytest.approx([1, 2, 3, 3], rel=1e-5)
    assert [one.norm for one in kept] == [one.norm for one in accepted], "what came is still known"
    mean = weighted_mean(kept) - (kept[0].expected.replica.weights if models else 0)
    assert mean.tolist() == pytest.approx([9 / 4, 0, 0], rel=1e-5)
    assert clipped(accepted, resolve({}, {}).aggregation) is accepted


@pytest.mark.parametrize("models", [False, True], ids=["updates", "models"])
@pytest.mark.parametrize("kind", RULES)
def test_rules_over_frames_equal_those_of_whole_vectors_in_any_slices_and_any_order(
    tmp_path: Path, kind: str, models: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(1)
    vectors = [torch.randn(1000, generator=generator) for _ in range(5)]
    vectors[3] *= -20
    config = config_of(kind, **({"preset": "fedavg"} if models else {"uplink__codec": "none"}))
    accepted = spooled(tmp_path, vectors, config)
    rule = AggregationRule.of(config)
    found = rule.centre(accepted)
    stacked = np.stack([one.value().numpy() for one in accepted])
    expected: dict[str, Callable[[], np.ndarray]] = {
        "median": lambda: coordinate_median(stacked),
        "trimmed-mean": lambda: trimmed_mean(stacked, 1),
        "multi-krum": lambda: weighted_mean([accepted[i] for i in (0, 1, 2, 4)]).numpy(),
    }
    assert np.array_equal(found.numpy(), expected[kind]())
    monkeypatch.setattr(slices, "SLICE_NUMBERS", 333)
    for order in itertools.islice(itertools.permutations(accepted), 0, 120, 17):
        came = sorted(order, key=lambda one: one.site)  # as `Round.close` puts them
        assert torch.equal(rule.centre(came), found)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(one.path.name for one in accepted)


def test_krum_distances_of_models_do_not_cancel(tmp_path: Path) -> None:
    vectors = [torch.full((8,), 1e-3 * i) for i in range(5)]
    accepted = spooled(tmp_path, vectors, config_of("multi-krum", preset="fedavg"), base=100.0)
    expected = [[8 * (1e-3 * (i - j)) ** 2 for j in range(5)] for i in range(5)]
    assert np.allclose(squared_distances(accepted), expected, rtol=0.05, atol=1e-9)


@pytest.mark.parametrize(("kind", "least"), [("median", 5), ("trimmed-mean", 5), ("multi-krum", 7)])
def test_settings_with_too_few_replies_to_bear_the_attackers_are_refused(kind: str, least: int) -> None:
    few = {"aggregation.kind": kind, "aggregation.byzantine": 2, "federation.quorum": least - 1}
    with pytest.raises(ConfigError, match=rf"aggregation\.kind = '{kind}'.*set it to {least} or more"):
        resolve(few, {})
    assert resolve(few | {"federation.quorum": least}, {}).aggregation.least_clients == least


@pytest.mark.parametrize("kind", RULES)
def test_too_few_replies_are_refused_by_the_rule_itself(tmp_path: Path, kind: str) -> None:
    config = config_of(kind, uplink__codec="none")
    with pytest.raises(ValueError, match=f"'{kind}' with aggregation.byzantine = 1 needs"):
        AggregationRule.of(config).centre(spooled(tmp_path, [torch.ones(4)] * 2, config))
