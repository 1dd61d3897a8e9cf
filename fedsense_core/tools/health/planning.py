"""What a run will cost each role: modelled from a trial of two steps, before anybody has begun.

Bytes are those of the real codecs for the real model: exact where every institution takes part in
every round. Time, memory and disk are those of this machine: a model, and said to be one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from fedsense_core.config import Config
from fedsense_core.run_folder.formatting import human_bytes, human_seconds
from fedsense_core.tools.health.trial import STEPS, Trial

FLOWER_S = 13.0
"""Seconds of a round in which Flower starts the client's process and passes messages on, measured
with real processes on two cores; the trial's client is started once."""
MBIT = 1e6 / 8


@dataclass(frozen=True)
class Situation:
    """What the settings do not say."""

    institutions: int
    link_mbit: float
    """Rate of an institution's link, each way, Mbit/s."""
    coordinator_mbit: float


@dataclass(frozen=True)
class Cost:
    """Of one role. Bytes, and seconds."""

    sent: int
    received: int
    memory: int
    gpu: int
    disk: int


@dataclass(frozen=True)
class Plan:
    """Of one run."""

    rounds: int
    round_s: Mapping[str, float]
    """Seconds of a round by what they are for."""
    institution: Cost
    coordinator: Cost

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.rounds * sum(self.round_s.values())

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can say it."""
        return asdict(self) | {"seconds": self.seconds, "modelled": True}


def plan_of(config: Config, trial: Trial, situation: Situation) -> Plan:
    """Return what a run of ``config`` costs, by its trial."""
    rounds = config.run.rounds - config.run.rounds_before
    first, later = trial.lines
    client, server = _client(later), later["server_memory"]
    up, down = bytes_of(trial, rounds)
    asked = max(1, round(config.federation.participation * situation.institutions))
    per_round = 8e-6 * (later["bytes_up"] + later["bytes_down"])
    seconds = {
        "training": _step_s(client) * config.train.local_steps,
        "client besides": FLOWER_S + client["total-seconds"] - client["train-seconds"],
        "transfer": max(per_round / situation.link_mbit, asked * per_round / situation.coordinator_mbit),
        "server": _server_s(config, later, trial, asked),
    }
    models = 4 * later["elements"] * (asked + 2) if config.run.keep_models else 0
    kept = config.run.keep_checkpoints * trial.checkpoint_bytes + asked * first["bytes_up"]
    institution = Cost(
        sent=round(config.federation.participation * up),
        received=down,
        memory=int(client["resident-memory-bytes"]),
        gpu=int(client.get("gpu-memory-bytes", 0)),
        disk=trial.chips_bytes + trial.state_bytes,
    )
    coordinator = Cost(
        sent=situation.institutions * down,
        received=asked * up,
        memory=int(server["resident"]),
        gpu=int(server.get("gpu", 0)),
        disk=kept + models + trial.cache_bytes + trial.encoder_bytes,
    )
    return Plan(rounds, seconds, institution, coordinator)


def bytes_of(trial: Trial, rounds: int) -> tuple[int, int]:
    """Return the bytes (up, down) of one institution that takes part in every round: the first one
    carries the model, or its digest, and each later one the change."""
    first, later = trial.lines
    up = first["bytes_up"] + (rounds - 1) * later["bytes_up"]
    return up, first["bytes_down"] + (rounds - 1) * later["bytes_down"]


def _client(line: Mapping[str, Any]) -> Mapping[str, float]:
    (measured,) = line["clients"].values()
    return dict(measured)


def _step_s(client: Mapping[str, float]) -> float:
    return client["train-seconds"] / STEPS


def _server_s(config: Config, line: Mapping[str, Any], trial: Trial, asked: int) -> float:
    """Return the server's seconds of a round: for each reply, and once."""
    took = line["seconds"]
    distilling = took.get("distill", 0.0) * config.distillation.steps / max(1, trial.distillation_steps)
    every = config.run.evaluate_every
    probing = took.get("evaluate", 0.0) / every if every else 0.0
    each = took.get("admit", 0.0) + took.get("aggregate", 0.0)
    return float(took.get("down", 0.0) + asked * each + distilling + probing)


def describe(plan: Plan, situation: Situation) -> RenderableType:
    """Return a page for a terminal."""
    head = Text.assemble(
        ("modelled", "bold yellow"),
        f" from {STEPS} steps on this machine: {plan.rounds} rounds, {situation.institutions} institutions, "
        f"{situation.link_mbit:g} Mbit/s",
    )
    whole = Text.assemble("whole run  ", (human_seconds(plan.seconds), "bold"))
    parts = ", ".join(f"{name} {human_seconds(value)}" for name, value in plan.round_s.items())
    whole.append(f"\na round    {human_seconds(sum(plan.round_s.values()))}: {parts}")
    roles = [Column(name, justify="right", no_wrap=True) for name in ("each institution", "coordinator")]
    table = Table(Column(), *roles, box=None, pad_edge=False, header_style="dim")
    rows = {
        "sends": "sent",
        "receives": "received",
        "memory, at most": "memory",
        "GPU memory, at most": "gpu",
        "disk, at most": "disk",
    }
    for name, key in rows.items():
        values = [getattr(cost, key) for cost in (plan.institution, plan.coordinator)]
        if any(values):
            table.add_row(name, *map(human_bytes, values))
    return Group(head, whole, "", table)
