"""Numbers as a person reads them: one place, so that terminal and report say the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

UNITS = ("B", "kB", "MB", "GB", "TB")


def human_bytes(count: float) -> str:
    """Return ``count`` bytes in decimal units and three digits: 1234567 is "1.23 MB"."""
    size, unit = float(count), 0
    while size >= 999.5 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    digits = 0 if unit == 0 or size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{size:.{digits}f} {UNITS[unit]}"


def human_seconds(seconds: float) -> str:
    """Return a duration: "0.4 s", "41 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 3570:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h" + (f" {rest} min" if rest else "")


def number(value: float | None, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` decimals, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def with_error(value: float | None, error: float | None) -> str:
    """Return "0.412 ± 0.018", without the second part where no standard error is known."""
    return number(value) if error is None else f"{number(value)} ± {number(error)}"


def clean(text: str) -> str:
    """Return ``text`` without control characters: a client chooses its name, and terminals obey
    escape codes."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def float32_bytes(metrics: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the bytes (up, down) of one round if every message were a float32 model, None where
    unknown.

    Up counts the accepted replies only, so a rejected one never makes the codec look better; down
    counts every client that was asked. Needs ``elements``, the number of travelling parameters, and
    ``asked`` in the metrics.
    """
    if not metrics.get("elements"):
        return None
    model = 4 * int(metrics["elements"])
    accepted = len(metrics.get("accepted", ()))
    return model * accepted, model * int(metrics.get("asked", accepted))


def fewer(plain: float, sent: float) -> str:
    """Return how many times ``sent`` goes into ``plain`` bytes: "29.8 times fewer than float32"."""
    if not sent or not plain:
        return ""
    ratio = plain / sent
    return (
        f"{ratio:.1f} times fewer than float32"
        if ratio >= 1.05
        else f"{100 * sent / plain:.0f} % of what float32 takes"
    )


def first_probe(history: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Return the probe of the weights before training: that of round 0."""
    return next((m["probe"] for m in history if m["round"] == 0 and m.get("probe")), None)


def first_weights(history: Sequence[Mapping[str, Any]]) -> str:
    """Return what the weights before training were: "random weights", or "given weights" where
    ``model.weights`` named some."""
    return next((f"{m['weights']} weights" for m in history if m["round"] == 0 and "weights" in m), "random weights")


def probed(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lines of trained rounds that carry a probe."""
    return [m for m in history if m["round"] > 0 and m.get("probe")]
