"""A checkpoint gives back what it was given, or says that it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fedsense_core.errors import CheckpointError
from server_app.checkpoints import FORMAT, MANIFEST, Checkpoints

STATE: dict[str, Any] = {
    "round": 3,
    "moved": True,
    "weights": torch.arange(4.0),
    "admission": {"norms": [1.5, 2.0]},
    "broadcaster": {"replica": {"version": 3, "weights": torch.ones(4)}, "frames": {"3": torch.ones(5).byte()}},
    "outer": {},
    "sites": {"a/b": torch.zeros(2), "tensor": "a word", "odd": {"tensor": {"tensor": 1}}},
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and bool(a == b)


def test_state_comes_back_whole(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "digest")
    assert checkpoints.newest() is None
    checkpoints.save(3, STATE)
    assert same(checkpoints.newest(), STATE)
    assert same(checkpoints.of_round(3), STATE)


def test_oldest_checkpoints_go(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "digest", keep=2)
    for number in (1, 2, 3):
        checkpoints.save(number, STATE | {"round": number})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-000002", "round-000003"]


def test_an_edited_number_counts_as_damage(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "digest")
    for number in (1, 2):
        checkpoints.save(number, STATE | {"round": number})
    path = tmp_path / "round-000002" / MANIFEST
    path.write_text(path.read_text().replace("1.5", "9.5"))
    found = checkpoints.newest()
    assert found is not None
    assert found["round"] == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [({"format": FORMAT - 1}, "has format"), ({"config_digest": "other"}, "with another configuration")],
)
def test_checkpoint_of_another_release_or_run_is_refused_and_says_what_to_do(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    checkpoints = Checkpoints(tmp_path, "digest")
    path = checkpoints.save(1, STATE) / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=rf"{problem}.*run\.folder"):
        checkpoints.newest()
