"""Globs that fit given names: their common parts, and letters that globs would read otherwise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile

from fedsense_core.data.sites.patterns import Pattern


def fits(glob: str, path: str) -> bool:
    """Say whether a file of the surveyed folder fits a glob without ``{band}``."""
    return _pattern(glob).match(path, {}) is not None


@lru_cache(maxsize=256)
def _pattern(glob: str) -> Pattern:
    return Pattern(glob)


def common_start(texts: Sequence[str]) -> str:
    """Return how all begin, without the digits at its end: the next file may have others."""
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    start = "".join(letters[0] for letters in same)
    return start if len(set(texts)) == 1 else start.rstrip("0123456789")


def common_end(texts: Sequence[str]) -> str:
    """Return how all end, without the digits at its beginning."""
    return common_start([text[::-1] for text in texts])[::-1]


def below(folder: str) -> str:
    """Return the beginning of globs in a folder."""
    return f"{literal(folder)}/" if folder else ""


def literal(text: str) -> str:
    """Return a glob that fits this text."""
    # For "[" any letter: a site file's patterns take "[[]" for three letters.
    return re.sub(r"[\[*?{}]", lambda found: "?" if found[0] == "[" else f"[{found[0]}]", text)
