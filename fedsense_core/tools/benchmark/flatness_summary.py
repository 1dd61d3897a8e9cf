"""How flat and how far apart the models of a benchmark are: what ``analyse = true`` adds to its
tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from fedsense_core.tools.reporting.flatness_section import Analysis

CURVATURE = "λ max"
HOW = (
    "Of the global model, under the recipe's loss over the imagery of all clients: its largest Hessian eigenvalue, how "
    "far the loss rises up its gradient at shares of ‖w‖ (SAM) and under noise of shares of each tensor's norm, and on "
    "the way to the clients' models (barrier). CKA is between clients' encoders; drift and cosine are means over "
    "rounds. ≥: too few steps for an eigenvalue, which is larger. Only metrics of the same loss, imagery and options "
    "compare; there is no ratio where they differ."
)


def metrics_of(analysis: Analysis) -> dict[str, float | None]:
    """Return the metrics of one run by their heading; None where one was not measured."""
    paths, cka, rounds = analysis["paths"], analysis["cka"] or {}, analysis["rounds"]
    found = {"loss": analysis["loss"]["value"], CURVATURE: analysis["hessian"]["largest"]["value"]}
    sam, noise = analysis["sam"], analysis["noise"]
    for share, rise in zip(sam["relative_radius"], sam["sharpness"], strict=True):
        found[f"SAM, {100 * share:.3g} %"] = rise
    for sigma, rise in zip(noise["sigma"], noise["sharpness"], strict=True):
        found[f"noise, {100 * sigma:.3g} %"] = rise
    found["barrier"] = paths["mean_barrier"]
    found["CKA"] = cka.get("mean_between_clients")
    for name in ("drift", "cosine"):
        known = [line[name] for line in rounds if line[name] is not None]
        found[name] = fmean(known) if known else None
    return found


def flatness_row(by_seed: Mapping[int, Analysis]) -> dict[str, Any]:
    """Return the metrics of one method at one compression by heading, for each analysed seed, and
    what they are of."""
    seeds = sorted(by_seed)
    each = [metrics_of(by_seed[seed]) for seed in seeds]
    names = dict.fromkeys(name for one in each for name in one)
    return {
        "seeds": seeds,
        "values": {name: [one.get(name) for one in each] for name in names},
        "unconverged": sum(not by_seed[seed]["hessian"]["largest"]["converged"] for seed in seeds),
        "of": [_what(by_seed[seed]) for seed in seeds],
    }


def ratio(one: Mapping[str, Any], other: Mapping[str, Any], metric: str) -> list[float]:
    """Return the ratio of one row to another for each seed that both have, measured alike.

    Empty where a value is missing, or not above zero, in either.
    """
    mine, theirs = (
        dict(zip(zip(row["seeds"], row["of"], strict=True), row["values"].get(metric, []), strict=False))
        for row in (one, other)
    )
    pairs = [(mine[key], theirs[key]) for key in mine if key in theirs]
    if any(value is None or not value > 0 for pair in pairs for value in pair):
        return []
    return [a / b for a, b in pairs]


def flatness_tables(
    rows: Sequence[Mapping[str, Any]], comparisons: Sequence[Mapping[str, Any]]
) -> list[tuple[str, list[list[str]]]]:
    """Return title and lines of each table: the metrics, and their ratios to the method of each
    comparison.

    Rows and comparisons are those of a summary; rows that were not analysed are left out.
    """
    measured = {row["key"]: row for row in rows if row["flatness"]}
    names = list(dict.fromkeys(name for row in measured.values() for name in row["flatness"]["values"]))
    head = ["method", "compression", "seeds", *names]
    tables = []
    if measured:
        tables.append(("Flatness and drift", [head, *(_metrics(row, names) for row in measured.values())]))
    for one in comparisons:
        reference = measured.get(one["reference"])
        beside = [measured[row["key"]] for row in one["rows"] if row["key"] in measured]
        if reference and beside:
            title = (
                f"Flatness and drift over those of {one['label']} at compression {one['compression']}, paired by seed"
            )
            tables.append((title, [head, *(_ratios(row, reference, names) for row in beside)]))
    return tables


def _metrics(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    flatness = row["flatness"]
    cells = []
    for name in names:
        known = np.array([value for value in flatness["values"].get(name, []) if value is not None])
        bound = "≥ " if name == CURVATURE and flatness["unconverged"] else ""
        spread = f" ± {known.std(ddof=1):.2g}" if len(known) > 1 else ""
        cells.append(f"{bound}{known.mean():.3g}{spread}" if len(known) else "–")
    return [row["label"], row["compression"], str(len(flatness["seeds"])), *cells]


def _ratios(row: Mapping[str, Any], reference: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    found = [ratio(row["flatness"], reference["flatness"], name) for name in names]
    return [row["label"], row["compression"], str(max(map(len, found), default=0)), *map(_ratio, found)]


def _ratio(found: Sequence[float]) -> str:
    """Return the geometric mean, with the least and the largest of several."""
    if not found:
        return "–"
    mean = float(np.exp(np.log(found).mean()))
    return f"{mean:.2f}" + (f" ({min(found):.2f} to {max(found):.2f})" if len(found) > 1 else "")


def _what(analysis: Analysis) -> str:
    """Return what two analyses must share to be compared."""
    settings = {key: value for key, value in analysis["settings"].items() if key != "device"}
    return json.dumps([analysis["format"], settings], sort_keys=True)
