"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

import pytest
from federation import Federation

pytest_plugins = ["made_up_run"]


@pytest.fixture
def federation(tmp_path: Path) -> Callable[..., Federation]:
    """Return a maker of tiny federations below ``tmp_path``; ``name`` tells several apart."""

    def make(name: str = "one", **kwargs: Any) -> Federation:
        return Federation(tmp_path / name, **kwargs)

    return make
