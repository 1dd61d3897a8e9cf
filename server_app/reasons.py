"""Why clients do not take part, in one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fedsense_core.errors import Rejected

MOST_NAMES = 5
"""Clients that an error names of those that are left out for one reason."""


def grouped(rejected: Iterable[Rejected]) -> str:
    """Return who is left out and why, those together that are for one reason; empty for nobody."""
    alike: dict[str, set[str]] = {}
    for one in rejected:
        alike.setdefault(one.reason, set()).add(one.node)
    return "; ".join(f"{_listed(sorted(who))}: {why}" for why, who in alike.items())


def _listed(names: Sequence[str]) -> str:
    """Return some of the names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
