"""How curves look: axes, lines, colours and legends, the same in every figure of a report.

Drawn on figures of their own, without pyplot: no window, no global state.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedsense_core.run_folder.formatting import clean

History = Sequence[Mapping[str, Any]]
"""The lines of ``metrics.jsonl``."""
INK, GREY = "#1d2733", "#8a94a0"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5d3a9b", "#8b4513")
"""After Okabe and Ito: told apart by people with any colour vision. Markers differ too."""
MARKERS = "os^Dv<>P"
MOST_NAMED_SITES = len(COLOURS)
"""With more institutions than colours, single ones are grey and their median is named."""


@dataclass(frozen=True)
class Curve:
    """One figure with the words that belong to it."""

    title: str
    explanation: str
    """One line: how to read it."""
    alt: str
    """What it shows, for someone who cannot see it."""
    svg: bytes


def series(history: History, *keys: str) -> tuple[list[int], np.ndarray]:
    """Return the trained rounds that have a value under ``keys``, and the values."""
    pairs = [(m["round"], _value(m, keys)) for m in history if m["round"] > 0]
    known = [(r, v) for r, v in pairs if v is not None and math.isfinite(v)]
    return [r for r, _ in known], np.array([v for _, v in known], float)


def _value(metrics: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        metrics = (metrics or {}).get(key)
    return metrics


def plot_sites(axes: Axes, history: History, key: str) -> None:
    """Draw one line a site from ``key``, which maps site names to values; many sites are drawn as a
    crowd."""
    sites = list(dict.fromkeys(site for m in history for site in m.get(key) or {}))
    many = len(sites) > MOST_NAMED_SITES
    for index, site in enumerate(sites):
        rounds, values = series(history, key, site)
        if many:
            faint(axes, rounds, values)
        else:
            line(axes, rounds, values, index, label(site), lw=1.3)
    if many:
        medians = [{"round": m["round"], "median": _median(m.get(key))} for m in history]
        rounds, middle = series(medians, "median")
        axes.plot(rounds, middle, color=COLOURS[0], lw=2, label=f"median of {len(sites)} sites")


def _median(by_site: Mapping[str, float | None] | None) -> float | None:
    known = [v for v in (by_site or {}).values() if v is not None]
    return float(np.median(known)) if known else None


def label(site: str) -> str:
    """Return a legend entry: matplotlib hides names that begin with an underscore and reads $ as
    mathematics."""
    name = clean(site).replace("$", r"\$").lstrip("_") or "site"
    return name if len(name) <= 24 else name[:23] + "…"


def faint(axes: Axes, xs: Sequence[float], values: np.ndarray) -> None:
    """Draw one nameless line of a crowd."""
    axes.plot(xs, values, color=GREY, lw=0.6, alpha=0.6)


def line(axes: Axes, xs: Sequence[float], values: np.ndarray, index: int, name: str, lw: float = 1.8) -> None:
    """Draw a named line in the colour and with the marker of ``index``; nothing where there are no
    points."""
    if xs:
        style = {"color": COLOURS[index % 8], "marker": MARKERS[index % 8], "ms": 4, "lw": lw}
        axes.plot(xs, values, label=name, **style)  # type: ignore[arg-type]


def panels(left: str, right: str, xlabel: str = "round") -> tuple[Figure, tuple[Axes, Axes]]:
    """Return a figure with two titled axes beside each other."""
    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    return figure, (style(axes[0], left, xlabel), style(axes[1], right, xlabel))


def style(axes: Axes, title: str, xlabel: str = "round") -> Axes:
    """Give ``axes`` the look of the report, and return them."""
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.set_xlabel(xlabel, fontsize=9, color=INK)
    if xlabel == "round":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="#e3e7ec", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=8.5, colors=INK, length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    return axes


def curve(figure: Figure, title: str, explanation: str, alt: str) -> Curve:
    """Add legends to ``figure`` and render it. The same run gives the same bytes."""
    for axes in figure.axes:
        left, right = axes.get_xlim()
        if right - left < 1 and axes.get_xlabel() == "round":  # a single round: half a round of air on either side
            axes.set_xlim((left + right) / 2 - 0.5, (left + right) / 2 + 0.5)
        if names := axes.get_legend_handles_labels()[1]:  # below the axes, where it hides no line
            columns = 7 if len(figure.axes) == 1 else 4 if sum(map(len, names)) < 40 else 3
            look: dict[str, Any] = {"fontsize": 8, "frameon": False, "labelcolor": INK, "columnspacing": 1.2}
            axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2), ncols=columns, handlelength=1.8, **look)
        elif not axes.has_data():
            axes.text(0.5, 0.5, "no values", ha="center", va="center", color=GREY, transform=axes.transAxes)
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "fedsense", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Curve(title, explanation, alt, buffer.getvalue())
