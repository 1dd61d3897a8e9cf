"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
# Before torch is imported. A second thread saves nothing on networks as small as these, and where
# something else has the other core, waiting for it takes ten times as long (measured on 2 cores).
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("COLUMNS", None)  # processes of pytest-xdist have one, and rich keeps what it finds at import

import pytest
from federation import Federation

pytest_plugins = ["made_up_run"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with real processes: they mostly wait, and at the end nothing would be done beside."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep each file in one process, so that what its tests share is made once, and the order."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.fixture(autouse=True, scope="session")
def _no_sync() -> Iterator[None]:
    """Do not wait for the disk: no test cuts the power, and it takes a third of a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Callable[..., Federation]:
    """Return a maker of tiny federations below ``tmp_path``; ``name`` tells several apart."""

    def make(name: str = "one", **kwargs: Any) -> Federation:
        return Federation(tmp_path / name, **kwargs)

    return make
