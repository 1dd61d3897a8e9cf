from __future__ import annotations

import pytest
from federation import Federation
from torch import Tensor

from fedsense_core.models.pretraining import build_model
from fedsense_core.tensors import TensorTable


@pytest.fixture(scope="session")
def table() -> TensorTable:
    """Coded tensors with and without filling, small ones between and after them, and an empty
    one."""
    shapes = {"a.weight": (40, 50), "a.bias": (40,), "b.weight": (3, 1024), "empty": (0, 7), "cls_token": (1, 1, 2000)}
    return TensorTable.from_shapes(shapes)


@pytest.fixture(scope="session")
def real_update(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, TensorTable]:
    """The mean update of a round of real local training by three tiny sites, and its table."""
    federation = Federation(tmp_path_factory.mktemp("real"), {"preset": "fedavg", "run.rounds": 1})
    federation.run()
    model = build_model(federation.config)
    table = TensorTable.of(model)
    return federation.state().weights - table.read(model), table
