from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from large_frames import RESET
from mutations import MUTATIONS

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs/experiments/fuzz_frames.py"
IMPATIENT = """
import runpy, sys
script, tests, *arguments = sys.argv[1:]
sys.path.insert(0, tests)
import judging
judging.SLOWEST = 0.0  # nothing is judged in no time
sys.argv = [script, *arguments]
runpy.run_path(script, run_name="__main__")
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not RESET.exists(), reason="the high-water mark can be set back on Linux alone"),
]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command, "--frames", "1000", "--blocks", "0"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_prints_what_became_of_every_mutation() -> None:
    result = run(str(SCRIPT))
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines() if "|" in line]
    judged = {row[0]: int(row[1]) + int(row[2]) for row in rows if row[0] in MUTATIONS}
    assert rows[0] == ["mutation", "Accepted", "Rejected"]
    assert set(judged) == set(MUTATIONS)
    assert sum(judged.values()) == 1000
    assert result.stdout.endswith("No violation.\n")
    assert "1,000 of 1,000 frames" in result.stderr


def test_the_script_fails_where_a_promise_is_broken() -> None:
    result = run("-c", IMPATIENT, str(SCRIPT), str(ROOT / "tests"))
    assert result.returncode == 1, result.stdout + result.stderr
    assert "VIOLATION" in result.stdout
