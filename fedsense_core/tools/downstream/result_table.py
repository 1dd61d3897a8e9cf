"""What came out, as rows of words: the same for the terminal and for the file."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedsense_core.tools.downstream.group_counts import FEWEST_GROUPS
from fedsense_core.tools.downstream.intervals import Interval, gain, interval, spread
from fedsense_core.tools.downstream.result import TaskResult

CONTROL = "random weights"


def score_rows(results: Sequence[TaskResult], control: Sequence[TaskResult]) -> list[dict[str, str]]:
    """Return one row a result, its columns by title. ``control`` holds the same under random
    weights, or nothing."""
    controls = {one.key: one for one in control}
    rows = []
    for result in results:
        row = {"": f"{result.mode} {result.head}", **_scored(result)}
        if result.key in controls:
            other = controls[result.key]
            row |= {CONTROL: _scored(other)[result.metric], "gain over them": _words(gain(result, other), "+")}
        others = [name for name in result.scores[0] if name != result.metric]
        row["also"] = ", ".join(f"{name} {_mean(result, name):.3f}" for name in others)
        rows.append(row)
    return rows


def markdown(results: Sequence[TaskResult], control: Sequence[TaskResult]) -> str:
    """Return a page with the table, what it means, and every note that belongs to it."""
    first = results[0]
    rows = score_rows(results, control)
    lines = [
        f"# {first.task}: {first.data}",
        "",
        "| " + " | ".join(rows[0]) + " |",
        "|" + "---|" * len(rows[0]),
        *("| " + " | ".join(row.values()) + " |" for row in rows),
        "",
        explanation(results),
    ]
    return "\n".join(lines) + "\n"


def explanation(results: Sequence[TaskResult]) -> str:
    """Return how the table is to be read, with the notes of the data."""
    seeds = max(len(result.scores) for result in results)
    groups = len(results[0].evidence[0].groups)
    text = (
        f"Scores are {f'means ± standard deviations over up to {seeds} seeds' if seeds > 1 else 'of one seed'}. "
        f"Intervals are of a cluster bootstrap over {groups} groups of the test part"
        f"{', which are so few that the intervals are too short' if groups < FEWEST_GROUPS else ''}."
    )
    notes = dict.fromkeys(result.note for result in results if result.note)
    return " ".join([text, *(f"Note: {note}." for note in notes)])


def _scored(result: TaskResult) -> dict[str, str]:
    deviation = spread(result)
    around = "" if math.isnan(deviation) else f" ± {deviation:.3f}"
    found = interval(result)
    return {result.metric: f"{found.value:.3f}{around}", "95 % interval": _ends(found)}


def _words(found: Interval, sign: str = "") -> str:
    return f"{found.value:{sign}.3f} ({_ends(found, sign)})"


def _ends(found: Interval, sign: str = "") -> str:
    return "unknown" if math.isnan(found.low) else f"{found.low:{sign}.3f} to {found.high:{sign}.3f}"


def _mean(result: TaskResult, name: str) -> float:
    return sum(scores[name] for scores in result.scores) / len(result.scores)
