"""Time a local step under each guidance, as a ratio to none in the same run.

The kinds take turns, so a machine that slows down slows all of them. Imagery, model and settings
are the sample's.

    python docs/experiments/guidance_cost.py --repeats 15
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from client_app.training import Start, train_locally
from fedsense_core.config import resolve
from fedsense_core.data.batches.feeding import batches_of
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.data.sites.locations import sample_sites
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.replica import Replica
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.tensors import TensorTable

KINDS = ("none", "shift", "mixed", "sam", "sam-every-k")


def main() -> None:
    """Print a Markdown table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--steps", type=int, default=5, help="local steps timed at once (default: 5)")
    parser.add_argument("--recipe", default="simclr", choices=["simclr", "mae"])
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for repeat in range(args.repeats + 1):
        for kind in KINDS:
            taken = time_steps(kind, args.steps, args.recipe)
            if repeat:  # the first turn warms up
                seconds[kind].append(taken)
    print("| guidance | median s a step | ratio to none, median (min to max over turns) |\n|---|---|---|")
    for kind in KINDS:
        ratios = [a / b for a, b in zip(seconds[kind], seconds["none"], strict=True)]
        median = statistics.median(seconds[kind]) / args.steps
        print(f"| {kind} | {median:.3f} | {statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f}) |")


def time_steps(kind: str, steps: int, recipe: str) -> float:
    """Return the seconds of one round of local training, set-up of the shift included."""
    config = resolve({"guidance.kind": kind, "train.local_steps": steps, "train.recipe": recipe, "data.view_size": 48})
    model = build_model(config).to(memory_format=torch.channels_last)
    table = TensorTable.of(model)
    chips = open_chips(load_site(sample_sites()[0]), config.data.bands, config.data.chip_size, None)
    momentum = torch.randn(table.numel, generator=torch.Generator().manual_seed(0))
    start = Start(2, Replica(2, table.read(model), momentum), torch.full((len(table),), 0.01), seed=0)
    batches = batches_of(chips, config.train.batch_size, torch.Generator().manual_seed(0))
    first = [next(batches) for _ in range(steps)]
    began = time.perf_counter()
    train_locally(config, model, table, build_recipe(config), iter(first), start)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
