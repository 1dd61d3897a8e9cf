from __future__ import annotations

import pytest

from fedsense_core.codecs import CODECS, codec_by_id, get_codec
from fedsense_core.codecs.registry import WATERFILLED
from fedsense_core.config import resolve
from fedsense_core.errors import ConfigError, FrameError


def test_every_codec_is_found_by_name_and_by_number() -> None:
    for name, variants in CODECS.items():
        for codec in variants:
            assert codec.name == name
            assert get_codec(name, codec.bits, getattr(codec, "state_bits", 8)) == codec
            assert codec_by_id(codec.id, codec.bits) == codec
    for codec in WATERFILLED:
        assert get_codec(codec.name, codec.bits, getattr(codec, "state_bits", 8), waterfill=True) == codec
        assert codec_by_id(codec.id, codec.bits) == codec


def test_numbers_on_the_wire_never_change() -> None:
    every = [codec for variants in (*CODECS.values(), WATERFILLED) for codec in variants]
    assert {(codec.name, codec.id): [c.bits for c in every if c.id == codec.id] for codec in every} == {
        ("none", 0): [32],
        ("bf16", 1): [16],
        ("eden", 2): [1, 2, 3, 4, 5, 6, 7, 8],
        ("trellis", 3): [1, 2, 3, 4],
        ("trellis", 4): [1, 2, 3, 4],
        ("trellis", 5): [1, 2, 3, 4],
        ("sign", 6): [1],
        ("qsgd", 7): [2, 3, 4, 5, 6, 7, 8],
        ("ternary", 8): [2],
        ("topk", 9): [1, 2, 3, 4, 5, 6, 7, 8],
        ("float8", 10): [8],
        ("int8", 11): [8],
        ("eden", 12): [1, 2, 3, 4, 5, 6, 7, 8],
        ("trellis", 13): [1, 2, 3, 4],
        ("trellis", 14): [1, 2, 3, 4],
        ("trellis", 15): [1, 2, 3, 4],
    }


def test_bits_count_only_where_there_is_a_choice() -> None:
    assert get_codec("none", 1).bits == 32
    assert get_codec("bf16", 1).bits == 16


def test_a_wrong_name_is_answered_with_the_nearest_right_one() -> None:
    with pytest.raises(ConfigError, match=r"'edne' is unknown.*none, bf16, eden, trellis.*Did you mean 'eden'\?"):
        get_codec("edne", 1)


def test_wrong_bits_are_answered_with_the_allowed_ones() -> None:
    with pytest.raises(ConfigError, match="no 5-bit form: set bits to one of 1, 2, 3, 4"):
        get_codec("trellis", 5)
    with pytest.raises(ConfigError, match="no 9 state bits: use 8, 10, 12"):
        get_codec("trellis", 1, 9)
    with pytest.raises(ConfigError, match="every tensor the same bits"):
        get_codec("qsgd", 4, waterfill=True)


def test_a_configuration_that_no_codec_fits_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="downlink: codec 'trellis' has no 8-bit form"):
        resolve({"downlink.codec": "trellis", "downlink.bits": 8}, {})


@pytest.mark.parametrize(("id", "bits"), [(0, 1), (1, 32), (2, 9), (2, 0), (3, 5), (99, 1), (255, 2**32 - 1)])
def test_a_frame_that_names_an_unknown_codec_is_refused(id: int, bits: int) -> None:
    with pytest.raises(FrameError, match=f"codec {id} at {bits} bits"):
        codec_by_id(id, bits)
