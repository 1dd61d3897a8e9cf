"""What a stage of the uplink is."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor


class Stage(ABC):
    """One step between Δ and what travels, and the way back. Vectors are flat, (N,).

    The client runs ``forward`` through all stages and ``inverse`` back, so that it knows, bit for
    bit, what the server will decode; the server runs ``inverse`` alone. No method changes what it
    is given, but ``inverse`` may write into it.
    """

    name: ClassVar[str]

    def forward(self, x: Tensor) -> Tensor:
        """Return what the next stage is given."""
        return x

    def inverse(self, x: Tensor) -> Tensor:
        """Return what this stage was given, as far as the server can know it; may overwrite
        ``x``."""
        return x

    def settle(self, restored: Tensor) -> None:  # noqa: B027
        """Client only: hear what ``inverse`` of all later stages made of this stage's output."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Client only: return what the next round needs."""
        return {}
