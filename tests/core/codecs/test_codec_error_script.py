from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]

pytestmark = pytest.mark.slow


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "docs/experiments/codec_error.py"), *arguments],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_prints_one_row_for_each_codec_and_input_and_draws_them(tmp_path: Path) -> None:
    result = run("--seeds", "1", "--codecs", "eden", "trellis, L = 8", "--plot", str(tmp_path / "plot.png"))
    assert result.returncode == 0, result.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines()[2:]]
    assert len(rows) == (8 + 3 + 3 + 4 + 3 + 3) * 5  # widths, unbiased and water-filling of both, on five inputs
    assert {len(row) for row in rows} == {6}
    times_the_limit = {row[0]: float(row[5]) for row in rows if row[1] == "normal"}
    assert 1 < times_the_limit["trellis, L = 8, 1 bit"] < times_the_limit["eden, 1 bit"] < 1.6
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
