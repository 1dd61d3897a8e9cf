from __future__ import annotations

import pytest

from fedsense_core.tensors import TensorTable


@pytest.fixture(scope="session")
def table() -> TensorTable:
    """Coded tensors with and without filling, small ones between and after them, and an empty one."""
    shapes = {"a.weight": (40, 50), "a.bias": (40,), "b.weight": (3, 1024), "empty": (0, 7), "cls_token": (1, 1, 2000)}
    return TensorTable.from_shapes(shapes)
