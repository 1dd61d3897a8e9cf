"""The pictures of a benchmark, from its summary: differences, quality against bytes, and each
task."""

from __future__ import annotations

import io
from itertools import cycle

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsense_core.tools.benchmark.benchmark_tables import comparison_title, rows_beside, spans_compressions
from fedsense_core.tools.benchmark.matrix import NO_TRAFFIC
from fedsense_core.tools.benchmark.summary import Summary
from fedsense_core.tools.reporting.canvas import COLOURS, GREY, INK, MARKERS, Curve

ROW_INCHES = 0.24
DASHES = ("--", ":", "-.", (0, (1, 3)), (0, (6, 2, 1, 2, 1, 2)))
"""Of levels: methods in which nothing travels."""


def draw(summary: Summary) -> list[Curve]:
    """Return all figures that there is something to show in."""
    figures = [_forest(summary, one) for one in summary["comparisons"]]
    return [*figures, *_quality(summary), *_tasks(summary)]


def _forest(summary: Summary, comparison: Summary) -> Curve:
    rows = sorted(comparison["rows"], key=lambda row: row["pooled"]["mean"])
    figure = Figure(figsize=(8.6, 1.2 + ROW_INCHES * len(rows)), layout="constrained")
    axes = _style(figure.subplots(), "percentage points")
    axes.axvline(0, color=INK, lw=1)
    for y, row in enumerate(rows):
        found = row["pooled"]
        colour = COLOURS[2] if found["above"] else COLOURS[1] if found["mean"] < -(found["error"] or 0) else GREY
        if found["low"] is not None:
            axes.plot([found["low"], found["high"]], [y, y], color=colour, lw=1.4)
            axes.plot([found["mean"] - found["error"], found["mean"] + found["error"]], [y, y], color=colour, lw=4)
        axes.plot(found["mean"], y, "o", color=colour, ms=6, mec="white")
    several = spans_compressions(comparison)
    names = [
        f"{row['label']} @ {row['compression']}" if several and row["compression"] != NO_TRAFFIC else row["label"]
        for row in rows
    ]
    axes.set_yticks(range(len(rows)), [_plain(name) for name in names])
    return _curve(
        figure,
        comparison_title(comparison),
        "Pooled over tasks, paired by seed. Thick: one standard error; thin: 95 % interval. Green is above by more "
        "than one standard error, orange below.",
        ", ".join(f"{row['label']} {row['pooled']['mean']:+.2f}" for row in reversed(rows)),
    )


def _quality(summary: Summary) -> list[Curve]:
    travelling = [row for row in summary["rows"] if row["bytes_up"]]
    if not travelling:
        return []
    figure = Figure(figsize=(8.6, 5.2), layout="constrained")
    axes = _style(figure.subplots(), "bytes that travelled, both ways, MB", both=True)
    methods = list(dict.fromkeys(row["method"] for row in travelling))
    for i, method in enumerate(methods):
        points = [
            ((r["bytes_up"] + r["bytes_down"]) / 1e6, 100 * r["pooled"]) for r in travelling if r["method"] == method
        ]
        axes.plot(*zip(*sorted(points), strict=True), color=COLOURS[i % len(COLOURS)], lw=0.8, alpha=0.4)
    for row in travelling:
        i, total = methods.index(row["method"]), (row["bytes_up"] + row["bytes_down"]) / 1e6
        first = row is next(other for other in travelling if other["method"] == row["method"])
        axes.errorbar(
            total,
            100 * row["pooled"],
            100 * (row["pooled_deviation"] or 0) / max(1, len(row["seeds"])) ** 0.5,
            fmt=MARKERS[(i // len(COLOURS)) % len(MARKERS)],
            color=COLOURS[i % len(COLOURS)],
            ms=6,
            lw=1,
            label=_plain(row["label"]) if first else None,
        )
    for row, line in zip(filter(_is_level, summary["rows"]), cycle(DASHES), strict=False):
        axes.axhline(100 * row["pooled"], color=INK, lw=1, ls=line, label=_plain(row["label"]))
    axes.set_xscale("log")
    axes.set_ylabel("pooled score, %", fontsize=9, color=INK)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, frameon=False, labelcolor=INK)
    return [
        _curve(
            figure,
            "Quality against bytes",
            "Up and to the left is better. One colour and marker a method, one point a compression; bars are standard "
            "errors over seeds.",
            ", ".join(f"{row['key']} {100 * row['pooled']:.1f} %" for row in travelling),
        )
    ]


def _is_level(row: Summary) -> bool:
    return row["compression"] == NO_TRAFFIC and not row["key"].endswith(":best")


def _tasks(summary: Summary) -> list[Curve]:
    """Return a figure of one panel a task, all methods and compressions in it."""
    names = list(summary["tasks"])
    rows = rows_beside(summary, summary["compressions"][0])
    keys = list(
        dict.fromkeys(
            (row["family"], row["label"])
            for compression in summary["compressions"]
            for row in rows_beside(summary, compression)
        )
    )
    if not rows:
        return []
    columns = min(2, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(4.6 * columns, lines * (1.2 + ROW_INCHES * len(keys))), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axes, name in zip(panels, names, strict=False):
        _task(_style(axes, f"{summary['tasks'][name]['metric']}, %"), summary, name, keys)
        axes.set_title(_plain(summary["tasks"][name]["label"]), fontsize=10, loc="left", color=INK)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    panels[0].set_yticks(range(len(keys)), [_plain(label) for _, label in keys])
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False, labelcolor=INK
    )
    alt = "; ".join(
        f"{name}: " + ", ".join(f"{row['key']} {100 * row['mean'][name]:.1f}" for row in summary["rows"])
        for name in names
    )
    return [_curve(figure, "Each task", "Mean over seeds; the line is one deviation to either side.", alt)]


def _task(axes: Axes, summary: Summary, name: str, keys: list[tuple[str, str]]) -> None:
    compressions = [*summary["compressions"], NO_TRAFFIC]
    shown: set[str] = set()
    for row in summary["rows"]:
        i, y = compressions.index(row["compression"]), keys.index((row["family"], row["label"]))
        travels = row["compression"] != NO_TRAFFIC
        y_shifted = y + 0.18 * (i - (len(compressions) - 2) / 2) if travels else y
        name_shown = f"compression {row['compression']}" if travels else "nothing travels"
        label = None if row["compression"] in shown else name_shown
        shown.add(row["compression"])
        axes.errorbar(
            100 * row["mean"][name],
            y_shifted,
            xerr=100 * (row["deviation"][name] or 0),
            fmt=MARKERS[i % len(MARKERS)],
            color=COLOURS[i % len(COLOURS)] if travels else INK,
            ms=5,
            lw=1.2,
            label=label,
        )


def _style(axes: Axes, label: str, both: bool = False) -> Axes:
    axes.set_xlabel(label, fontsize=9, color=INK)
    axes.grid(axis="both" if both else "x", color="#e3e7ec", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=8.5, colors=INK, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _plain(text: str) -> str:
    """Return text that matplotlib takes for no formula."""
    return text.replace("$", r"\$")


def _curve(figure: Figure, title: str, explanation: str, alt: str) -> Curve:
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "fedsense", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Curve(title, explanation, alt, buffer.getvalue())
