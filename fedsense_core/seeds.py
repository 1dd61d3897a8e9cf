"""Every random choice of a run has a name, and its seed is a hash of that name: no generator
outlives a step."""

from __future__ import annotations

import hashlib


def seed_of(*name: str | int) -> int:
    """Return 63 bits that depend on every part of the name, equal on every machine."""
    text = "\0".join(f"{type(part).__name__}:{part}" for part in name)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
