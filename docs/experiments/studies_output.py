"""The table and the plot of a study, for ``studies.py``, from the summary of its benchmark."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from fedsense_core.atomic_io import write_whole
from fedsense_core.run_folder.formatting import human_bytes
from fedsense_core.tools.benchmark.benchmark_tables import interval, spread
from fedsense_core.tools.benchmark.matrix import NO_TRAFFIC
from fedsense_core.tools.benchmark.summary import Summary
from fedsense_core.tools.reporting.canvas import COLOURS, GREY, INK, MARKERS, style

POOLED = "pooled"
SPREAD_X = 0.02
"""Methods stand beside each other by this share of a power of the axis, so that bars do not hide
bars."""


@dataclass(frozen=True)
class Point:
    """One value of the axis."""

    compression: str
    """Its name in the benchmark."""
    settings: Mapping[str, Any]
    value: float | None = None
    """Where it stands on the axis; None: a level, drawn across."""
    part: str = ""
    """The row of the plot, where a study has several."""
    label: str = ""
    """Of a level, in words."""


def write_study(summary: Summary, points: Sequence[Point], axis: str, stem: Path) -> list[Path]:
    """Write ``stem``.md and ``stem``.png and return their paths."""
    paths = [stem.with_name(stem.name + suffix) for suffix in (".md", ".png")]
    write_whole(paths[0], table(summary, points, axis).encode())
    write_whole(paths[1], plot(summary, points, axis))
    return paths


def table(summary: Summary, points: Sequence[Point], axis: str) -> str:
    """Return the Markdown table: scores in per cent, mean ± deviation over seeds, and bytes of a
    whole run."""
    tasks = summary["tasks"]
    parts = len({point.part for point in points}) > 1
    differences = {row["key"]: row["pooled"] for one in summary["comparisons"] for row in one["rows"]}
    references = {one["label"] for one in summary["comparisons"]}
    heads = [*(["split"] if parts else []), axis, "method", *(f"{t['label']}, {t['metric']}" for t in tasks.values())]
    heads += [POOLED, f"less {', '.join(references)}" if references else "difference", "seeds", "up", "down"]
    lines = [heads, ["---" if head in ("split", "method") else "---:" for head in heads]]
    for part, where, row in _rows(summary, points):
        beside = row["compression"] != NO_TRAFFIC and row["key"] in differences
        lines.append(
            [
                *([part] if parts else []),
                where,
                row["label"],
                *(spread(row["mean"][name], row["deviation"][name]) for name in tasks),
                spread(row["pooled"], row["pooled_deviation"]),
                interval(differences[row["key"]]) if beside else "",
                str(len(row["seeds"])),
                *("–" if row[key] is None else human_bytes(row[key]) for key in ("bytes_up", "bytes_down")),
            ]
        )
    missing = f"\n**Not finished**: {len(summary['missing'])} trials are missing.\n" if summary["missing"] else ""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n{missing}"


def _rows(summary: Summary, points: Sequence[Point]) -> Iterator[tuple[str, str, Summary]]:
    """Yield (part, value as shown, row), value by value; random weights last."""
    for point in points:
        shown = point.label if point.value is None else f"{point.value:g}"
        yield from ((point.part, shown, row) for row in summary["rows"] if row["compression"] == point.compression)
    yield from (("", "–", row) for row in summary["rows"] if row["compression"] == NO_TRAFFIC)


def plot(summary: Summary, points: Sequence[Point], axis: str) -> bytes:
    """Return the PNG: a column for the mean over tasks and one for each task, a row for each
    part."""
    parts = list(dict.fromkeys(point.part for point in points))
    columns = {POOLED: "mean over tasks", **{n: f"{t['label']}, {t['metric']}" for n, t in summary["tasks"].items()}}
    figure = Figure(figsize=(3.1 * len(columns), 2.9 * len(parts) + 0.7), layout="constrained")
    panels = figure.subplots(len(parts), len(columns), squeeze=False, sharey="col")
    for row, part in zip(panels, parts, strict=True):
        for axes, (name, title) in zip(row, columns.items(), strict=True):
            style(axes, title, axis)
            _panel(axes, summary, [point for point in points if point.part == part], name)
        row[0].set_ylabel(f"{part}\nscore, %" if part else "score, %", fontsize=9, color=INK)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False, labelcolor=INK)
    figure.suptitle(
        f"{summary['title']}: mean over seeds, bars are one standard error", x=0.01, ha="left", fontsize=11, color=INK
    )
    buffer = io.BytesIO()
    with mpl.rc_context({"savefig.dpi": 150}):
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _panel(axes: Axes, summary: Summary, points: Sequence[Point], task: str) -> None:
    """Draw the mean of each method at each value with its standard error over seeds."""
    values = sorted({point.value for point in points if point.value is not None})
    methods = list(dict.fromkeys(row["method"] for row in summary["rows"] if row["compression"] != NO_TRAFFIC))
    axes.set_xscale("log")
    for index, method in enumerate(methods):
        look: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "lw": 1.5}
        found = {row["compression"]: row for row in summary["rows"] if row["method"] == method}
        on_axis = [
            (point.value, *score(found[point.compression], task)) for point in points if point.compression in found
        ]
        line = [entry for entry in on_axis if entry[0] is not None]
        if line:
            xs, means, errors = zip(*line, strict=True)
            shift = 10 ** (SPREAD_X * (index - (len(methods) - 1) / 2))
            axes.errorbar(
                [x * shift for x in xs],
                means,
                errors,
                marker=MARKERS[index % len(MARKERS)],
                ms=4.5,
                label=found[points[0].compression]["label"] if points[0].compression in found else method,
                **look,
            )
        for point in points:
            if point.value is None and point.compression in found:
                label = f"{found[point.compression]['label']}, {point.label}"
                axes.axhline(score(found[point.compression], task)[0], ls=":", label=label, **look)
    for row in summary["rows"]:
        if row["compression"] == NO_TRAFFIC:
            axes.axhline(score(row, task)[0], color=GREY, ls="--", lw=1.5, label=row["label"])
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.xaxis.set_minor_locator(NullLocator())


def score(row: Summary, task: str) -> tuple[float, float]:
    """Return mean and standard error in per cent; 0 with a single seed, where it is unknown."""
    mean, deviation = (
        (row["pooled"], row["pooled_deviation"]) if task == POOLED else (row["mean"][task], row["deviation"][task])
    )
    return 100 * mean, 100 * (deviation or 0.0) / len(row["seeds"]) ** 0.5
