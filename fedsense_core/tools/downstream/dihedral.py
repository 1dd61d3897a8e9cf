"""The eight ways to turn and mirror a square: seen from above, north is nowhere in particular."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedsense_core.tools.downstream.samples import Boxes

TURNS = 8


def turned(x: Tensor, turn: int) -> Tensor:
    """Return a square (..., S, S) transposed for odd ``turn``, then mirrored left to right by 2,
    top to bottom by 4."""
    x = x.transpose(-1, -2) if turn & 1 else x
    sides = [dim for bit, dim in ((2, -1), (4, -2)) if turn & bit]
    return torch.flip(x, sides) if sides else x


def turned_boxes(boxes: Boxes, turn: int, side: int) -> Boxes:
    """Return the boxes where `turned` moves what they hold."""
    left, top, right, bottom = boxes.xyxy_n4.T
    if turn & 1:
        left, top, right, bottom = top, left, bottom, right
    if turn & 2:
        left, right = side - right, side - left
    if turn & 4:
        top, bottom = side - bottom, side - top
    return Boxes(np.stack([left, top, right, bottom], 1).astype(np.float32), boxes.classes_n, boxes.difficult_n)
