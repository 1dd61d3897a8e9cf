"""How flat and how far apart the models of a benchmark are: what ``analyse = true`` adds to its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

Analysis = Mapping[str, Any]
"""What `fedsense analyse` measured of one run."""
HOW = (
    "Of the global model, under the recipe's loss over the imagery of all clients: its largest Hessian eigenvalue, how "
    "far the loss rises up its gradient at shares of ‖w‖ (SAM) and under noise of shares of each tensor's norm, and on "
    "the way to the clients' models (barrier). CKA is between clients' encoders; drift and cosine are means over "
    "rounds. Only figures of one recipe compare."
)


def figures_of(analysis: Analysis) -> dict[str, float | None]:
    """Return the figures of one run by their heading; None where one was not measured."""
    paths, cka, rounds = analysis["paths"], analysis["cka"] or {}, analysis["rounds"]
    found = {"loss": analysis["loss"]["value"], "λ max": analysis["hessian"]["largest"]["value"]}
    sam, noise = analysis["sam"], analysis["noise"]
    for share, rise in zip(sam["relative_radius"], sam["sharpness"], strict=True):
        found[f"SAM, {100 * share:.2g} %"] = rise
    for sigma, rise in zip(noise["sigma"], noise["sharpness"], strict=True):
        found[f"noise, {100 * sigma:.2g} %"] = rise
    found["barrier"] = paths["mean_barrier"]
    found["CKA"] = cka.get("mean_between_clients")
    for name in ("drift", "cosine"):
        known = [line[name] for line in rounds if line[name] is not None]
        found[name] = fmean(known) if known else None
    return found


def flatness_row(by_seed: Mapping[int, Analysis]) -> dict[str, Any]:
    """Return the figures of one method at one wire: by heading, for each seed that was analysed."""
    seeds = sorted(by_seed)
    each = [figures_of(by_seed[seed]) for seed in seeds]
    return {"seeds": seeds, "values": {name: [one.get(name) for one in each] for name in each[0]}}


def ratio(one: Mapping[str, Any], other: Mapping[str, Any], figure: str) -> tuple[float, float, float] | None:
    """Return the geometric mean of the ratios of one row to another, paired by seed, and the least and the largest.

    None where a value is missing, or not above zero, in either.
    """
    mine, theirs = (dict(zip(row["seeds"], row["values"].get(figure, []), strict=False)) for row in (one, other))
    pairs = [(mine[seed], theirs[seed]) for seed in mine if seed in theirs]
    if not pairs or any(value is None or not value > 0 for pair in pairs for value in pair):
        return None
    ratios = np.array([a / b for a, b in pairs])
    return float(np.exp(np.log(ratios).mean())), float(ratios.min()), float(ratios.max())


def flatness_tables(rows: Sequence[Mapping[str, Any]], references: Sequence[str]) -> list[tuple[str, list[list[str]]]]:
    """Return a heading and the lines of each table: the figures, and their ratios to each reference.

    ``rows`` are those of a summary; ones that were not analysed are left out. ``references`` are their keys.
    """
    measured = [row for row in rows if row.get("flatness")]
    if not measured:
        return []
    names = list(measured[0]["flatness"]["values"])
    seeds = max(len(row["flatness"]["seeds"]) for row in measured)
    head = ["method", "wire", *names]
    tables = [
        (
            f"Flatness and drift: up to {seeds} seed{'s' * (seeds != 1)}",
            [
                head,
                *(
                    [*_named(row), *(_spread(row["flatness"]["values"].get(name)) for name in names)]
                    for row in measured
                ),
            ],
        )
    ]
    for reference in (row for row in measured if row["key"] in references):
        lines = [
            [*_named(row), *(_ratio(ratio(row["flatness"], reference["flatness"], name)) for name in names)]
            for row in measured
            if row is not reference
        ]
        if lines:
            tables.append((f"Flatness as a ratio to {' @ '.join(_named(reference))}, paired by seed", [head, *lines]))
    return tables


def _named(row: Mapping[str, Any]) -> list[str]:
    return [row["label"], row["wire"]]


def _spread(values: Sequence[float | None] | None) -> str:
    known = np.array([value for value in values or () if value is not None])
    if not len(known):
        return "–"
    return f"{known.mean():.3g}" + (f" ± {known.std(ddof=1):.2g}" if len(known) > 1 else "")


def _ratio(found: tuple[float, float, float] | None) -> str:
    return "–" if found is None else f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"
