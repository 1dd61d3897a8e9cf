"""All metrics of a benchmark as one JSON object, from which tables and plots are made.

Scores are between 0 and 1, differences in percentage points.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from fedsense_core.tools.benchmark.collection import Collected, Row
from fedsense_core.tools.benchmark.differences import Difference, Pool, Sampled, difference, holm, share
from fedsense_core.tools.benchmark.flatness_summary import flatness_row
from fedsense_core.tools.benchmark.matrix import NO_TRAFFIC, Matrix

Summary = dict[str, Any]
POINTS = ("mean", "error", "low", "high", "seed_error", "group_error")
"""Of a difference: given in percentage points."""


def summarise(matrix: Matrix, collected: Collected) -> Summary:
    """Return every metric of the tables."""
    rows, pool = collected.rows, collected.pool
    return {
        "title": matrix.title,
        "compressions": list(matrix.compressions),
        "tasks": {
            name: {
                "label": task.label or name,
                "task": task.task,
                "mode": task.mode,
                "head": task.head,
                "metric": collected.metrics[name],
                "weight": float(pool.weights_T[t]),
                "groups": pool.groups_T[t],
                "note": collected.notes.get(name, ""),
            }
            for t, (name, task) in enumerate(matrix.tasks.items())
        },
        "rows": [_row(row, list(matrix.tasks), rows, pool) for row in rows],
        "comparisons": [
            found for name in matrix.compare for found in _comparisons(name, matrix, rows, pool) if found["rows"]
        ],
        "missing": collected.missing,
        "sources": collected.sources,
    }


def _row(row: Row, tasks: list[str], rows: list[Row], pool: Pool) -> Summary:
    pooled_S = row.sampled.points_ST @ pool.weights_T
    lowest, highest = _pooled(rows, pool, "random", row), _pooled(rows, pool, "centralised", row)
    return {
        "key": row.key,
        "label": row.label,
        "method": row.method.name,
        "preset": row.method.based_on,
        "family": row.method.family,
        "compression": row.compression,
        "seeds": list(row.sampled.seeds),
        "scores": {name: row.sampled.points_ST[:, t].tolist() for t, name in enumerate(tasks)},
        "mean": {name: float(row.sampled.points_ST[:, t].mean()) for t, name in enumerate(tasks)},
        "deviation": {name: _deviation(row.sampled.points_ST[:, t]) for t, name in enumerate(tasks)},
        "pooled": float(pooled_S.mean()),
        "pooled_deviation": _deviation(pooled_S),
        "of_centralised": _number(float(pooled_S.mean()) / highest) if highest else None,
        "gain_of_centralised": _number(share(float(pooled_S.mean()), lowest, highest))
        if highest is not None and lowest is not None
        else None,
        "bytes_up": row.bytes_up,
        "bytes_down": row.bytes_down,
        "seconds": row.seconds,
        "flatness": flatness_row(row.analyses) if row.analyses else None,
    }


def _pooled(rows: list[Row], pool: Pool, role: str, beside: Row) -> float | None:
    """Return the pooled score of random weights or of ``centralised`` that stands beside a row;
    None without one."""
    for row in rows:
        fits = row.method.untrained if role == "random" else row.method.name == role
        if fits and row.compression in (NO_TRAFFIC, beside.compression):
            return float((row.sampled.points_ST @ pool.weights_T).mean())
    return None


def _comparisons(name: str, matrix: Matrix, rows: list[Row], pool: Pool) -> list[Summary]:
    """Return the comparisons against one method: one at each compression, or one with the rows of
    all compressions."""
    method, _, compression = name.partition("@")
    found = []
    for reference in rows:
        if reference.method.name != method or reference.key.endswith(":best"):
            continue
        if compression and reference.compression != compression:
            continue
        alone = not compression and reference.compression != NO_TRAFFIC
        beside = [*((reference.compression,) if alone else matrix.compression_names), NO_TRAFFIC]
        found.append(_against(reference, [row for row in rows if row.compression in beside], pool, list(matrix.tasks)))
    return found


def _against(reference: Row, rows: list[Row], pool: Pool, tasks: list[str]) -> Summary:
    pairs = [(row, difference(row.sampled, reference.sampled, pool)) for row in rows if row.key != reference.key]
    known = [(row, found) for row, found in pairs if found is not None and np.isfinite(found.mean)]
    corrected = holm([found.p for _, found in known])
    return {
        "reference": reference.key,
        "label": reference.label,
        "compression": reference.compression,
        "family": len(known),
        "rows": [
            {
                "key": row.key,
                "label": row.label,
                "compression": row.compression,
                "pooled": _difference(replace(found, p_holm=p)),
                "tasks": {name: _of_task(row.sampled, reference.sampled, pool, t) for t, name in enumerate(tasks)},
            }
            for (row, found), p in zip(known, corrected, strict=True)
        ],
    }


def _of_task(one: Sampled, other: Sampled, pool: Pool, t: int) -> Summary:
    def alone(sampled: Sampled) -> Sampled:
        return Sampled(sampled.seeds, sampled.points_ST[:, t : t + 1], sampled.draws_STB[:, t : t + 1])

    found = difference(alone(one), alone(other), pool.only(t))
    assert found is not None  # the pooled difference was
    return _difference(found)


def _difference(found: Difference) -> Summary:
    values = asdict(found)
    points = {key: 100 * values[key] for key in POINTS}
    return {key: _number(value) for key, value in {**values, **points}.items()} | {"above": bool(found.above)}


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _deviation(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None
