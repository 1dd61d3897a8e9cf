"""Figures are worded the same everywhere, and what clients say cannot steer a terminal."""

from __future__ import annotations

import pytest

from fedsense_core.run_folder.formatting import clean, fewer, float32_bytes, human_bytes, human_seconds, with_error


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (1_234_567, "1.23 MB"),
        (12_345_678, "12.3 MB"),
        (999_600, "1.00 MB"),
        (5e15, "5000 TB"),
    ],
)
def test_bytes_have_three_digits_and_a_unit(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (41.2, "41 s"), (59.7, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (7500, "2 h 5 min")],
)
def test_durations_are_readable(seconds, text):
    assert human_seconds(seconds) == text


def test_float32_counts_accepted_models_up_and_served_models_down():
    line = {"elements": 1000, "asked": 3, "accepted": ["a", "b"], "rejected": [{"node": "c", "reason": "late"}]}
    assert float32_bytes(line) == (8000, 12000)
    assert float32_bytes({"accepted": ["a"]}) is None


def test_savings_are_never_overstated():
    assert fewer(29_800, 1000) == "29.8 times fewer than float32"
    assert fewer(1000, 1000) == "100 % of what float32 takes"
    assert fewer(0, 1000) == fewer(1000, 0) == ""


def test_error_is_left_out_where_unknown():
    assert with_error(0.4123, 0.018) == "0.412 ± 0.018"
    assert with_error(0.4123, None) == "0.412"
    assert with_error(None, None) == "–"


def test_control_characters_of_a_name_are_dropped():
    assert clean("a\x1b[31m\nb\u202e") == "a [31m b "
    assert clean("Forêt de Zürich") == "Forêt de Zürich"
