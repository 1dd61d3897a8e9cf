"""How often rounds raise an alarm: honest ones of mixed sensors, and attacked ones.

Made-up updates (`tests/attacks.py`) go over grids of clients, likeness and spread of norms, with
and without the clip. With ``--sample`` the five sites of the sample train, too, as they are and
with one that turns its update around, inside the norm limit.

    OMP_NUM_THREADS=1 python docs/experiments/alarm_rates.py --sample alarms

Prints a Markdown table of alarmed rounds by seed. A round counts as alarmed where an attacker is
named; an honest one where anybody is. Exits with 1 where fewer than 90 % of the rounds of an attack
that drives the mean are alarmed, or more than 1 % of honest ones. Runs in the folder of
``--sample`` that are finished are not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import attackers
import attacks
from alarm_trials import alarmed
from attacks import Attack, Cohort
from flwr.supercore.task_identity import TaskIdentity

from fedsense_core.config import resolve
from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.runner.in_process_grid import RUN_ID, SERVER_NODE
from server_app.session import run_session

LEAST_ATTACKED, MOST_HONEST = 0.9, 0.01
CLIPS = ("median", "none")
HONEST_GRID = tuple(itertools.product((3, 5, 8, 20), (0.01, 0.05, 0.2, 0.5), (0.03, 0.1, 0.2)))
"""Clients, likeness, spread of norms."""
ATTACKED_GRID = tuple(
    itertools.product(
        ((5, 1), (10, 1), (10, 2), (10, 4), (30, 3), (30, 6), (30, 12)), (0.01, 0.05, 0.3), (3.0, 6.0, 9.0)
    )
)
"""Clients and attackers, likeness, and the norm that is let in, in honest norms."""
SUBTLE: dict[str, Attack] = {
    "flip, honest norm": attacks.flip(1),
    "the mean turned around, honest norm": attacks.flip_mean(),
    "constant, honest norm": attacks.constant(1),
    "little is enough": attacks.little_is_enough(1),
    "echo of the mean": attacks.echo(),
    "nothing": attacks.free_rider(),
}
"""With honest norms: they drive less than any clipped update may."""
PRESETS = ("fedavg", "fedsense", "fedsense-plus")
SAMPLE_SITES = 5
SAMPLE: dict[str, Any] = {
    **{
        key: value
        for key, value in attackers.SETTINGS.items()
        if not key.startswith(("partition.", "uplink.", "downlink."))
    },
    "federation.min_clients": SAMPLE_SITES,
    "run.evaluate_every": 0,
    "federation.labelled": "",
}


@dataclass
class Rate:
    """Alarmed rounds of all."""

    alarmed: int = 0
    rounds: int = 0

    def add(self, found: bool) -> None:
        """Count a round."""
        self.alarmed += found
        self.rounds += 1

    def __str__(self) -> str:
        return f"{self.alarmed} of {self.rounds} ({100 * self.alarmed / max(1, self.rounds):.1f} %)"


def honest(seed: int, rounds: int) -> Rate:
    """Count alarmed rounds without attackers."""
    rate = Rate()
    for (clients, alike, spread), clip in itertools.product(HONEST_GRID, CLIPS):
        cohort = Cohort(clients, alike, spread=spread, seed=seed)
        for _ in range(rounds):
            rate.add(bool(alarmed(cohort.round(), clip)))
    return rate


def attacked(attack: Attack, seed: int, rounds: int) -> Rate:
    """Count rounds in which one of the attackers, who send the same, is named."""
    rate = Rate()
    for ((clients, bad), alike, most), clip in itertools.product(ATTACKED_GRID, CLIPS):
        cohort = Cohort(clients, alike, seed=seed)
        for number in range(1, rounds + 1):
            updates = cohort.round()
            sent = [attack(updates, number, most)] * bad + updates[bad:]
            rate.add(not alarmed(sent, clip).isdisjoint(f"site-{i:03d}" for i in range(bad)))
    return rate


def of_the_sample(folder: Path, seed: int, bad: int) -> Rate:
    """Count alarmed rounds of real training, one run for each preset."""
    rate = Rate()
    for name in PRESETS if not bad else ("fedsense-plus",):
        plain = {"uplink.codec": "none", "uplink.feedback": False, "uplink.prediction": False} if bad else {}
        changed = {"preset": name, "run.seed": seed, "run.folder": str(folder / f"{name}-{bad}-seed{seed}"), **plain}
        for line in lines_of(SAMPLE | changed, bad):
            names = {alarm["site"] for alarm in line["alarms"]}
            rate.add(line["accepted"][0] in names if bad else bool(names))
    return rate


def lines_of(settings: Mapping[str, Any], bad: int) -> list[dict[str, Any]]:
    """Return the rounds of a run, which is finished or made now."""
    folder = Path(settings["run.folder"])
    if not (folder / "encoder").is_dir():
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, SERVER_NODE
        run_session(resolve(dict(settings)), attackers.AttackedGrid(settings, bad, silent=False, clients=SAMPLE_SITES))
    return [line for line in RunFolder(folder).read_metrics() if line["round"]]


def rows(options: argparse.Namespace) -> Iterator[tuple[str, list[Rate], str]]:
    """Yield what was done, its rates by seed, and what is promised of it."""
    seeds = options.seeds
    yield "honest, made up", [honest(seed, options.rounds) for seed in seeds], "honest"
    for name, attack in attacks.DRIVING.items():
        yield f"{name}, at 3 to 9 honest norms", [attacked(attack, seed, options.rounds) for seed in seeds], "attacked"
    for name, attack in SUBTLE.items():
        yield name, [attacked(attack, seed, options.rounds) for seed in seeds], ""
    if options.sample:
        yield "honest, five sites of the sample", [of_the_sample(options.sample, seed, 0) for seed in seeds], "honest"
        yield (
            "flip at 8 honest norms, of the sample",
            [of_the_sample(options.sample, seed, 1) for seed in seeds],
            "attacked",
        )


def main() -> int:
    """Count, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5, help="of each point of the grids")
    parser.add_argument("--sample", type=Path, help="folder for runs of the sample; none without it")
    options = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    broken = []
    print("| rounds | " + " | ".join(f"seed {seed}" for seed in options.seeds) + " |")
    print("|---" * (len(options.seeds) + 1) + "|")
    for name, rates, promised in rows(options):
        print(f"| {name} | {' | '.join(map(str, rates))} |", flush=True)
        share = sum(rate.alarmed for rate in rates) / sum(rate.rounds for rate in rates)
        if (promised == "honest" and share > MOST_HONEST) or (promised == "attacked" and share < LEAST_ATTACKED):
            broken.append(name)
    print("\n".join(f"Not as promised: {name}" for name in broken))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
