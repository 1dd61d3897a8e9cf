"""What must not grow with rounds, or with clients."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from federation import Federation
from large_frames import RESET, resident

from server_app.strategy import FedSense

ROOT = Path(__file__).parents[2]
ROUNDS, SETTLED = 500, 100
"""Rounds of the run, and after how many of them its caches and windows are full."""
SLACK = 4 << 20
"""Bytes by which an allocator's leftovers move resident memory up and down."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not RESET.exists(), reason="memory and open files are read where Linux keeps them"),
]


@dataclass(frozen=True)
class Held:
    """What the process of server and clients holds."""

    memory: int
    files: int
    disk: int
    """Bytes of the run folder and of what clients keep, without the line that each round adds."""
    disk_files: int

    @classmethod
    def now(cls, folder: Path) -> Held:
        """Measure, with what is no longer used given back."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        kept = [path for path in folder.rglob("*") if path.is_file() and path.name != "metrics.jsonl"]
        disk = sum(path.stat().st_size for path in kept)
        return cls(resident("VmRSS"), sum(1 for _ in Path("/proc/self/fd").iterdir()), disk, len(kept))


@pytest.mark.timeout(3600)
def test_hundreds_of_rounds_leave_memory_open_files_and_disk_as_they_were(
    federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    fed, held = federation(changes={"run.rounds": ROUNDS, "preset": "fedsense-plus"}), dict[int, Held]()
    run_round = FedSense.run_round

    def watched(self: FedSense, number: int, *rest: Any) -> Any:
        result = run_round(self, number, *rest)
        if number in (SETTLED, ROUNDS):
            held[number] = Held.now(fed.root)
        return result

    monkeypatch.setattr(FedSense, "run_round", watched)
    fed.run()
    first, last = held[SETTLED], held[ROUNDS]
    assert last.memory <= first.memory + SLACK
    assert last.files <= first.files
    assert last.disk_files == first.disk_files
    assert last.disk <= 1.01 * first.disk


@pytest.mark.timeout(1800)
def test_the_servers_peak_does_not_grow_with_clients() -> None:
    """45 MB of weights: what each client is sent in round 1."""
    script = ROOT / "docs/experiments/server_memory.py"
    settings = json.dumps({"model.architecture": "resnet18", "model.args": {"norm_layer": "groupnorm1"}})
    command = [sys.executable, str(script), "--clients", "2", "16", "--settings", settings]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "| 16 |" in result.stdout
