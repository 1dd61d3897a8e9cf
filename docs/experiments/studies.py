"""Accuracy against skew, the number of clients, local steps and bits: one table and one plot a
study, docs/studies.md.

    python docs/experiments/studies.py skew --out studies --data ucmerced=UCMERCED
    python docs/experiments/studies.py clients --out studies --data ucmerced=UCMERCED
    python docs/experiments/studies.py local-steps --out studies --data ucmerced=UCMERCED
    python docs/experiments/studies.py bits --out studies --data ucmerced=UCMERCED

UCMERCED is the folder that ucmerced_folder.py writes; without it the shipped tasks alone are done.
A study is a benchmark in OUT/NAME whose compressions are the values of its axis. The same command
goes on where it stopped. Network, views, training and tasks are those of matrix/reduced.toml where
the study does not change them. Exit status: that of ``fedsense benchmark``.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from studies_output import Point, write_study

from fedsense_core.errors import ConfigError, FedSenseError
from fedsense_core.run_folder.folder import read_json
from fedsense_core.tools.benchmark.manifest import Manifest
from fedsense_core.tools.benchmark.matrix import Matrix
from fedsense_core.tools.benchmark.trials import check_trials, trials_of
from fedsense_core.tools.cli.benchmark_command import DONE, Benchmark, Choices, parse_data, run_benchmark, write_tables

REDUCED = Path(__file__).parent / "matrix" / "reduced.toml"
TASKS = ("ucmerced", "scenes", "segments")
"""Of reduced.toml: those that take seconds."""
CANNOT_START = 2
SHIPPED = (
    {"name": "fedavg", "label": "fedavg, 32 bits both ways"},
    {"name": "fedavg-public", "label": "fedavg-public, 32 bits both ways"},
    {"name": "fedsense", "label": "fedsense, 1 bit up, 4 down"},
)
"""The presets as they are, each at its own bits."""
SKEW_CLIENTS, SKEW_STEPS = 8, 6
"""48 steps a round of all clients together, where the five sites of reduced.toml make 50."""
CLIENT_ROUNDS, CLIENT_STEPS, CLIENT_BATCH = 6, 192, 12
"""Rounds, steps a round of all clients together, and a batch that the 13 chips of the smallest of
64 shares can fill: the imagery is gone through 16 times, whoever holds it. 64 clients cost ten
seconds a round, whatever they train."""
LOCAL_TOTAL = 100
"""Steps of each client in the whole run: the least that 1, 5, 10, 20 and 50 divide. A round costs a
second besides."""
TRELLIS = {"uplink.codec": "trellis", "downlink.codec": "trellis"}


@dataclass(frozen=True)
class Study:
    """One axis and what is run along it."""

    title: str
    axis: str
    """Under the plot, and over the first column of the table."""
    points: tuple[Point, ...]
    settings: Mapping[str, Any]
    """At every point, above those of reduced.toml."""
    methods: tuple[Mapping[str, Any], ...] = SHIPPED
    reference: str = "fedavg"
    """As ``compare`` of a matrix."""


def _skew() -> Study:
    points = (Point(str(alpha), {"partition.alpha": alpha}, alpha) for alpha in (0.05, 0.2, 1.0, 10.0))
    settings = {
        "partition.kind": "dirichlet",
        "partition.clients": SKEW_CLIENTS,
        "train.local_steps": SKEW_STEPS,
    }
    return Study(f"Accuracy against skew, {SKEW_CLIENTS} clients", "α of the Dirichlet split", tuple(points), settings)


def _clients() -> Study:
    splits: dict[str, dict[str, Any]] = {
        "iid": {"partition.kind": "iid"},
        "dirichlet": {"partition.kind": "dirichlet", "partition.alpha": 0.5},
    }
    points = tuple(
        Point(
            f"{name}-{clients}",
            {**split, "partition.clients": clients, "train.local_steps": CLIENT_STEPS // clients},
            clients,
            "shares drawn at random" if name == "iid" else "shares of a Dirichlet split, α = 0.5",
        )
        for name, split in splits.items()
        for clients in (2, 4, 8, 16, 32, 64)
    )
    settings = {"train.batch_size": CLIENT_BATCH, "run.rounds": CLIENT_ROUNDS}
    return Study("Accuracy against the number of clients", "clients that share the imagery", points, settings)


def _local_steps() -> Study:
    points = tuple(
        Point(
            str(steps),
            # The server's steps too: as many in all, however many rounds they are spread over.
            {"train.local_steps": steps, "distillation.steps": steps, "run.rounds": LOCAL_TOTAL // steps},
            steps,
        )
        for steps in (1, 5, 10, 20, 50)
    )
    return Study(f"Accuracy against local steps, {LOCAL_TOTAL} in all", "local steps a round", points, {})


def _bits() -> Study:
    down = {"downlink.codec": "eden", "downlink.bits": 4}
    coded = [
        Point(str(bits), {"uplink.codec": "eden", "uplink.bits": bits, "uplink.feedback": True, **down}, bits)
        for bits in (1, 2, 3, 4, 8)
    ]
    plain = {"uplink.codec": "none", "uplink.feedback": False}
    points = (
        *coded,
        Point("32", {**plain, **down}, 32),
        Point("full", {**plain, "downlink.codec": "none"}, label="32 bits both ways"),
    )
    trellis = {str(bits): TRELLIS for bits in (1, 2, 3, 4)} | {"32": {"downlink.codec": "trellis"}}
    methods = (
        {"name": "fedavg", "compressions": ["full"]},
        {"name": "fedsense"},
        {
            "name": "trellis",
            "preset": "fedsense",
            "label": "fedsense, trellis and prediction",
            "settings": {"uplink.prediction": True},
            "compressions": list(trellis),
            "by_compression": trellis,
        },
    )
    return Study("Accuracy against bits up, 4 bits down", "bits a parameter up", points, {}, methods, "fedavg@full")


STUDIES = {"skew": _skew(), "clients": _clients(), "local-steps": _local_steps(), "bits": _bits()}


def matrix_of(study: Study, seeds: int, with_ucmerced: bool) -> Matrix:
    """Return the benchmark of a study: a compression for each point, seeds 0, 1, ..., and random
    weights beside them.

    Raises ConfigError where the settings of a trial are wrong.
    """
    reduced = tomllib.loads(REDUCED.read_text(encoding="utf-8"))
    tasks = {name: reduced["tasks"][name] for name in TASKS if with_ucmerced or name != "ucmerced"}
    if not with_ucmerced:
        tasks["scenes"] |= {"weight": 1.0}  # no longer half of a task of two parts
    settings = {**_nested(reduced["settings"]), **study.settings}
    matrix = Matrix.model_validate(
        {
            "title": study.title,
            "trial_timeout_s": reduced["trial_timeout_s"],
            "seeds": list(range(seeds)),
            "compare": [study.reference],
            "methods": [dict(method) for method in study.methods],
            "settings": settings,
            "compressions": {point.compression: dict(point.settings) for point in study.points},
            "tasks": tasks,
            "controls": {"random": reduced["controls"]["random"]},
        }
    )
    check_trials(matrix, trials_of(matrix))
    return matrix


def _nested(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, table in tables.items() for key, value in table.items()}


def run_study(name: str, out: Path, seeds: int, choices: Choices, tables_only: bool, console: Console) -> int:
    """Run what is left of a study, then write its table and its plot. Returns the status of
    ``fedsense benchmark``.

    Raises FedSenseError where nothing can start, or nothing is there to be shown.
    """
    if unknown := sorted({*choices.data} - {"ucmerced"}):
        raise ConfigError(f"--data {unknown[0]}=...: a study reads ucmerced alone, such as --data ucmerced=PATH")
    study, folder = STUDIES[name], out / name
    matrix = matrix_of(study, seeds, "ucmerced" in choices.data)
    manifest = Manifest.open(folder.expanduser().absolute())
    benchmark = Benchmark(matrix, trials_of(matrix), manifest, REDUCED.parent, choices)
    status = DONE
    if tables_only:
        write_tables(benchmark, console)
    else:
        status = run_benchmark(benchmark, console)
    if summary := read_json(manifest.folder / "summary.json"):
        for path in write_study(summary, study.points, study.axis, manifest.folder / name):
            console.print(str(path), highlight=False)
    return status


def main(words: Sequence[str] | None = None) -> int:
    """Do one study. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(STUDIES))
    parser.add_argument("--out", type=Path, required=True, help="folder of all studies")
    parser.add_argument(
        "--seeds", type=int, default=3, choices=range(1, 101), metavar="N", help="seeds 0, 1, ... (default: 3)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time, a core each (default: 2)")
    parser.add_argument("--limit-minutes", type=float, default=150.0, help="when to stop (default: 150)")
    parser.add_argument("--data", action="append", default=[], metavar="ucmerced=PATH", help="folder of UC Merced")
    parser.add_argument(
        "--tables-only", action="store_true", help="table and plot of what is done, with the same --data"
    )
    options = parser.parse_args(words)
    try:
        choices = Choices(options.jobs, options.limit_minutes, data=parse_data(options.data))
        return run_study(options.name, options.out, options.seeds, choices, options.tables_only, Console())
    except FedSenseError as error:
        print(f"error: {error}", file=sys.stderr)
        return CANNOT_START


if __name__ == "__main__":
    sys.exit(main())
