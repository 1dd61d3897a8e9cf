"""The run in the terminal: one readable block a round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text

from fedsense_core.run_folder.folder import Metrics
from fedsense_core.run_folder.formatting import (
    clean,
    fewer,
    first_probe,
    first_weights,
    float32_bytes,
    human_bytes,
    human_seconds,
    number,
    with_error,
)

RECENT_ROUNDS = 3
"""Rounds whose mean length gives the time left: the first round is slower, so old ones are
forgotten."""


def describe_round(
    metrics: Mapping[str, Any],
    rounds: int,
    before: Mapping[str, float] | None = None,
    seconds_left: float | None = None,
    weights: str = "random weights",
) -> str:
    """Return one round as a block of text.

    ``metrics`` is a line of ``metrics.jsonl``, ``rounds`` the length of the run, ``before`` the
    probe before training, ``seconds_left`` an estimate, ``weights`` what the run started from.
    Absent figures are left out, so a round that failed is described too.
    """
    rows = {
        "replies": _replies(metrics),
        "alarms": _alarms(metrics),
        "notes": _notes(metrics),
        "loss": _loss(metrics),
        "bytes": _bytes(metrics),
        "seconds": _seconds(metrics),
        "guidance": _guidance(metrics),
        "probe": _probe(metrics.get("probe"), before if metrics["round"] else None, weights),
    }
    lines = [_headline(metrics, rounds, seconds_left, weights)]
    for name, text in rows.items():
        if text:
            lines += [f"  {label:<10}{line}" for label, line in zip([name, *[""] * 99], text.split("\n"), strict=False)]
    return "\n".join(lines)


class RoundPrinter:
    """Prints each round as it ends, with the time left."""

    def __init__(self, rounds: int, history: Sequence[Metrics] = (), console: Console | None = None) -> None:
        """Print a run of ``rounds`` rounds; ``history`` is what a continued run has already
        written."""
        self.rounds = rounds
        self.history = list(history)
        self.console = console or Console()

    def show(self, metrics: Metrics) -> None:
        """Print the block of one round."""
        self.history.append(metrics)
        weights = first_weights(self.history)
        block = describe_round(metrics, self.rounds, first_probe(self.history), self.seconds_left(), weights)
        text = Text(block)
        text.highlight_regex(r"^round .*?$", "bold")
        text.highlight_regex(r"(?m)^ +(rejected|alarms) .*$", "red")
        self.console.print(text, soft_wrap=True)  # a log file keeps its lines whole

    def seconds_left(self) -> float | None:
        """Return the rounds left times the mean of the last ones, None before the first round."""
        lengths = [m["seconds"]["total"] for m in self.history if m["round"] > 0 and m.get("seconds", {}).get("total")]
        recent = lengths[-RECENT_ROUNDS:]
        return (self.rounds - self.history[-1]["round"]) * sum(recent) / len(recent) if recent else None

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show a spinner with ``text`` while the block runs, on a terminal only."""
        if not self.console.is_terminal:
            yield
            return
        with self.console.status(Text(clean(text))):
            yield


def _headline(metrics: Mapping[str, Any], rounds: int, seconds_left: float | None, weights: str) -> str:
    if metrics["round"] == 0:
        return f"before training ({weights})"
    parts = [f"round {metrics['round']}/{rounds}"]
    if total := metrics.get("seconds", {}).get("total"):
        parts.append(human_seconds(total))
    if seconds_left is not None and metrics["round"] < rounds:
        parts.append(f"about {human_seconds(seconds_left)} left")
    return " · ".join(parts)


def _replies(metrics: Mapping[str, Any]) -> str:
    if "accepted" not in metrics:
        return ""
    if not (metrics.get("asked", 1) or metrics.get("rejected")):
        return "none: no client is asked"
    accepted, rejected = metrics["accepted"], metrics.get("rejected") or []
    names = f" ({', '.join(map(clean, accepted))})" if accepted else ""
    lines = [f"{len(accepted)} accepted{names}, {len(rejected)} rejected"]
    lines += [f"rejected {clean(r['node'])}: {clean(r['reason'])}" for r in rejected]
    return "\n".join(lines)


def _notes(metrics: Mapping[str, Any]) -> str:
    return "\n".join(f"{clean(one['site'])}: {clean(one['note'])}" for one in metrics.get("notes") or ())


def _alarms(metrics: Mapping[str, Any]) -> str:
    return "\n".join(f"{clean(one['site'])}: {clean(one['reason'])}" for one in metrics.get("alarms") or ())


def _loss(metrics: Mapping[str, Any]) -> str:
    parts = {"ssl": "ssl_loss", "alignment": "alignment_loss", "distillation": "distillation_loss"}
    known = ", ".join(f"{name} {number(metrics[key])}" for name, key in parts.items() if metrics.get(key) is not None)
    if metrics.get("loss") is None:  # no client was asked, or none was accepted
        return known
    return f"{number(metrics['loss'])}" + (f" ({known})" if known else "")


def _bytes(metrics: Mapping[str, Any]) -> str:
    if metrics.get("bytes_up") is None:
        return ""
    up, down = metrics["bytes_up"], metrics.get("bytes_down") or 0
    plain = float32_bytes(metrics)
    notes = [f" ({text})" if (text := fewer(a, b)) else "" for a, b in zip(plain or (0, 0), (up, down), strict=True)]
    return f"up {human_bytes(up)}{notes[0]}, down {human_bytes(down)}{notes[1]}"


def _seconds(metrics: Mapping[str, Any]) -> str:
    phases = {name: s for name, s in (metrics.get("seconds") or {}).items() if name != "total" and s}
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases.items())


def _guidance(metrics: Mapping[str, Any]) -> str:
    parts = [f"radius {metrics['radius']:.3g}"] if metrics.get("radius") else []
    if metrics.get("learning_rate") is not None:
        parts.append(f"learning rate {metrics['learning_rate']:.2e}")
    return ", ".join(parts)


def _probe(probe: Mapping[str, float] | None, before: Mapping[str, float] | None, weights: str) -> str:
    if not probe:
        return ""
    lines = [_probe_line(probe)]
    if before:
        lines.append(f"{_probe_line(before)} with {weights}")
    return "\n".join(lines)


def _probe_line(probe: Mapping[str, float]) -> str:
    linear = with_error(probe.get("linear_macro_f1"), probe.get("linear_macro_f1_se"))
    return (
        f"linear F1 {linear}, accuracy {number(probe.get('linear_accuracy'))}; "
        f"kNN F1 {number(probe.get('knn_macro_f1'))}, accuracy {number(probe.get('knn_accuracy'))}"
    )
