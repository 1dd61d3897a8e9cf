"""Rows that put a published figure beside ours, for ``anchors.py``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

HEAD = "| what | published | ours ± deviation over seeds | difference |\n|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """One published figure and ours."""

    what: str
    published: float | str
    """A figure, or in words what the source says."""
    ours: Sequence[float]
    """One for each seed; a single one where nothing is random."""
    digits: int = 4
    """Significant digits to print."""

    def __str__(self) -> str:
        mean = float(np.mean(self.ours))
        spread = f" ± {np.std(self.ours, ddof=1):.1g}" if len(self.ours) > 1 else ""
        published, difference = str(self.published), ""
        if isinstance(self.published, float):
            published = f"{self.published:.{self.digits}g}"
            difference = f"{100 * (mean / self.published - 1):+.1f} %" if self.published else f"{mean:.1g}"
        return f"| {self.what} | {published} | {mean:.{self.digits}g}{spread} | {difference} |"


def print_table(rows: Iterable[Row]) -> None:
    """Print rows as they come."""
    print(HEAD)
    for row in rows:
        print(row, flush=True)
