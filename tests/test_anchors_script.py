from __future__ import annotations

import gzip
import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fedsense_core.errors import ConfigError, FedSenseError

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent.parent / "docs" / "experiments"


@pytest.fixture
def anchors(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("anchors")


@pytest.fixture
def averaging(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("anchors_averaging")


def digits(tmp_path: Path, count: int = 250, columns: int = 785) -> Path:
    rows = np.random.default_rng(0).integers(0, 256, (count, columns))
    rows[:, -1] = np.arange(count) % 10
    path = tmp_path / "digits.csv.gz"
    with gzip.open(path, "wt") as file:
        np.savetxt(file, rows, fmt="%d", delimiter=",")
    return path


def test_a_row_gives_the_spread_and_the_difference_of_figures_only(anchors: ModuleType) -> None:
    assert str(anchors.Row("a", 2.0, [1.0, 2.0])) == "| a | 2 | 1.5 ± 0.7 | -25.0 % |"
    assert str(anchors.Row("a", "above 1", [1.5])) == "| a | above 1 | 1.5 |  |"
    assert str(anchors.Row("a", 0.0, [1e-7], digits=1)) == "| a | 0 | 1e-07 | 1e-07 |"


def test_one_local_step_has_the_minimiser_of_all_data_as_its_fixed_point(averaging: ModuleType) -> None:
    clients = averaging.least_squares(3)
    rows = torch.cat(clients).double().numpy()
    expected = np.linalg.lstsq(rows[:, :-1], rows[:, -1], rcond=None)[0]
    np.testing.assert_allclose(averaging.fixed_point(clients, averaging.LOCAL), expected, rtol=1e-9)


@pytest.mark.parametrize("changes", [{}, {"proximal": 2.0, "preset": "fedprox"}])
def test_a_round_leaves_the_closed_form_as_it_is_and_moves_the_minimiser(
    averaging: ModuleType, tmp_path: Path, changes: dict[str, float | str]
) -> None:
    setting = replace(averaging.LOCAL, epochs=8, **changes)
    clients = averaging.least_squares(0)
    moved = []
    for start in (setting, averaging.LOCAL):
        weights = torch.from_numpy(averaging.fixed_point(clients, start)).float()
        model = averaging.linear(8, 1, bias=False)
        federation = averaging.Federation(model, averaging.half_squares, clients, setting, 0, tmp_path)
        federation.weights = weights
        federation.run_round(range(len(clients)))
        moved.append(float((federation.weights - weights).norm() / weights.norm()))
    assert moved[0] < 1e-6
    assert moved[1] > 1e-3


def test_fixed_points_are_shown_beside_where_averaging_got_to(averaging: ModuleType) -> None:
    rule = averaging.Rule("rule", replace(averaging.LOCAL, epochs=5), 3)
    distance, from_closed_form = averaging.fixed_points(1, [rule])
    assert distance.published > 0
    assert 0 < from_closed_form.ours[0] < 0.9  # 1 is where it starts


def test_synthetic_devices_hold_nine_tenths_of_their_rows_and_average(averaging: ModuleType) -> None:
    train, test = averaging.synthetic(1.0, 0, devices=4)
    sizes = np.random.default_rng(0).lognormal(4, 2, 4).astype(int) + 50
    assert [len(rows) for rows in train] == [int(0.9 * size) for size in sizes]
    assert len(test) == sum(sizes) - sum(map(len, train))
    assert set(torch.cat([*train, test])[:, -1].tolist()) <= set(range(10))
    rows = list(averaging.synthetic_rows(1, rounds=2, devices=2))
    assert [row.published for row in rows] == ["above 60"] * 3
    assert all(0 <= row.ours[0] <= 100 for row in rows)


@pytest.mark.parametrize("iid", [True, False])
def test_digits_are_dealt_once_each_and_two_shards_a_client(averaging: ModuleType, iid: bool) -> None:
    number = torch.arange(2500.0)
    clients, test = averaging.deal(torch.stack([number, number % 10], 1), iid, 1)
    assert {len(client) for client in clients} == {20}
    assert torch.equal(torch.cat([*clients, test])[:, 0].sort()[0], number)
    kinds = max(len(client[:, -1].unique()) for client in clients)
    assert kinds > 5 if iid else kinds <= 4  # a shard may lie across the border of two digits


def test_rounds_of_the_digits_are_counted_against_the_reference(averaging: ModuleType, tmp_path: Path) -> None:
    reference, *others = averaging.digit_rows(digits(tmp_path), 1, target=0.01, most=1)
    assert 0 < reference.ours[0] <= 1
    assert [row.published for row in others] == [316 / 87, 1474 / 87, 664 / 87]
    assert all(row.ours[0] > 0 for row in others)


def test_digits_of_another_shape_are_refused_with_what_was_expected(averaging: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FedSenseError, match=r"digits\.csv\.gz: rows have 10 columns, expected 784 grey values"):
        averaging.read_digits(digits(tmp_path, 5, 10))


def test_codecs_lose_what_their_quantizers_lose(anchors: ModuleType) -> None:
    rows = list(anchors.codec_rows(1, numbers=2**14))
    figures = [row for row in rows if isinstance(row.published, float)]
    assert len(figures) == 7
    assert all(row.ours[0] == pytest.approx(row.published, rel=0.04) for row in figures)
    bounds = [(float(row.published.split()[1]), row.ours[0]) for row in rows if isinstance(row.published, str)]
    assert len(bounds) == 2
    assert all(ours < bound for bound, ours in bounds)


def test_statlog_scores_the_test_part_by_what_the_training_part_says(anchors: ModuleType, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    y = np.arange(240) % 6
    x = 60 + 20 * np.eye(6)[y].repeat(6, 1).reshape(-1, 4, 3, 3) + generator.normal(size=(240, 4, 3, 3))
    np.savez(tmp_path / "set.npz", x=x, y=y, is_test=np.arange(240) >= 180)
    rows = list(anchors.statlog_rows(tmp_path / "set.npz"))
    assert [row.published for row in rows] == [83.7, 83.7, 82.9, 90.6, 90.6, 90.6, 90.6]
    assert all(row.ours == [100.0] for row in rows)


def test_an_anchor_without_its_file_says_how_to_give_it(anchors: ModuleType) -> None:
    with pytest.raises(ConfigError, match=r"'digits' reads a file: give it with --data"):
        anchors.rows_of("digits", None, 1)
