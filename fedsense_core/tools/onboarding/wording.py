"""Numbers and names of files in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from fedsense_core.run_folder.formatting import clean

NAMED = 5
"""Files that are named one by one; of the others the number is said."""


def count(number: int, what: str) -> str:
    """Return "1 file", "2,000 files"."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(clean(name) for name in names[:NAMED]) + more
