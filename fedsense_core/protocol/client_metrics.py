"""What a client may say it measured. Nobody can check it; it must at least be possible.

Metrics are shown and written down, and weigh nothing but ``num-examples``, which admission bounds
by what a round can use.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from fedsense_core.errors import FrameError

MOST = 1e6
"""Losses, norms, seconds and examples."""
RANGES: dict[str, tuple[float, float]] = {
    r"num-examples": (0.0, MOST),
    r"(ssl|alignment)-loss": (-1.0, MOST),  # none is negative by more than the rounding of 16 bits
    r"shift-norm": (0.0, MOST),
    r"[a-z]{1,16}-seconds": (0.0, MOST),
    r"[a-z]{1,16}-memory-bytes": (0.0, 1e15),
    r"personal-share": (0.0, 1.0),
}
"""Least and most of each metric, by the pattern of its name."""


def believable(metrics: Mapping[str, object]) -> dict[str, float]:
    """Return the metrics of a reply, whoever sent it. Raises FrameError for one that has no known
    name, is not finite, or cannot be."""
    if len(metrics) > 64:
        raise FrameError(f"it has {len(metrics)} metrics, at most 64 are read")
    return {name: _believable(name, value) for name, value in metrics.items()}


def _believable(name: str, value: object) -> float:
    what = f"metric {_short(name)!r} is {_short(value)!r}"
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise FrameError(f"{what}, not a finite number")
    found = [bounds for pattern, bounds in RANGES.items() if re.fullmatch(pattern, name)]
    if not found:
        raise FrameError(f"metric {_short(name)!r} is none that was asked for")
    least, most = found[0]
    if not least <= value <= most:
        raise FrameError(f"{what}, not between {least:g} and {most:g}")
    return float(value)


def _short(text: object) -> str:
    """Return 60 printable characters of a stranger's words; of a list only that it is one."""
    words = str(text) if isinstance(text, str | int | float) else type(text).__name__
    return "".join(c if c.isprintable() else " " for c in words[:60])
