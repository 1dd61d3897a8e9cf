"""CPU time of the mean with each update clipped to the round's median norm, over that without.

    OMP_NUM_THREADS=1 python docs/experiments/clip_time.py

Prints a Markdown table: the least of repetitions in turn, which other programs disturb least.
Frames lie on disk, as admission leaves them. Exits with 1 where the clip takes more than 1.1 times
as long.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import torch
from federation import tiny
from spooled import spooled
from torch import Tensor

from fedsense_core.tensors import TensorTable
from server_app.aggregation.clipping import clipped_to_median
from server_app.aggregation.rule import weighted_mean

ALLOWED = 1.1
ROW = 1024
"""Parameters of a row of the one matrix that stands for the model."""
KINDS: dict[str, dict[str, Any]] = {
    "eden, 1 bit": {"uplink__codec": "eden", "uplink__bits": 1},
    "trellis, 1 bit": {"uplink__codec": "trellis", "uplink__bits": 1},
    "float32 updates": {"uplink__codec": "none", "uplink__feedback": False},
    "float32 models": {"preset": "fedavg"},
}


def seconds(work: Callable[[], Tensor]) -> float:
    """Return the CPU seconds of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> int:
    """Measure each kind of frame."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--parameters", type=int, default=6_000_000)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    shape = (options.parameters // ROW, ROW)
    table, slowest = TensorTable.from_shapes({"weight": shape}), 0.0
    print(f"{options.clients} clients, {table.numel:,} parameters\n")
    print("| frames | mean, s | clipped, s | ratio |\n|---|---|---|---|")
    for name, changes in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            generator = torch.Generator().manual_seed(0)
            updates = [(1 + i) * torch.randn(table.numel, generator=generator) for i in range(options.clients)]
            replies = spooled(Path(folder), updates, tiny(**changes), table=table)
            weighted_mean(replies)  # what the first use of any code compiles and loads is nobody's
            pairs = [
                (seconds(lambda: weighted_mean(replies)), seconds(lambda: weighted_mean(clipped_to_median(replies))))  # noqa: B023
                for _ in range(options.repetitions)
            ]
        plain, clip = (min(times) for times in zip(*pairs, strict=True))
        slowest = max(slowest, clip / plain)
        print(f"| {name} | {plain:.3f} | {clip:.3f} | {clip / plain:.2f} |", flush=True)
    return 0 if slowest <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
