from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from fedsense_core.codecs.codec import codec_by_id, codec_class, every_codec, get_codec
from fedsense_core.codecs.settings import CodecName
from fedsense_core.config import resolve
from fedsense_core.errors import ConfigError, FrameError


def test_every_codec_is_found_by_name_and_by_number() -> None:
    assert len(every_codec()) == 61
    for codec in every_codec():
        states = getattr(codec, "state_bits", 8)
        assert get_codec(codec.name, codec.bits, states, waterfill=codec.waterfill) == codec
        assert codec_by_id(codec.id, codec.bits) == codec


@pytest.mark.parametrize("name", get_args(CodecName))
def test_a_codec_declares_exactly_the_ids_of_its_forms_and_shares_none(name: str) -> None:
    assert {form.id for form in codec_class(name).forms()} == set(codec_class(name).ids)
    assert [form for form in every_codec() if form.id in codec_class(name).ids and form.name != name] == []


def test_ids_in_frames_never_change() -> None:
    every = every_codec()
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


def test_settings_are_read_without_torch_whichever_module_comes_first() -> None:
    for module in ("fedsense_core.codecs.settings", "fedsense_core.config"):
        script = f"import sys, {module}; assert 'torch' not in sys.modules"
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


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
