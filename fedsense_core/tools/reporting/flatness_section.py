"""What ``fedsense analyse`` measured, in words and as rows of a table; the same in terminal and
report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedsense_core.run_folder.formatting import number

Analysis = Mapping[str, Any]
"""What `analyse_run` returns."""


@dataclass(frozen=True)
class FlatnessRow:
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


def rows(analysis: Analysis) -> list[FlatnessRow]:
    """Return the rows of the table."""
    loss, hessian, paths, cka = (analysis[key] for key in ("loss", "hessian", "paths", "cka"))
    found = [
        FlatnessRow(
            "loss",
            number(loss["value"], 4),
            f"{number(loss['at_start'], 4)} where the clients of the last round started",
        ),
        FlatnessRow("gradient norm", short(loss["gradient_norm"]), "‖∇L‖; 0 at a minimum"),
        FlatnessRow("weight norm", short(loss["weight_norm"]), "‖w‖"),
        *(
            FlatnessRow(f"{end} Hessian eigenvalue", short(hessian[end]["value"]), _accuracy(hessian, end))
            for end in ("largest", "smallest")
        ),
    ]
    sam, noise = analysis["sam"], analysis["noise"]
    for radius, share, rise in zip(sam["radius"], sam["relative_radius"], sam["sharpness"], strict=True):
        meaning = f"rise of the loss {radius:.3g} ({100 * share:.2g} % of ‖w‖) along its gradient"
        found.append(FlatnessRow("SAM sharpness", short(rise), meaning))
    for sigma, rise, error in zip(noise["sigma"], noise["sharpness"], noise["standard_error"], strict=True):
        meaning = f"mean rise under noise of {100 * sigma:.2g} % of each tensor"
        found.append(FlatnessRow("average-case sharpness", f"{short(rise)} ± {short(error)}", meaning))
    if paths["clients"]:
        meaning = "how far the loss rises above the chord from the global model to a client's; largest over clients"
        mean = f"{meaning} (mean {short(paths['mean_barrier'])})"
        found.append(FlatnessRow("loss barrier", short(paths["largest_barrier"]), mean))
    if cka:
        between = number(cka["mean_between_clients"])
        meaning = f"likeness of encoders, mean over pairs of clients; to the global one {number(cka['mean_to_global'])}"
        found.append(FlatnessRow("linear CKA", between, f"{meaning}; {cka['estimator']}, {cka['images']} images"))
    return found


def _accuracy(hessian: Mapping[str, Any], end: str) -> str:
    how = f"an eigenvalue lies within {short(hessian[end]['residual'])} of it; {hessian['products']} Hessian products"
    return how if hessian[end]["converged"] else f"not converged: {how}"


def short(value: float | None) -> str:
    """Return ``value`` in three digits, or a dash where there is none."""
    return "–" if value is None else f"{value:.3g}"
