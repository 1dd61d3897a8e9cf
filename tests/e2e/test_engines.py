"""Both engines of `fedsense run` do the same: equal bits of the encoder, equal metrics."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fedsense_core.run_folder import RunFolder

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
TIMES = ("seconds", "server_memory", "clients")


@pytest.mark.parametrize("preset", ["fedsense", "fedavg"])
def test_in_process_run_equals_flowers_simulation_bit_for_bit(
    preset: str, site_files: Path, settings: Mapping[str, object], environment: dict[str, str], tmp_path: Path
) -> None:
    runs = {}
    for engine in ("simulation", "in-process"):
        runs[engine] = RunFolder(tmp_path / engine)
        command = ["fedsense", "run", "--engine", engine, "--preset", preset, "--sites", str(site_files), "--cpus", "1"]
        command += ["--out", str(runs[engine].path), "--set", "run.report=false"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    one, other = (load_file(run.encoder / "model.safetensors") for run in runs.values())
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert metrics(runs["simulation"]) == metrics(runs["in-process"])


def metrics(run: RunFolder) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in TIMES} for line in run.read_metrics()]
