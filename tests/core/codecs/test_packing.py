from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsense_core.codecs.packing import pack_codes, unpack_codes


@settings(deadline=None)
@given(bits=st.integers(1, 8), blocks=st.integers(0, 5), seed=st.integers(0, 2**32 - 1))
def test_unpacking_inverts_packing_for_every_width(bits: int, blocks: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (blocks, 1024), generator=generator, dtype=torch.int32)
    packed = pack_codes(codes, bits)
    assert packed.shape == (blocks, 128 * bits)
    assert torch.equal(unpack_codes(packed, bits), codes)


@settings(deadline=None)
@given(bits=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_every_byte_string_is_some_packing(bits: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    packed = torch.randint(0, 256, (3, 128 * bits), generator=generator, dtype=torch.uint8)
    codes = unpack_codes(packed, bits)
    assert codes.max() < 2**bits
    assert torch.equal(pack_codes(codes, bits), packed)


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_codes_follow_each_other_as_one_string_of_bits_highest_first(bits: int) -> None:
    codes = torch.arange(1024, dtype=torch.int32).remainder(2**bits)[None]
    string = "".join(format(int(byte), "08b") for byte in pack_codes(codes, bits)[0])
    assert string == "".join(format(int(code), f"0{bits}b") for code in codes[0])
