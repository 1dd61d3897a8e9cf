"""What attackers inside the norm limit do to a run, by their share and by how replies are combined.

Ten clients share the imagery of the sample. The first of them attack: each sends what it learned,
turned around and eight times as long, which is inside the limit of ten times the median norm.
Honest-only is the same run with these clients silent. Everything else is as in a real run, in one
process.

    OMP_NUM_THREADS=1 python docs/experiments/attackers.py --out attackers --limit-minutes 60

The same command goes on where it stopped; what is promised comes first. Writes
OUT/attackers.md: per cent by which the final self-supervised loss is above honest-only's, and
points by which accuracies are, each paired by seed.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Error, Message
from flwr.supercore.task_identity import TaskIdentity

from client_app.app import app
from client_app.identity import Identity
from fedsense_core.config import Config, resolve
from fedsense_core.errors import FedSenseError
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.frame import pack, unpack
from fedsense_core.protocol.messages import TrainReply
from fedsense_core.run_folder import RunFolder
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.tensors import TensorTable
from fedsense_core.tools.analysis.fixed_loss import Objective
from fedsense_core.tools.analysis.loss_imagery import batches_of, imagery_of
from fedsense_core.tools.runner.in_process_grid import RUN_ID, SERVER_NODE, InProcessGrid
from server_app.checkpoints import Checkpoints
from server_app.session import run_session

CLIENTS, FIRST_NODE = 10, 100
TIMES_HONEST = 8.0
"""Of an attacker's norm: inside the limit of ten times the median."""
SHARES = (0, 1, 2, 3, 4)
"""Attackers of ten."""
ASSUMED = 3
"""Attackers that trimmed-mean and multi-krum are told of, whatever there are: nobody knows."""
LOSS_BATCHES = 3
"""Of each client, on which final models are compared."""
SETTINGS: dict[str, Any] = {
    "preset": "fedsense-plus",
    "run.rounds": 6,
    "run.report": False,
    "run.evaluate_every": 6,
    "run.keep_checkpoints": 1,
    "federation.min_clients": CLIENTS,
    "federation.wait_s": 0.0,
    "federation.deadline_s": 60.0,
    "federation.quorum": 2,
    "partition.kind": "dirichlet",
    "partition.clients": CLIENTS,
    "partition.alpha": 1.0,
    "model.args": {"layers": [1, 1, 1, 0], "channels": [32, 32, 64, 64], "norm_layer": "groupnorm1"},
    "data.view_size": 24,
    "train.local_steps": 3,
    "train.batch_size": 12,
    "uplink.codec": "none",
    "uplink.feedback": False,
    "uplink.prediction": False,
    "downlink.codec": "none",
    "distillation.kind": "none",
}
RULES: dict[str, dict[str, Any]] = {
    "mean": {"aggregation.clip": "none"},
    "clip": {"aggregation.clip": "median"},
    "median": {"aggregation.kind": "median", "aggregation.byzantine": ASSUMED},
    "trimmed-mean": {"aggregation.kind": "trimmed-mean", "aggregation.byzantine": ASSUMED},
    "multi-krum": {"aggregation.kind": "multi-krum", "aggregation.byzantine": ASSUMED},
}
HONEST = "honest-only"
"""A mean without the attackers' replies."""
PROMISED = ((2, HONEST), (2, "clip"), (2, "mean"), (0, HONEST), (0, "clip"))
"""With a fifth of attackers, and what the default costs without any."""


@dataclass(frozen=True)
class Trial:
    """One run."""

    seed: int
    attackers: int
    rule: str

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.rule}-{self.attackers}-seed{self.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """All that differs from the defaults."""
        rule = RULES["mean" if self.rule == HONEST else self.rule]
        quorum = {"federation.quorum": 2 * ASSUMED + 3} if "aggregation.kind" in rule else {}
        return SETTINGS | {"run.seed": self.seed, "aggregation.clip": "none"} | rule | quorum


class AttackedGrid(InProcessGrid):
    """A grid whose first clients attack, or say nothing."""

    def __init__(self, settings: Mapping[str, Any], attackers: int, silent: bool, clients: int = CLIENTS) -> None:
        nodes = [{"partition-id": i, "num-partitions": clients} for i in range(clients)]
        super().__init__(app, settings, nodes, first_node=FIRST_NODE)
        self.attacking, self.silent = range(FIRST_NODE, FIRST_NODE + attackers), silent

    def replies_to(self, task: Message) -> list[Message]:
        """Return the honest reply, or what an attacker makes of it."""
        if task.metadata.dst_node_id not in self.attacking or task.metadata.message_type != "train":
            return super().replies_to(task)
        if self.silent:
            return [Message(Error(0, "silent"), reply_to=task)]
        (reply,) = super().replies_to(task)
        return [
            reply if reply.has_error() else Message(turned(TrainReply.from_message(reply)).to_records(), reply_to=task)
        ]


def turned(reply: TrainReply) -> TrainReply:
    """Return a reply whose update points back, as long as is let in."""
    if reply.frame is None:
        return reply
    header, payload = unpack(reply.frame)
    return replace(reply, frame=pack(header, (-TIMES_HONEST * np.frombuffer(payload, "<f4")).tobytes()))


def trials(seeds: Sequence[int]) -> Iterator[Trial]:
    """Yield all runs once: those with a promise first, then the other rules, then other shares."""
    promised = [Trial(seed, attackers, rule) for seed in seeds for attackers, rule in PROMISED]
    others = [
        Trial(seed, attackers, rule)
        for attackers in (2, 0, 4, 1, 3)
        for seed in seeds
        for rule in (HONEST, *RULES)
        if attackers or rule != "mean"  # without attackers that is honest-only
    ]
    yield from dict.fromkeys([*promised, *others])


def keep_imagery_open() -> None:
    """Open each client's chips once for all runs of a seed: they are the same."""
    opened, really_open = dict[tuple[int, str], Any](), Identity.open

    def open_once(self: Identity, config: Config) -> Any:
        key = config.run.seed, self.name
        if key not in opened:
            opened[key] = really_open(self, config)
        return opened[key]

    Identity.open = open_once  # type: ignore[method-assign]


def outcome(trial: Trial, folder: Path) -> dict[str, float | None]:
    """Run a trial; return the final loss on fixed batches of all clients and the probe's
    accuracies, None where the run did not end."""
    settings = {**trial.settings, "run.folder": str(folder)}
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, SERVER_NODE
    try:
        run = RunFolder(run_session(resolve(settings), AttackedGrid(settings, trial.attackers, trial.rule == HONEST)))
    except FedSenseError as error:
        print(f"{trial.name}: {error}", file=sys.stderr)
        return {"loss": None, "linear_accuracy": None, "knn_accuracy": None}
    probe = run.read_metrics()[-1]["probe"] or {}
    return {"loss": final_loss(settings, run), **{key: probe.get(key) for key in ("linear_accuracy", "knn_accuracy")}}


def final_loss(settings: Mapping[str, Any], run: RunFolder) -> float | None:
    """Return the self-supervised loss of the final model, the mean over all clients."""
    config = resolve(dict(settings))
    state = Checkpoints(run.checkpoints, config.digest).newest()
    assert state is not None
    imagery, _ = imagery_of(config, run)
    model = build_model(config)
    table = TensorTable.of(model, config.model.local_parameters)
    batches = batches_of(imagery, config, LOSS_BATCHES, seed=0)
    loss = Objective(model, table, build_recipe(config), batches, seed=0).loss(state["weights"])
    return loss if math.isfinite(loss) else None


def table(results: Mapping[str, Mapping[str, float | None]], seeds: Sequence[int]) -> str:
    """Return the table as Markdown: means over seeds with standard errors."""
    lines = [
        "| attackers | rule | loss above honest-only | linear probe | nearest neighbours | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for attackers in SHARES:
        for rule in RULES:
            pairs = [
                (mine, honest)
                for seed in seeds
                if (mine := results.get(Trial(seed, attackers, rule).name))
                and (honest := results.get(Trial(seed, attackers, HONEST).name))
            ]
            if pairs:
                lines.append(f"| {10 * attackers} % | {rule} | {' | '.join(_cells(pairs))} | {len(pairs)} |")
    return "\n".join(lines)


def _cells(pairs: Sequence[tuple[Mapping[str, float | None], Mapping[str, float | None]]]) -> Iterator[str]:
    losses = [(mine["loss"], honest["loss"]) for mine, honest in pairs]
    yield _figure([100 * (a / b - 1) if a and b else None for a, b in losses], " %")
    for key in ("linear_accuracy", "knn_accuracy"):
        scores = [(mine[key], honest[key]) for mine, honest in pairs]
        yield _figure([100 * (a - b) if a is not None and b is not None else None for a, b in scores], "")


def _figure(values: Sequence[float | None], unit: str) -> str:
    found = [value for value in values if value is not None]
    if len(found) < len(values):
        return f"{len(values) - len(found)} of {len(values)} runs ended early"
    error = f" ± {statistics.stdev(found) / math.sqrt(len(found)):.1f}" if len(found) > 1 else ""
    return f"{statistics.fmean(found):+.1f}{error}{unit}"


def main() -> int:
    """Run what is still to do, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("attackers"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limit-minutes", type=float, default=150.0)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings, for a try")
    options = parser.parse_args()
    SETTINGS.update({key: json.loads(value) for key, value in (one.split("=", 1) for one in options.set)})
    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    keep_imagery_open()
    for trial in trials(options.seeds):
        path = options.out / f"{trial.name}.json"
        if path.exists():
            continue
        if time.monotonic() - began > 60 * options.limit_minutes:
            break
        folder = options.out / f"{trial.name}.run"
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
        found = outcome(trial, folder)
        path.write_text(json.dumps(found), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        print(f"{trial.name}: {found}, {time.monotonic() - began:.0f} s", flush=True)
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in options.out.glob("*.json")}
    text = table(results, options.seeds)
    (options.out / "attackers.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
