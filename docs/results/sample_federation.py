"""Run the sample federation for several methods and seeds, and compare them in pairs.

Every cell is a normal run folder made by ``fedsense run``; a finished one is not run again. Prints a Markdown table:
linear probe on the shipped labelled set and, with ``--ucmerced``, on UC Merced (never used in training), bytes up, and
paired differences with a one-sided 95 % lower bound over seeds (Student's t).

    python docs/results/sample_federation.py OUT --seeds 5 --ucmerced t0_ucmerced_96px.npz
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from fedsense_core import load_encoder
from fedsense_core.evaluation import embed, linear_scores
from fedsense_core.reporting import RunFolder

METHODS = {
    "fedsense": "fedsense, 1 bit up, 4 down",
    "fedsense-fp32": "fedsense, 32 bits both ways",
    "fedavg": "FedAvg, 32 bits both ways",
}
PAIRS = [("fedsense", "fedsense-fp32"), ("fedsense-fp32", "fedavg"), ("fedsense", "fedavg")]
SPLITS = 3
"""Random halves of UC Merced over which a probe is averaged; the same for every encoder."""


@dataclass(frozen=True)
class Cell:
    """One method and seed."""

    ucmerced: float
    """Overall accuracy; NaN without the data."""
    shipped: float
    """Macro F1 on the shipped labelled set."""
    random: float
    """The same with the untrained encoder."""
    standard_error: float
    bytes_up: int
    seconds: float


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the run folders")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="presets")
    parser.add_argument("--ucmerced", type=Path, help="npz with x (n, 3, H, W) uint8 and y")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of every run")
    args = parser.parse_args()
    cells = {}
    for seed in range(args.seeds):
        for method in args.methods:
            run = ensure_run(args.out, method, seed, args.set)
            cells[method, seed] = read_cell(run, args.ucmerced)
            print(f"<!-- {method} seed {seed}: {cells[method, seed]} -->", flush=True)
    print_tables(cells, args.methods, args.seeds)


def ensure_run(out: Path, method: str, seed: int, settings: list[str]) -> RunFolder:
    """Run one cell unless it is finished."""
    folder = (out / f"{method}-seed{seed}").resolve()
    if not RunFolder(folder).is_finished:
        began = time.monotonic()
        command = ["fedsense", "run", "--preset", method, "--seed", str(seed), "--out", str(folder)]
        for setting in settings:
            command += ["--set", setting]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (folder / "wall.json").write_text(json.dumps({"seconds": time.monotonic() - began}))
    return RunFolder(folder)


def read_cell(run: RunFolder, ucmerced: Path | None) -> Cell:
    """Collect the figures of a finished run."""
    lines = run.read_metrics()
    probe, untrained = lines[-1]["probe"], lines[0]["probe"]
    wall = run.path / "wall.json"
    return Cell(
        ucmerced=probe_ucmerced(run, ucmerced) if ucmerced else float("nan"),
        shipped=probe["linear_macro_f1"],
        random=untrained["linear_macro_f1"],
        standard_error=probe["linear_macro_f1_se"],
        bytes_up=sum(line.get("bytes_up", 0) for line in lines),
        seconds=json.loads(wall.read_text())["seconds"] if wall.exists() else float("nan"),
    )


def probe_ucmerced(run: RunFolder, path: Path) -> float:
    """Return the overall accuracy of a linear probe on frozen features, mean over fixed random halves; cached."""
    kept = run.path / "ucmerced.json"
    if kept.exists():
        return float(json.loads(kept.read_text())["accuracy"])
    accuracy = ucmerced_accuracy(load_encoder(run.encoder), path)
    kept.write_text(json.dumps({"accuracy": accuracy}))
    return accuracy


def ucmerced_accuracy(encoder: torch.nn.Module, path: Path) -> float:
    """Embed the whole set once at its own size and probe fixed halves of it."""
    data = np.load(path)
    x = data["x"].astype(np.float32)
    mean, deviation = x.mean((0, 2, 3), keepdims=True), x.std((0, 2, 3), keepdims=True)
    features, labels = embed(encoder, torch.from_numpy((x - mean) / deviation)), data["y"].astype(np.int64)
    scores = []
    for split in range(SPLITS):
        order = np.random.default_rng(split).permutation(len(labels))
        train, test = np.split(order, [len(order) // 2])
        scores.append(linear_scores(features[train], labels[train], features[test], labels[test]).accuracy)
    return float(np.mean(scores))


def lower_bound(differences: np.ndarray) -> float:
    """Return the one-sided 95 % lower bound of the mean of paired differences."""
    n = len(differences)
    if n < 2:
        return float("nan")
    return float(differences.mean() - stats.t.ppf(0.95, n - 1) * differences.std(ddof=1) / np.sqrt(n))


def print_tables(cells: dict[tuple[str, int], Cell], methods: list[str], seeds: int) -> None:
    """Print a table of methods and one of pairs."""
    print("\n| method | UC Merced, linear, OA | shipped set, linear, macro F1 | random weights | MB up | s a run |")
    print("|---|---|---|---|---|---|")
    for method in methods:
        rows = [cells[method, seed] for seed in range(seeds)]
        texts = [spread([getattr(row, key) for row in rows]) for key in ("ucmerced", "shipped", "random")]
        megabytes, seconds = rows[0].bytes_up / 1e6, np.nanmedian([row.seconds for row in rows])
        print(f"| {METHODS.get(method, method)} | {' | '.join(texts)} | {megabytes:.2f} | {seconds:.0f} |")
    print(f"\nMean ± deviation over {seeds} seeds.\n")
    print(
        "| pair, same seeds | UC Merced, points | 95 % lower bound | shipped set, points | 95 % lower bound | bytes up |"
    )
    print("|---|---|---|---|---|---|")
    for a, b in PAIRS:
        if a in methods and b in methods:
            print(f"| {a} minus {b} | {pair_text(cells, a, b, seeds)} |")


def pair_text(cells: dict[tuple[str, int], Cell], a: str, b: str, seeds: int) -> str:
    """Return differences and bounds of one pair in percentage points, and the ratio of bytes."""
    texts = []
    for key in ("ucmerced", "shipped"):
        pairs = [(getattr(cells[a, s], key), getattr(cells[b, s], key)) for s in range(seeds)]
        differences = 100 * np.array([x - y for x, y in pairs])
        texts += [f"{differences.mean():+.2f}", f"{lower_bound(differences):+.2f}"]
    return " | ".join([*texts, f"{cells[b, 0].bytes_up / cells[a, 0].bytes_up:.1f} times fewer"])


def spread(values: list[float]) -> str:
    """Return mean ± deviation."""
    deviation = np.std(values, ddof=1) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.3f} ± {deviation:.3f}"


if __name__ == "__main__":
    main()
