from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import ndtr

from fedsense_core.codecs.eden import HALF_CODEBOOKS, codebook


def cell_means(half: np.ndarray) -> np.ndarray:
    """The mean of a standard normal number in each positive cell, by its density at the cell's
    borders."""
    borders = np.concatenate([[0.0], (half[1:] + half[:-1]) / 2, [np.inf]])
    density = np.exp(-(borders**2) / 2) / np.sqrt(2 * np.pi)
    return (density[:-1] - density[1:]) / (ndtr(-borders[:-1]) - ndtr(-borders[1:]))


@pytest.mark.parametrize("bits", HALF_CODEBOOKS)
def test_every_level_is_the_mean_of_its_cell(bits: int) -> None:
    half = np.array(HALF_CODEBOOKS[bits])
    assert half.shape == (2 ** (bits - 1),)
    assert (np.diff(half) > 0).all()
    np.testing.assert_allclose(half, cell_means(half), rtol=0, atol=6e-8)  # seven decimals are kept


@pytest.mark.parametrize("bits", HALF_CODEBOOKS)
def test_nearest_equals_a_search_over_all_borders(bits: int) -> None:
    book = codebook(bits)
    normal = torch.randn(20_000, generator=torch.Generator().manual_seed(bits))
    borders = book.borders[:-1]
    around = torch.cat([borders, borders.nextafter(borders + 1), borders.nextafter(borders - 1)])
    values = torch.cat([normal, 3 * normal, around, torch.tensor([0.0, -0.0, 32.0, -32.0, 1e30, -1e30])])
    assert torch.equal(book.nearest(values), torch.searchsorted(borders, values, out_int32=True))


@pytest.mark.parametrize("bits", HALF_CODEBOOKS)
def test_levels_are_symmetric_float32_in_code_order(bits: int) -> None:
    levels = codebook(bits).levels
    assert levels.dtype == torch.float32
    assert torch.equal(levels, -levels.flip(0))
    assert torch.equal(codebook(bits).nearest(levels), torch.arange(2**bits, dtype=torch.int32))
