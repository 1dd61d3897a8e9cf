"""Chips for recipes to learn from."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def waves() -> torch.Tensor:
    """Eight chips (8, 3, 16, 16) that a small model can tell apart: one wave each, in all bands,
    and some noise."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(8, 2, generator=generator)[:, :, None, None]
    row, column = torch.meshgrid(torch.arange(16) / 3, torch.arange(16) / 3, indexing="ij")
    texture = torch.sin(numbers[:, 0] * row + numbers[:, 1] * column)[:, None]
    return texture + 0.1 * torch.randn(8, 3, 16, 16, generator=generator)
