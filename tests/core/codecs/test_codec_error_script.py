from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[3]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "docs/results/codec_error.py"), *arguments],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_prints_one_row_for_each_codec_and_input_and_none_is_far_above_its_target(tmp_path: Path) -> None:
    np.save(tmp_path / "update.npy", np.random.default_rng(0).standard_normal(5000))
    result = run("--seeds", "1", "--update", str(tmp_path / "update.npy"))
    assert result.returncode == 0, result.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines()[2:]]
    assert len(rows) == 11 * 6
    assert {len(row) for row in rows} == {8}
    synthetic = [float(row[6].removesuffix("%")) for row in rows if row[6] and row[3] != "update"]
    assert len(synthetic) == 5 * 5
    assert max(synthetic) <= 2
