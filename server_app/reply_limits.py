"""How many bytes a reply may have: what was asked for, and a little for names and heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedsense_core.codecs.codec import Codec
from fedsense_core.protocol.frame import HEADER_BYTES
from fedsense_core.protocol.side_channels import SideChannel
from fedsense_core.tensors import TensorTable

SPARE = 1 << 16
"""Bytes for what Flower and numpy write around a frame, and for a reply's words and metrics."""


@dataclass(frozen=True)
class Limits:
    """How many bytes one reply may have."""

    arrays: int
    """Of all Arrays together."""
    records: int
    """Of everything else: records, heads, ids."""


def limits_of_round(codec: Codec, table: TensorTable, channels: Sequence[SideChannel]) -> Limits:
    """Return those of a reply to a round's task: one frame, and what side channels take."""
    frame = HEADER_BYTES + codec.payload_bytes(table)
    return Limits(frame + SPARE, _attached(channels, "round") + SPARE)


def limits_of_handshake(channels: Sequence[SideChannel]) -> Limits:
    """Return those of an answer to the handshake: no Array, and what side channels take."""
    return Limits(0, _attached(channels, "handshake") + SPARE)


def _attached(channels: Sequence[SideChannel], carried_by: str) -> int:
    return sum(channel.limit for channel in channels if channel.carried_by == carried_by)
