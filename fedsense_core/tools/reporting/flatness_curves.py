"""The curves of ``fedsense analyse``: sharpness, loss along paths, and how alike the models are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from fedsense_core.tools.reporting.canvas import (
    COLOURS,
    INK,
    MOST_NAMED_SITES,
    Curve,
    curve,
    faint,
    label,
    line,
    panels,
)
from fedsense_core.tools.reporting.flatness_section import Analysis, short

MOST_WRITTEN = 12
"""Encoders up to which the heat map shows its values."""
MOST_TICKS = 24
"""Names along an axis; of more, every second or third is shown."""


def draw_all(analysis: Analysis) -> list[Curve]:
    """Return every curve that there is something to draw for."""
    drawn = (sharpness(analysis), paths(analysis), alignment(analysis))
    return [one for one in drawn if one is not None]


def sharpness(analysis: Analysis) -> Curve:
    """Draw the rise of the loss against how far one goes, along the gradient and at random."""
    sam, noise = analysis["sam"], analysis["noise"]
    figure, (left, right) = panels("along the gradient", "at random", xlabel="ρ in % of ‖w‖")
    right.set_xlabel("σ in % of each tensor's norm", fontsize=9, color=INK)
    reaches = [100 * share for share in sam["relative_radius"]]
    line(left, reaches, np.array(_known(sam["sharpness"])), 0, "L(w + e) − L(w)")
    shares, rises = [100 * sigma for sigma in noise["sigma"]], np.array(_known(noise["sharpness"]))
    line(right, shares, rises, 1, "mean of L(w + e) − L(w)")
    errors = np.array(_known(noise["standard_error"]))
    right.fill_between(shares, rises - errors, rises + errors, color=COLOURS[1], alpha=0.18, lw=0)
    for axes, xs in ((left, reaches), (right, shares)):
        axes.set_xscale("log")
        axes.set_xticks(xs, [f"{x:.2g}" for x in xs])
        axes.minorticks_off()
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    return curve(
        figure,
        "Sharpness against distance",
        "How much the loss of the global model rises at a distance ρ up its gradient, and on average under noise; the "
        "band is one standard error.",
        f"Line charts: the loss rises by {short(sam['sharpness'][-1])} at the largest radius and by "
        f"{short(noise['sharpness'][-1])} under the strongest noise.",
    )


def paths(analysis: Analysis) -> Curve | None:
    """Draw the loss on the straight line from the global model to each client's."""
    alphas, clients = analysis["paths"]["alpha"], analysis["paths"]["clients"]
    if not clients:
        return None
    figure, (left, right) = panels("loss over all imagery", "loss over the client's own imagery", xlabel="α")
    _lines(left, alphas, {name: path["loss"] for name, path in clients.items()})
    _lines(right, alphas, {name: path["loss_own"] for name, path in clients.items() if path["loss_own"]})
    return curve(
        figure,
        "From the global model to each client's",
        "Loss at (1 − α) times the global model plus α times what a client made of it in the last round. A hump "
        "between the ends is a barrier.",
        f"Line charts by client: the largest barrier is {short(analysis['paths']['largest_barrier'])}.",
    )


def alignment(analysis: Analysis) -> Curve | None:
    """Draw how alike the encoders see the same images, and how far the models are apart."""
    cka, clients = analysis["cka"], analysis["paths"]["clients"]
    if not cka:
        return None
    matrix = np.array([_known(row) for row in cka["matrix"]])
    figure, (left, right) = panels("linear CKA of encoders", "distance ‖wᵢ − w‖ to the global model", xlabel="")
    figure.set_size_inches(9.2, 3.2 + 0.16 * len(matrix))
    _heat_map(figure, left, [label(name) for name in cka["names"]], matrix)
    bars = right.barh(range(len(clients)), _known([path["distance"] for path in clients.values()]), color=COLOURS[0])
    _name_ticks(right.yaxis, [label(name) for name in clients])
    right.invert_yaxis()
    if len(clients) <= MOST_WRITTEN:
        right.bar_label(bars, fmt="%.3g", padding=3, fontsize=8, color=INK)
    return curve(
        figure,
        "Likeness of the clients' models",
        f"CKA 1: two encoders see {cka['images']} images alike, whatever the basis of their features; 0: unrelated "
        f"({cka['estimator']}).",
        f"Heat map of {len(matrix)} encoders, CKA from {np.nanmin(matrix):.2f} to 1, and bars of distances by client.",
    )


def _heat_map(figure: Figure, axes: Axes, names: list[str], matrix: np.ndarray) -> None:
    axes.grid(visible=False)
    lowest = float(np.floor(10 * min(np.nanmin(matrix), 0.9)) / 10)
    image = axes.imshow(matrix, vmin=lowest, vmax=1, cmap="viridis")
    figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=8.5, colors=INK)
    _name_ticks(axes.yaxis, names)
    _name_ticks(axes.xaxis, names)
    axes.tick_params(axis="x", labelrotation=90)
    if len(names) <= MOST_WRITTEN:
        for (i, j), value in np.ndenumerate(matrix):
            ink = "white" if value < (1 + lowest) / 2 else "black"
            axes.text(j, i, f"{value:.3f}", ha="center", va="center", fontsize=7, color=ink)


def _name_ticks(axis: Axis, names: list[str]) -> None:
    every = 1 + len(names) // MOST_TICKS
    axis.set_ticks(range(0, len(names), every), names[::every])


def _lines(axes: Axes, xs: Sequence[float], by_name: Mapping[str, Sequence[float | None]]) -> None:
    if len(by_name) > MOST_NAMED_SITES:
        for values in by_name.values():
            faint(axes, xs, np.array(_known(values)))
        middle = np.nanmedian([_known(values) for values in by_name.values()], axis=0)
        axes.plot(xs, middle, color=COLOURS[0], lw=2, label=f"median of {len(by_name)} clients")
        return
    for index, (name, values) in enumerate(by_name.items()):
        line(axes, xs, np.array(_known(values)), index, label(name), lw=1.3)


def _known(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
