"""What can go wrong, as a user meets it: every message says what, which value, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


class FedSenseError(Exception):
    """Root of every error that FedSense raises on purpose."""


class ConfigError(FedSenseError):
    """A configuration key or value is wrong."""


class SiteError(FedSenseError):
    """A site file, a sensor card or an institution's imagery is unusable."""


class PolicyError(FedSenseError):
    """An institution's policy cannot be read, or does not allow what a run asks."""


class FrameError(FedSenseError):
    """Bytes from the network are not a frame that was asked for."""


class CheckpointError(FedSenseError):
    """A checkpoint, a run folder or a client's memory cannot be read or does not belong here."""


class RunPaused(FedSenseError):
    """A run cannot go on for now; nothing of it is lost, and the same command continues it."""


@dataclass(frozen=True)
class Rejected:
    """One reply that was left out of a round. Plain data: a client's fault never ends a run."""

    node: str
    """Site name where it is known, else the node id."""
    reason: str
    """What was wrong with the reply, in words."""
    cause: Literal["bad", "needs-snapshot", "other-site"] = "bad"
    """What the server can do about it: nothing, send a snapshot, or ask again who the node is."""


def nearest(wrong: str, known: list[str]) -> str:
    """Return `` Did you mean 'x'?`` for the known name nearest to ``wrong``, or an empty string."""
    from difflib import get_close_matches

    match = get_close_matches(wrong, known, n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""
