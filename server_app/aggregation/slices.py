"""Replies side by side, a slice of coordinates at a time: for rules that look at all clients of a
coordinate at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from server_app.round import Accepted

SLICE_NUMBERS = 1 << 22
"""Numbers of all clients together in a slice: 16 MiB."""

Floats = NDArray[np.float32]


def slices(accepted: Sequence[Accepted]) -> Iterator[Floats]:
    """Yield the values (n, S) of one slice of coordinates after the other, rows in the order of
    ``accepted``.

    Each reply is decoded once and laid aside as float32 beside its frame, in a file that is gone
    afterwards. So memory is a vector and a slice, whatever the number of clients; the disk holds
    4 n N bytes meanwhile.
    """
    with TemporaryFile(dir=accepted[0].path.parent) as file:
        numel = _lay_aside(accepted, file)
        width = max(1, SLICE_NUMBERS // len(accepted))
        for start in range(0, numel, width):
            count = min(width, numel - start)
            yield np.stack([_read(file, row * numel + start, count) for row in range(len(accepted))])


def by_coordinate(accepted: Sequence[Accepted], rule: Callable[[Floats], Floats]) -> Tensor:
    """Return the vector (N,) that ``rule`` makes slice by slice, from values (n, S) to (S,)."""
    return torch.from_numpy(np.concatenate([rule(values_nS) for values_nS in slices(accepted)]))


def _lay_aside(accepted: Sequence[Accepted], file: IO[bytes]) -> int:
    numel = 0
    for one in accepted:
        value = one.value()
        numel = len(value)
        file.write(value.numpy().data)
    return numel


def _read(file: IO[bytes], start: int, count: int) -> Floats:
    file.seek(4 * start)
    return np.frombuffer(file.read(4 * count), np.float32)
