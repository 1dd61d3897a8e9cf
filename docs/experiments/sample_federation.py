"""Run the sample federation for several methods and seeds, and compare them in pairs.

Every cell is a normal run folder made by ``fedsense run``; a finished one is not run again. Prints
Markdown tables: linear probes on the shipped labelled set and, with ``--ucmerced``, on UC Merced
(never used in training), beside the random weights that each run started from; bytes; paired
differences with a one-sided 95 % lower bound (Student's t).

    python docs/experiments/sample_federation.py OUT --seeds 5 --ucmerced t0_ucmerced_96px.npz
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from fedsense_core import load_encoder
from fedsense_core.config import Config
from fedsense_core.data.chips.labelled import load_labelled
from fedsense_core.data.sites.locations import sample_labelled
from fedsense_core.evaluation.embedding import embed
from fedsense_core.evaluation.probes import linear_predictions, linear_scores
from fedsense_core.evaluation.scores import paired_lift, score
from fedsense_core.models.pretraining import build_model
from fedsense_core.run_folder import RunFolder

METHODS = {
    "fedsense": "fedsense, 1 bit up, 4 down",
    "fedsense-plus": "fedsense-plus, 1 bit up, 4 down",
    "fedsense-fp32": "fedsense, 32 bits both ways",
    "fedavg": "FedAvg, 32 bits both ways",
}
PAIRS = [
    ("fedsense", "fedsense-fp32"),
    ("fedsense-fp32", "fedavg"),
    ("fedsense", "fedavg"),
    ("fedsense-plus", "fedsense"),
    ("fedsense-plus", "fedsense-fp32"),
    ("fedsense-plus", "fedavg"),
]
VIEW_SIZE = 48
"""Pixels to which shipped chips are enlarged: the size of the views in training."""
SPLITS = 3
"""Random halves of UC Merced over which a probe is averaged; the same for every encoder."""


@dataclass(frozen=True)
class Cell:
    """One method and seed; all probes are linear, on frozen features."""

    ucmerced: float
    """Overall accuracy on UC Merced; NaN without the data."""
    ucmerced_random: float
    """The same of the encoder that the run started from."""
    shipped: float
    """Macro F1 on the shipped labelled set, each chip standardised by itself."""
    shipped_random: float
    lift_error: float
    """Standard error of the difference of the two before, from resampled groups of chips."""
    colour: float
    """Macro F1 on the shipped labelled set with its colours."""
    colour_random: float
    bytes_up: int
    bytes_down: int
    seconds: float
    """Wall time of the whole command."""
    peak_bytes: int
    """Memory of all its processes together at the highest, seen every two seconds."""


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
        process, peak = subprocess.Popen(command, stdout=subprocess.DEVNULL), 0
        while process.poll() is None:
            peak = max(peak, proportional_memory(process.pid))
            time.sleep(2)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed with status {process.returncode}")
        (folder / "wall.json").write_text(json.dumps({"seconds": time.monotonic() - began, "peak_bytes": peak}))
    return RunFolder(folder)


def proportional_memory(pid: int) -> int:
    """Return the bytes of a process and all below it, shared pages divided among their users
    (Linux; else 0)."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        with suppress(OSError, ValueError):
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
            total += sum(1024 * int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
            for thread in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
    return total


def read_cell(run: RunFolder, ucmerced: Path | None) -> Cell:
    """Probe the exported encoder of a finished run and the one it started from; kept in the run
    folder."""
    kept = run.path / "cell.json"
    if kept.exists():
        return Cell(**json.loads(kept.read_text()))
    lines, wall = run.read_metrics(), run.path / "wall.json"
    trained, untrained = load_encoder(run.encoder), build_model(Config(**run.read_config())).encoder.eval()
    shipped, colour = (shipped_lift(trained, untrained, kind) for kind in ("chip", "set"))
    cell = Cell(
        ucmerced=ucmerced_accuracy(trained, ucmerced) if ucmerced else float("nan"),
        ucmerced_random=ucmerced_accuracy(untrained, ucmerced) if ucmerced else float("nan"),
        shipped=shipped[0],
        shipped_random=shipped[1],
        lift_error=shipped[2],
        colour=colour[0],
        colour_random=colour[1],
        bytes_up=sum(line.get("bytes_up", 0) for line in lines),
        bytes_down=sum(line.get("bytes_down", 0) for line in lines),
        **(json.loads(wall.read_text()) if wall.exists() else {"seconds": float("nan"), "peak_bytes": 0}),
    )
    kept.write_text(json.dumps(asdict(cell)))
    return cell


def shipped_lift(trained: torch.nn.Module, untrained: torch.nn.Module, kind: str) -> tuple[float, float, float]:
    """Return macro F1 of both encoders on the shipped labelled set and the standard error of their
    difference."""
    labelled = load_labelled(sample_labelled(), ("red", "green", "blue"), kind)  # type: ignore[arg-type]
    train, test = labelled.train, labelled.test
    truth, predicted = test.labels.numpy(), []
    for encoder in (trained, untrained):
        train_f, test_f = (embed(encoder, part.values, size=VIEW_SIZE) for part in (train, test))
        predicted.append(linear_predictions(train_f, train.labels.numpy(), test_f))
    _, error = paired_lift(truth, *predicted, test.groups.numpy())
    return score(truth, predicted[0]).macro_f1, score(truth, predicted[1]).macro_f1, error


def ucmerced_accuracy(encoder: torch.nn.Module, path: Path) -> float:
    """Return the mean overall accuracy over fixed random halves; chips keep their own size."""
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
    """Print a table of methods, one of lifts and one of pairs."""
    print("\n| method | UC Merced, OA | shipped set, F1 | with its colours | MB up | MB down | s a run | GiB at most |")
    print("|---|---|---|---|---|---|---|---|")
    for method in methods:
        rows = [cells[method, seed] for seed in range(seeds)]
        texts = [spread([getattr(row, key) for row in rows]) for key in ("ucmerced", "shipped", "colour")]
        peak = max(row.peak_bytes for row in rows) / 2**30
        costs = f"{rows[0].bytes_up / 1e6:.2f} | {rows[0].bytes_down / 1e6:.1f}"
        print(
            f"| {METHODS.get(method, method)} | {' | '.join(texts)} | {costs} | {median_seconds(rows)} | {peak:.1f} |"
        )
    untrained = [cells[methods[0], seed] for seed in range(seeds)]
    keys = ("ucmerced_random", "shipped_random", "colour_random")
    texts = [spread([getattr(row, key) for row in untrained]) for key in keys]
    print(f"| random weights | {' | '.join(texts)} | | | | |")
    print(f"\nMean ± deviation over {seeds} seeds.\n")
    print_lifts(cells, methods, seeds)
    print("| pair, same seeds | UC Merced, points | 95 % bound | shipped set, points | 95 % bound | bytes up |")
    print("|---|---|---|---|---|---|")
    for a, b in PAIRS:
        if a in methods and b in methods:
            print(f"| {a} minus {b} | {pair_text(cells, a, b, seeds)} |")


def print_lifts(cells: dict[tuple[str, int], Cell], methods: list[str], seeds: int) -> None:
    """Print how far training lifts the shipped set above the same encoder's random weights."""
    print("| method | lift of macro F1, shipped set | in standard errors of one run (by seed) |\n|---|---|---|")
    for method in methods:
        rows = [cells[method, seed] for seed in range(seeds)]
        lifts = [row.shipped - row.shipped_random for row in rows]
        errors = [f"{lift / row.lift_error:.1f}" for lift, row in zip(lifts, rows, strict=True)]
        print(f"| {method} | {spread(lifts)} | {', '.join(errors)} |")
    print()


def median_seconds(rows: list[Cell]) -> str:
    """Return the median wall time with its range."""
    seconds = [row.seconds for row in rows]
    return f"{np.median(seconds):.0f} ({min(seconds):.0f} to {max(seconds):.0f})"


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
