"""The dihedral group of a square, its eight rotations and reflections: seen from above, no
direction is special."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedsense_core.tools.downstream.samples import Boxes

SYMMETRIES = 8
"""Numbered from 0, which changes nothing."""


def transformed(x: Tensor, symmetry: int) -> Tensor:
    """Return a square (..., S, S) transposed for odd ``symmetry``, then mirrored left to right by
    2, top to bottom by 4."""
    x = x.transpose(-1, -2) if symmetry & 1 else x
    sides = [dim for bit, dim in ((2, -1), (4, -2)) if symmetry & bit]
    return torch.flip(x, sides) if sides else x


def transformed_boxes(boxes: Boxes, symmetry: int, side: int) -> Boxes:
    """Return the boxes where `transformed` moves what they hold."""
    left, top, right, bottom = boxes.xyxy_n4.T
    if symmetry & 1:
        left, top, right, bottom = top, left, bottom, right
    if symmetry & 2:
        left, right = side - right, side - left
    if symmetry & 4:
        top, bottom = side - bottom, side - top
    return Boxes(np.stack([left, top, right, bottom], 1).astype(np.float32), boxes.classes_n, boxes.difficult_n)
