"""Real Flower processes on 127.0.0.1: two tiny sites, and the environment that programs run in."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from federation import write_site

SITES = ("alpha", "beta")
SETTINGS = {
    "run.rounds": 2,
    "run.evaluate_every": 0,
    "federation.labelled": "",
    "data.chip_size": 16,
    "data.view_size": 16,
    "train.local_steps": 2,
    "train.batch_size": 4,
    "distillation.steps": 1,
    "distillation.batch_size": 4,
}


@pytest.fixture
def site_files(tmp_path: Path) -> Path:
    """Return a folder with the site files of two institutions; ``public.toml`` lies beside it."""
    for seed, name in enumerate(SITES):
        write_site(tmp_path / "sites", name, seed)
    write_site(tmp_path, "public", 99)
    return tmp_path / "sites"


@pytest.fixture
def settings(site_files: Path) -> dict[str, str | int]:
    """Return the settings of a run of seconds."""
    return SETTINGS | {"federation.public": str(site_files.parent / "public.toml")}


@pytest.fixture
def environment() -> dict[str, str]:
    """Return an environment whose programs are those of the Python that runs the tests."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return dict(os.environ) | {"PATH": path, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def wait_until(is_so: Callable[[], bool], what: str, seconds: float = 240.0) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.2)


@pytest.fixture
def wait() -> Callable[..., None]:
    """Return ``wait_until``."""
    return wait_until
