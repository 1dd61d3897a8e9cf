"""What ``fedsense analyse`` measured, as rows of a table and as figures; the same words in terminal
and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from fedsense_core.run_folder.formatting import number
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

Analysis = Mapping[str, Any]
"""What `analyse_run` returns."""
MOST_WRITTEN = 12
"""Encoders up to which the heat map shows its figures."""
MOST_TICKS = 24
"""Names along an axis; of more, every second or third is shown."""


@dataclass(frozen=True)
class Figured:
    """One row of the table."""

    what: str
    value: str
    meaning: str


def summary(analysis: Analysis) -> str:
    """Return in one paragraph what the loss is, and with what it may be compared."""
    settings, run = analysis["settings"], analysis["run"]
    each = settings["batches_each"]
    batches = f"{each} batch{'' if each == 1 else 'es'} of {settings['train']['batch_size']}"
    clients = settings["imagery"] == "clients"
    whose = (
        f"{batches} chips of each of {len(settings['institutions'])} clients" if clients else f"{batches} public chips"
    )
    notes = " ".join(analysis["notes"])
    return (
        f"The loss is that of the recipe {settings['train']['recipe']}, without alignment, over {whose}, with fixed "
        f"views. Compare it with that of another run only under the same recipe, settings of the loss and imagery. "
        f"‖w‖ over {run['parameters']:,} parameters sets the scale: a loss that does not change when weights grow "
        f"looks flatter at larger weights. {notes}"
    ).strip()


def rows(analysis: Analysis) -> list[Figured]:
    """Return the figures of the table."""
    loss, hessian, paths, cka = (analysis[key] for key in ("loss", "hessian", "paths", "cka"))
    found = [
        Figured(
            "loss",
            number(loss["value"], 4),
            f"{number(loss['at_start'], 4)} where the clients of the last round started",
        ),
        Figured("gradient norm", _short(loss["gradient_norm"]), "‖∇L‖; 0 at a minimum"),
        Figured("weight norm", _short(loss["weight_norm"]), "‖w‖"),
        *(
            Figured(f"{end} Hessian eigenvalue", _short(hessian[end]["value"]), _accuracy(hessian, end))
            for end in ("largest", "smallest")
        ),
    ]
    sam, noise = analysis["sam"], analysis["noise"]
    for radius, share, rise in zip(sam["radius"], sam["relative_radius"], sam["sharpness"], strict=True):
        meaning = f"rise of the loss {radius:.3g} ({100 * share:.2g} % of ‖w‖) along its gradient"
        found.append(Figured("SAM sharpness", _short(rise), meaning))
    for sigma, rise, error in zip(noise["sigma"], noise["sharpness"], noise["standard_error"], strict=True):
        meaning = f"mean rise under noise of {100 * sigma:.2g} % of each tensor"
        found.append(Figured("average-case sharpness", f"{_short(rise)} ± {_short(error)}", meaning))
    if paths["clients"]:
        meaning = "how far the loss rises above the chord from the global model to a client's; largest over clients"
        mean = f"{meaning} (mean {_short(paths['mean_barrier'])})"
        found.append(Figured("loss barrier", _short(paths["largest_barrier"]), mean))
    if cka:
        between = number(cka["mean_between_clients"])
        meaning = f"likeness of encoders, mean over pairs of clients; to the global one {number(cka['mean_to_global'])}"
        found.append(Figured("linear CKA", between, f"{meaning}; {cka['estimator']}, {cka['images']} images"))
    return found


def figures(analysis: Analysis) -> list[Curve]:
    """Return every figure that there is something for."""
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
        f"Line charts: the loss rises by {_short(sam['sharpness'][-1])} at the largest radius and by "
        f"{_short(noise['sharpness'][-1])} under the strongest noise.",
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
        f"Line charts by client: the largest barrier is {_short(analysis['paths']['largest_barrier'])}.",
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


def _accuracy(hessian: Mapping[str, Any], end: str) -> str:
    how = f"an eigenvalue lies within {_short(hessian[end]['residual'])} of it; {hessian['products']} Hessian products"
    return how if hessian[end]["converged"] else f"not converged: {how}"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _known(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
