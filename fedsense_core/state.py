"""What survives from one round to the next: every component that has some returns it and takes it
back, as torch's modules do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

State = dict[str, Any]
"""Tensors and JSON values by name; values may be such dictionaries themselves."""


class Stateful(Protocol):
    """A component with state."""

    def state_dict(self) -> State:
        """Return all that the component needs to go on: a value, not a view of it."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken. Raises KeyError or ValueError for another's
        state."""


def as_tensor(data: bytes) -> Tensor:
    """Return bytes as a tensor (len,) uint8: how a state dictionary carries them."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def as_bytes(tensor: Tensor) -> bytes:
    """Return the bytes that ``as_tensor`` was given."""
    return tensor.numpy().tobytes()
