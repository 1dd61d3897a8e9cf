"""Statistics that travel as JSON, and what another party could send instead."""

from __future__ import annotations

import base64
import json
import math
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from numpy.typing import NDArray

from fedsense_core.data.chips.statistics import MAX_COUNT, Statistics

Pixels = NDArray[Any]
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
ANY_TABLE = st.one_of(
    stn.arrays("uint16", st.tuples(st.just(2), st.integers(1, 60))),
    stn.arrays("int16", st.tuples(st.just(1), st.integers(1, 60))),
    stn.arrays("float32", st.tuples(st.just(2), st.integers(1, 60)), elements=FLOATS),
)
"""Pixels (C, N)."""


def of(table: Pixels) -> Statistics:
    """Return the statistics of pixels (C, N), all valid."""
    return Statistics.of(table[None, :, None, :], np.ones((1, 1, table.shape[1]), bool))


@given(ANY_TABLE)
@settings(max_examples=30, deadline=None)
def test_json_gives_back_every_bit(table: Pixels) -> None:
    found = of(table)
    again = Statistics.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert again.summary() == found.summary()


def test_json_of_nothing_and_of_ten_bands() -> None:
    rng = np.random.default_rng(0)
    assert Statistics.from_json(Statistics.empty(3).to_json()) == Statistics.empty(3)
    table = rng.normal(3000, 900, (10, 200_000)).clip(0, 65535).astype(np.uint16)
    assert len(json.dumps(of(table).to_json())) < 10 * 65536


def packed(counts: Any, kind: str = "integer", /, **changes: Any) -> dict[str, Any]:
    """Return JSON of one band whose bins begin at value 10 (or, for floats, at 1.0) with these
    counts."""
    planes = np.array(counts, "<i8").reshape(-1, 1).view(np.uint8).T.tobytes()
    sums = [{"total": hex(1 << 149), "squares": hex(1 << 298), "low": 1.0, "high": 1.0}] if kind == "float" else []
    fields = {
        "kind": kind,
        "count": int(np.sum(counts)),
        "bands": 1,
        "first": 10 if kind == "integer" else (127 << 8) + (1 << 16),
        "bins": len(counts),
        "counts": base64.b64encode(zlib.compress(planes)).decode(),
        "sums": sums,
    }
    return {**fields, **changes}


def band(**changes: Any) -> dict[str, Any]:
    fields = packed([1], "float")
    fields["sums"][0] |= changes
    return fields


def test_the_honest_form_of_the_hostile_ones_is_read() -> None:
    assert Statistics.from_json(packed([2, 0, 1])) == of(np.array([[10, 12, 10]], np.uint8))
    assert Statistics.from_json(packed([0, 2, 0, 1, 0])) == of(np.array([[11, 13, 11]], np.uint8)), "trimmed"
    assert Statistics.from_json(band()) == of(np.ones((1, 1), np.float32))


BOMB = base64.b64encode(zlib.compress(b"\0" * (64 << 20), 9)).decode()
HOSTILE: list[tuple[dict[str, Any], str]] = [
    (packed([3, -1]), "between 0 and"),
    (packed([2, -1, 1]), "between 0 and"),
    (packed([2, 1], count=4), "add up to 4"),
    (packed([2, 1], count=2), "add up to 2"),
    (packed([MAX_COUNT, MAX_COUNT]), "count"),
    (packed([1 << 62, 1 << 62, 1], count=1), "between 0 and"),
    (packed([1], count=-1), "count"),
    (packed([1], count=1.5), "count"),
    (packed([1], count=True), "count"),
    (packed([1], first=65536), "outside"),
    (packed([1], first=-40000), "outside"),
    (packed([1], first=-(1 << 80)), "outside"),
    (packed([1], bins=1 << 40), "outside"),
    (packed([1], bins=2), "1 x 2 numbers"),
    (packed([1, 0], bins=1), "1 x 1 numbers"),
    (packed([1], bins=-1), "bins"),
    (packed([1], bands=0), "bands"),
    (packed([1], bands=65), "bands"),
    (packed([1], bands=1 << 70), "bands"),
    (packed([1], bands=2), "2 x 1 numbers"),
    (packed([1], counts="not base64!"), "base64"),
    (packed([1], counts="äöü"), "base64"),
    (packed([1], counts=base64.b64encode(b"no zlib").decode()), "zlib"),
    (packed([1], counts=""), "1 x 1 numbers"),
    (packed([1], counts=base64.b64encode(zlib.compress(b"\1" + b"\0" * 7)[:-2]).decode()), "1 x 1 numbers"),
    (packed([1], counts=base64.b64encode(zlib.compress(b"\1" + b"\0" * 7) + b"x").decode()), "1 x 1 numbers"),
    (packed([1], counts=BOMB), "1 x 1 numbers"),
    (packed([1], counts=None), "counts"),
    (packed([1], kind="double"), "kind"),
    (packed([1], extra=1), "extra"),
    (packed([1], sums=band()["sums"]), "1 sums for 1 bands"),
    (packed([1], "float", sums=[]), "0 sums for 1 bands"),
    (packed([1], "float", sums=band()["sums"] * 65), "sums"),
    (packed([1], "float", first=(255 << 8) + (1 << 16)), "outside"),
    (packed([1], "float", first=0), "outside"),
    (band(low=math.nan), "low"),
    (band(high=math.inf), "high"),
    (band(high=1e39), "high"),
    (band(low=2.0), "mean"),
    (band(high=0.5), "mean"),
    (band(total=hex(2 << 149)), "mean"),
    (band(total="0x" + "f" * 160), "mean"),
    (band(total="-0x" + "f" * 160), "mean"),
    (band(total="0x" + "f" * 161), "total"),
    (band(total="12"), "total"),
    (band(total=1 << 149), "total"),
    (band(squares=hex((1 << 298) - 1)), "squares"),
    (band(squares=hex(-(1 << 298))), "squares"),
    (band(squares=hex(2 << 298)), "squares"),
    (band(other=1), "other"),
    ({}, "kind"),
]


@pytest.mark.parametrize(("fields", "reason"), HOSTILE)
def test_json_that_no_pixels_gave_is_refused_with_a_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Statistics.from_json(fields)


@pytest.mark.parametrize("fields", [None, [], "x", 3])
def test_json_that_is_not_an_object_is_refused(fields: Any) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Statistics.from_json(fields)


def test_a_zip_bomb_is_not_unpacked() -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match="1 x 1 numbers"):
        Statistics.from_json(packed([1], counts=BOMB))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(["integer", "float"])
)


@given(ANY_TABLE, st.data())
@settings(max_examples=30, deadline=None)
def test_a_changed_field_is_refused_or_still_gives_finite_figures(table: Pixels, data: st.DataObject) -> None:
    fields = of(table).to_json()
    into = data.draw(st.sampled_from([fields, *fields["sums"]]))
    into[data.draw(st.sampled_from(sorted(into)))] = data.draw(JUNK)
    try:
        found = Statistics.from_json(fields)
    except ValueError:
        return
    figures: list[Callable[[], Any]] = [
        lambda: found.mean,
        lambda: found.std,
        lambda: found.percentiles([0, 2, 98, 100]),
    ]
    assert found.count == 0 or all(np.isfinite(figure()).all() for figure in figures)
