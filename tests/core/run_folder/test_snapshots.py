"""Kept models come back bit for bit, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedsense_core.errors import CheckpointError
from fedsense_core.run_folder.snapshots import Snapshots, write_snapshots
from fedsense_core.tensors import TensorTable

TABLE = TensorTable.from_shapes({"w": (2, 2), "b": (2,)})
SITES = ["a/b", "a_b", "Ünï"]


def vector(seed: int) -> Tensor:
    return torch.randn(6, generator=torch.Generator().manual_seed(seed))


def keep(folder: Path) -> None:
    write_snapshots(
        folder, TABLE, start=vector(8), final=vector(9), clients=((s, vector(i)) for i, s in enumerate(SITES))
    )


def test_every_model_comes_back_under_its_own_name(tmp_path: Path) -> None:
    keep(tmp_path / "models")
    kept = Snapshots(tmp_path / "models", TABLE)
    assert torch.equal(kept.start(), vector(8))
    assert torch.equal(kept.final(), vector(9))
    assert [site for site, _ in kept.clients()] == SITES
    assert all(torch.equal(w, vector(i)) for i, (_, w) in enumerate(kept.clients()))
    assert len(kept) == 3


def test_a_failure_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[str, Tensor]]:
        yield "a", vector(0)
        raise OSError("disk full")

    for _ in range(2):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(OSError, match="disk full"):
            write_snapshots(tmp_path / "models", TABLE, start=vector(1), final=vector(2), clients=failing())
        assert sorted(tmp_path.rglob("*")) == before
        keep(tmp_path / "models")


def test_models_of_another_network_are_refused(tmp_path: Path) -> None:
    keep(tmp_path / "models")
    other = TensorTable.from_shapes({"w": (4,), "b": (2,)})
    with pytest.raises(CheckpointError, match="another model than"):
        Snapshots(tmp_path / "models", other).final()


@pytest.mark.parametrize("size", [0, 20])
def test_a_torn_file_is_named(tmp_path: Path, size: int) -> None:
    keep(tmp_path / "models")
    path = tmp_path / "models" / "global.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"global\.safetensors cannot be read"):
        Snapshots(tmp_path / "models", TABLE).final()
