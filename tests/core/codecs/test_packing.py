from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsense_core.codecs.packing import pack_codes, unpack_codes


@settings(deadline=None)
@given(bits=st.integers(1, 8), blocks=st.integers(0, 5), seed=st.integers(0, 2**32 - 1))
def test_unpacking_inverts_packing_for_every_width(bits: int, blocks: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, (blocks, 1024), dtype=np.uint8)
    packed = pack_codes(codes, bits)
    assert packed.shape == (blocks, 128 * bits)
    assert np.array_equal(unpack_codes(packed, bits), codes)


@settings(deadline=None)
@given(bits=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_every_byte_string_is_some_packing(bits: int, seed: int) -> None:
    packed = np.random.default_rng(seed).integers(0, 256, (3, 128 * bits), dtype=np.uint8)
    codes = unpack_codes(packed, bits)
    assert codes.max() < 2**bits
    assert np.array_equal(pack_codes(codes, bits), packed)


@pytest.mark.parametrize(("code", "plane"), [(1, 0), (2, 1), (4, 2)])
def test_a_bit_lies_in_its_plane_and_the_lowest_bit_of_a_byte_comes_first(code: int, plane: int) -> None:
    codes = np.zeros((1, 1024), np.uint8)
    codes[0, 9] = code
    packed = pack_codes(codes, 3)
    assert np.flatnonzero(packed).tolist() == [128 * plane + 1]
    assert packed[0, 128 * plane + 1] == 2
