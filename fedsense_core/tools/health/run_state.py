"""What a run's folder says of the run while it goes on: how far it is, who took part, and what
became of each institution's last update."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedsense_core.run_folder.folder import Metrics, RunFolder, read_json

STALE_S = 60.0
"""A server writes status.json several times as often."""


@dataclass(frozen=True)
class LastVerdict:
    """What the last round that asked an institution made of its answer."""

    round: int
    counted: bool
    reason: str = ""
    """Why it did not count; where it did, what was done to it."""


@dataclass(frozen=True)
class RunState:
    """A run as its folder shows it."""

    folder: Path
    rounds: int
    """Of the whole run."""
    rounds_done: int
    phase: str
    """What it does: a phase of status.json, ``finished``, ``unknown`` or ``dead``."""
    reason: str
    """Why it does not go on; empty where it does."""
    now: Mapping[str, Any]
    """The rest of status.json."""
    bytes_up: int
    bytes_down: int
    verdicts: Mapping[str, LastVerdict] = field(default_factory=dict)
    """By institution."""
    counted: Mapping[str, list[int]] = field(default_factory=dict)
    """By institution: the rounds in which its update counted."""

    @classmethod
    def of(cls, folder: Path, now: datetime | None = None) -> RunState:
        """Read a run's folder. Raises CheckpointError where there is no run, or a file of it is
        damaged."""
        run = RunFolder.open(folder)
        said = read_json(run.status_file) or {}
        lines = [line for line in run.read_metrics() if line["round"] > 0]
        phase, reason = _phase(run, said, now or datetime.now(UTC))
        return cls(
            folder=run.path,
            rounds=int(run.read_config()["run"]["rounds"]),
            rounds_done=lines[-1]["round"] if lines else 0,
            phase=phase,
            reason=reason,
            now=said,
            bytes_up=sum(line.get("bytes_up") or 0 for line in lines),
            bytes_down=sum(line.get("bytes_down") or 0 for line in lines),
            verdicts=_verdicts(lines),
            counted=_counted(lines),
        )

    @property
    def institutions(self) -> list[str]:
        """Names of all that were ever in the run or are connected now, in order."""
        here = {*self.now.get("connected", ()), *self.now.get("joining", ())}
        return sorted(here | {*self.verdicts})

    def late(self, now: datetime | None = None) -> dict[str, float]:
        """Return, for each institution whose answer the round still waits for, since how many
        seconds."""
        if self.phase != "training":
            return {}
        since = ((now or datetime.now(UTC)) - datetime.fromisoformat(self.now["round_began"])).total_seconds()
        return dict.fromkeys(self.now.get("waiting_for", ()), max(0.0, since))

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can say it."""
        return {
            "folder": str(self.folder),
            "rounds": self.rounds,
            "rounds_done": self.rounds_done,
            "phase": self.phase,
            "reason": self.reason,
            "now": dict(self.now),
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "verdicts": {name: vars(verdict) for name, verdict in self.verdicts.items()},
        }


@dataclass(frozen=True)
class Share:
    """What one institution has to do with the rounds of a run."""

    name: str
    counted: list[int]
    left_out: dict[int, str]
    """Round -> reason."""
    kept_before: list[int]
    """Rounds before the first that counted, whose checkpoints are still there."""


def share_of(folder: Path, name: str) -> Share:
    """Return the rounds of one institution. Raises CheckpointError where there is no run."""
    run = RunFolder.open(folder)
    lines = [line for line in run.read_metrics() if line["round"] > 0]
    counted = _counted(lines).get(name, [])
    left_out = {
        line["round"]: one["reason"] for line in lines for one in line.get("rejected") or () if one["node"] == name
    }
    first = counted[0] if counted else run.read_config()["run"]["rounds"] + 1
    kept = [int(path.name.removeprefix("round-")) for path in sorted(run.checkpoints.glob("round-*"))]
    return Share(name, counted, left_out, [number for number in kept if 0 < number < first])


def _phase(run: RunFolder, said: Mapping[str, Any], now: datetime) -> tuple[str, str]:
    if run.is_finished:
        return "finished", ""
    if not said:
        return "unknown", "it has no status.json: a release before this one, or a run that has not begun"
    if said["phase"] == "stopped":
        return "stopped", str(said.get("reason", ""))
    silent_s = (now - datetime.fromisoformat(said["time"])).total_seconds()
    if silent_s > STALE_S or _is_gone(said):
        return "dead", f"the server's process has not written since {said['time']}: it was killed, or its machine was"
    return str(said["phase"]), ""


def _is_gone(said: Mapping[str, Any]) -> bool:
    """Return whether the process that wrote status.json is certain to be gone: only this machine's
    are known."""
    if said.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(said["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's, and alive
        return False
    return False


def _verdicts(lines: Sequence[Metrics]) -> dict[str, LastVerdict]:
    found: dict[str, LastVerdict] = {}
    for line in lines:
        for one in line.get("rejected") or ():
            found[one["node"]] = LastVerdict(line["round"], False, one["reason"])
        for name in line.get("accepted") or ():
            found[name] = LastVerdict(line["round"], True, "; ".join(_done_to(line, name)))
    return dict(sorted(found.items()))


def _done_to(line: Metrics, name: str) -> Iterator[str]:
    if (scale := (line.get("clipped") or {}).get(name)) is not None:
        yield f"clipped to {100 * scale:.0f} %"
    yield from (f"alarm: {one['reason']}" for one in line.get("alarms") or () if one["site"] == name)


def _counted(lines: Sequence[Metrics]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for line in lines:
        for name in line.get("accepted") or ():
            found.setdefault(name, []).append(line["round"])
    return found
