"""The curves of a report.

Each function takes the lines of ``metrics.jsonl`` and returns a Curve, or None when the run holds
nothing to draw.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from fedsense_core.run_folder.formatting import first_probe, first_weights, float32_bytes, human_bytes, number, probed
from fedsense_core.tools.reporting.canvas import (
    COLOURS,
    GREY,
    INK,
    Curve,
    History,
    curve,
    line,
    panels,
    plot_sites,
    series,
    style,
)


def draw_all(history: History) -> list[Curve]:
    """Return every curve that ``history`` has values for, in the order of the report."""
    drawn = (draw(history) for draw in (probes, loss, bytes_sent, drift, guidance, seconds))
    return [c for c in drawn if c is not None]


def loss(history: History) -> Curve | None:
    """Draw the local loss, in all and by site, and its parts."""
    rounds, total = series(history, "loss")
    if not rounds:
        return None
    figure, (left, right) = panels("loss of local training", "parts of the loss")
    plot_sites(left, history, "loss_by_site")
    left.plot(rounds, total, color=INK, lw=2.4, marker="o", ms=3.5, label="mean over clients")
    for index, (key, name) in enumerate(
        [
            ("ssl_loss", "self-supervised"),
            ("alignment_loss", "alignment"),
            ("distillation_loss", "public set (server)"),
        ]
    ):
        line(right, *series(history, key), index, name)
    return curve(
        figure,
        "Loss",
        "Mean loss of the local steps of each round; sites differ because their imagery does.",
        f"Line chart: the mean loss goes from {number(total[0])} in round {rounds[0]} to {number(total[-1])} in round "
        f"{rounds[-1]}.",
    )


def probes(history: History) -> Curve | None:
    """Draw both probes beside those before training."""
    lines, first, weights = probed(history), first_probe(history), first_weights(history)
    if not lines and not first:
        return None
    figure, pair = panels("linear probe, macro F1", "nearest neighbours, macro F1")
    keys = ("linear_macro_f1", "knn_macro_f1")
    for index, (axes, key) in enumerate(zip(pair, keys, strict=True)):
        rounds, values = series(lines, "probe", key)
        line(axes, rounds, values, index, "this run")
        errors = np.array([m["probe"].get(f"{key}_se") or 0.0 for m in lines if m["round"] in rounds])
        if errors.any():
            axes.fill_between(rounds, values - errors, values + errors, color=COLOURS[index], alpha=0.18, lw=0)
        if first and first.get(key) is not None:
            level, error = first[key], first.get(f"{key}_se") or 0.0
            axes.axhline(level, color=GREY, ls="--", lw=1.6, label=weights)
            axes.axhspan(level - error, level + error, color=GREY, alpha=0.15, lw=0)
    before = number((first or {}).get("linear_macro_f1"))
    after = number(lines[-1]["probe"].get("linear_macro_f1")) if lines else "no value yet"
    return curve(
        figure,
        "Quality of the encoder",
        "Frozen features on the labelled set; the band is one standard error over scenes, the dashed line an encoder "
        f"with {weights}.",
        f"Line charts of macro F1 by round: the linear probe ends at {after}, {weights} give {before}.",
    )


def bytes_sent(history: History) -> Curve | None:
    """Draw bytes up and down, by round and in all, against float32 models."""
    lines = [m for m in history if m.get("bytes_up") is not None and m["round"] > 0]
    if not any(m["bytes_up"] or m.get("bytes_down") for m in lines):
        return None
    figure, (left, right) = panels("bytes in each round", "bytes in all")
    totals = []
    for index, (key, name) in enumerate([("bytes_up", "up"), ("bytes_down", "down")]):
        rounds, values = series(lines, key)
        line(left, rounds, values, index, name)
        line(right, rounds, np.nancumsum(values), index, name)
        totals.append(human_bytes(np.nansum(values)))
        plain = [float32_bytes(m) for m in lines]
        if all(plain):
            sent = np.array([pair[index] for pair in plain if pair], float)
            for axes, data in ((left, sent), (right, sent.cumsum())):
                axes.plot(rounds, data, color=COLOURS[index], ls=":", lw=1.6, label=f"{name}, float32")
    for axes in (left, right):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: human_bytes(value)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    return curve(
        figure,
        "Bytes",
        "Exact bytes of all messages, on a logarithmic scale; dotted: the same messages as float32 models.",
        f"Line charts: in all, {totals[0]} went up and {totals[1]} went down.",
    )


def drift(history: History) -> Curve | None:
    """Draw how far each client's update lies from the mean one."""
    if not any(m.get("drift") or m.get("cosine") for m in history):
        return None
    figure, (left, right) = panels("drift ‖Δᵢ − Δ̄‖ / ‖Δ̄‖", "cosine of Δᵢ and Δ̄")
    plot_sites(left, history, "drift")
    plot_sites(right, history, "cosine")
    values = [v for m in history for v in (m.get("cosine") or {}).values() if v is not None]
    spread = f" from {min(values):.2f} to {max(values):.2f}" if values else " not measured"
    return curve(
        figure,
        "Client drift",
        "How much each institution's update departs from the mean update: low drift and high cosine mean agreement.",
        f"Line charts by site: cosines with the mean update range{spread}.",
    )


def guidance(history: History) -> Curve | None:
    """Draw the guidance radius with its ramp, and the norms it is relative to."""
    if not any(m.get("radius") is not None or m.get("update_norm") is not None for m in history):
        return None
    figure, (left, right) = panels("guidance", "norms of global updates")
    for index, (axes, key, name) in enumerate(
        [
            (left, "radius", "radius ‖ρ‖"),
            (left, "ramp", "ramp"),
            (right, "update_norm", "mean update ‖Δ̄‖"),
            (right, "momentum_norm", "momentum ‖m̂‖"),
        ]
    ):
        line(axes, *series(history, key), index, name)
    left.set_ylim(bottom=0)
    return curve(
        figure,
        "Server-to-client guidance",
        "How far clients start on the sharp side of the global model, over all tensors, and the ramp of that radius.",
        "Line charts of guidance radius, ramp, update norm and momentum norm by round.",
    )


def seconds(history: History) -> Curve | None:
    """Draw the seconds of each round, stacked by phase."""
    lines = [m for m in history if m.get("seconds")]
    if not lines:
        return None
    phases = list(dict.fromkeys(p for m in lines for p in m["seconds"] if p != "total"))
    figure = Figure(figsize=(9.2, 3.3), layout="constrained")
    axes = style(figure.subplots(), "seconds by phase")
    rounds = [m["round"] for m in lines]
    bottom = np.zeros(len(lines))
    for index, phase in enumerate(phases):
        heights = np.array([m["seconds"].get(phase) or 0.0 for m in lines])
        axes.bar(rounds, heights, 0.7, bottom=bottom, color=COLOURS[index % 8], label=phase, edgecolor="white", lw=0.6)
        bottom += heights
    return curve(
        figure,
        "Time",
        "Wall-clock seconds of each round by phase; clients train at the same time.",
        f"Stacked bars: rounds take {bottom.min():.1f} to {bottom.max():.1f} seconds.",
    )
