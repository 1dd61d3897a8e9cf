"""A probe waits for pyarrow where another thread, such as one of Ray's, is just importing it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SLOW = """
import time
time.sleep(2.0)
class Table: pass
RecordBatch = Array = ChunkedArray = Table
"""
PROBE = """
import sys, threading
import numpy, torch, sklearn.linear_model      # so that the probe itself is quick to import
import fedsense_core.errors
threading.Thread(target=__import__, args=("pyarrow",)).start()
while "pyarrow" not in sys.modules:
    pass
assert not hasattr(sys.modules["pyarrow"], "Table"), "it is whole too early: nothing is shown"
from fedsense_core.evaluation.probes import linear_predictions
x = numpy.random.default_rng(0).normal(size=(20, 3)).astype("float32")
print(len(linear_predictions(x, numpy.arange(20) % 2, x)))
"""


def test_a_probe_beside_a_half_imported_pyarrow(tmp_path: Path) -> None:
    (tmp_path / "pyarrow").mkdir()
    (tmp_path / "pyarrow" / "__init__.py").write_text(SLOW)
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{PROBE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "20"
