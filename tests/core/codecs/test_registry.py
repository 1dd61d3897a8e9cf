from __future__ import annotations

import pytest

from fedsense_core.codecs import CODECS, codec_by_id, get_codec
from fedsense_core.errors import ConfigError, FrameError


def test_every_codec_is_found_by_name_and_by_number() -> None:
    for name, variants in CODECS.items():
        for codec in variants:
            assert codec.name == name
            assert get_codec(name, codec.bits) == codec
            assert codec_by_id(codec.id, codec.bits) == codec


def test_numbers_on_the_wire_never_change() -> None:
    assert {name: (variants[0].id, [c.bits for c in variants]) for name, variants in CODECS.items()} == {
        "none": (0, [32]),
        "bf16": (1, [16]),
        "eden": (2, [1, 2, 3, 4, 8]),
    }


def test_bits_count_only_where_there_is_a_choice() -> None:
    assert get_codec("none", 1).bits == 32
    assert get_codec("bf16", 1).bits == 16


def test_a_wrong_name_is_answered_with_the_nearest_right_one() -> None:
    with pytest.raises(ConfigError, match=r"'edne' is unknown.*none, bf16, eden.*Did you mean 'eden'\?"):
        get_codec("edne", 1)


def test_wrong_bits_are_answered_with_the_allowed_ones() -> None:
    with pytest.raises(ConfigError, match="no 5-bit form: set bits to one of 1, 2, 3, 4, 8"):
        get_codec("eden", 5)


@pytest.mark.parametrize(("id", "bits"), [(0, 1), (1, 32), (2, 5), (2, 0), (3, 1), (255, 2**32 - 1)])
def test_a_frame_that_names_an_unknown_codec_is_refused(id: int, bits: int) -> None:
    with pytest.raises(FrameError, match=f"codec {id} at {bits} bits"):
        codec_by_id(id, bits)
