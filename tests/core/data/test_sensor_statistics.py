"""Statistics by sensor: the same whoever merges them in which order, and refused where no pixels
could give them."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from functools import reduce
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from stored_chips import chips_of_array, pixels_of

from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.chips.sensor_statistics import SensorStatistics
from fedsense_core.data.chips.statistics import Statistics
from fedsense_core.data.opening import load_site

S2 = "sentinel2-l2a"


def chips(seed: int, bands: tuple[str, ...] = ("red", "nir"), sensor: str = S2, dtype: str = "uint16") -> Chips:
    from dataclasses import replace

    values = np.random.default_rng(seed).integers(1, 4000, (5, len(bands), 8, 8)).astype(dtype)
    return replace(chips_of_array(values, bands), sensor=(sensor,))


def test_any_order_of_institutions_gives_the_same_bytes() -> None:
    each = [
        SensorStatistics.of([chips(0)]),
        SensorStatistics.of([chips(1, ("green", "red")), chips(2, ("red",), "landsat8-l2")]),
        SensorStatistics.of([chips(3, ("nir",), dtype="float32")]),
    ]
    merged = {reduce(SensorStatistics.merge, order).to_bytes() for order in permutations(each)}
    assert len(merged) == 1


def test_summary_is_that_of_all_the_pixels_in_the_order_of_the_card() -> None:
    first, second = chips(0, ("nir", "red")), chips(1, ("red", "green"))
    summary = SensorStatistics.of([first, second]).summary()[S2]
    assert summary["bands"] == ["green", "red", "nir"]
    reds = np.concatenate([pixels_of(first)[:, 1].ravel(), pixels_of(second)[:, 0].ravel()])
    assert summary["mean"][1] == pytest.approx(reds.mean())
    assert summary["std"][1] == pytest.approx(reds.std())
    assert summary["count"] == [320, 640, 320]
    assert summary["p2"][1] == np.sort(reds)[int(np.ceil(0.02 * len(reds))) - 1]


def test_bytes_and_back() -> None:
    one = SensorStatistics.of([chips(0), chips(2, dtype="float32", sensor="landsat5-l2")])
    assert SensorStatistics.from_bytes(one.to_bytes()).to_bytes() == one.to_bytes()
    assert SensorStatistics.from_bytes(b"") == SensorStatistics()


def test_a_card_written_in_place_has_no_name_that_others_know() -> None:
    assert SensorStatistics.of([chips(0, sensor="custom")]) == SensorStatistics()


def forged(change: object) -> bytes:
    fields = json.loads(zlib.decompress(SensorStatistics.of([chips(0)]).to_bytes()))
    return zlib.compress(json.dumps(change(fields)).encode())  # type: ignore[operator]


def test_files_in_other_units_than_the_cards_are_not_merged_with_counts(tmp_path: Path) -> None:
    plain = tmp_path / "site.toml"
    entry = '[[sources]]\npaths = ["*.tif"]\nsensor = "sentinel2-l2a"\n'
    (tmp_path / "scene.tif").touch()
    for own, expected in (("", {S2}), ("scale = 1.0\noffset = 0.0\n", set())):
        plain.write_text(f'name = "a"\n{entry}{own}')
        assert set(SensorStatistics.of([chips(0)], [load_site(plain)]).sensors) == expected


def wide() -> bytes:
    """Return statistics of 64 bands and all bins: 5 KB that would take half a gigabyte."""
    values = np.zeros((2, 64, 8, 8), np.int16)
    values[0], values[1] = -32768, 32767
    one = Statistics.of(values, np.ones((2, 8, 8), bool)).to_json()
    names = ["red", "nir", "blue", "green"]
    return zlib.compress(json.dumps({S2: dict.fromkeys(names, one)}).encode())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (zlib.compress(b'{"a": [' + b"[]," * (8 << 20) + b"0]}"), "10000 values"),
        (zlib.compress(b'{"sentinel2-l2a": {"red": {' + b'"a":0,' * (4 << 20) + b'"b":0}}}'), "values"),
        (wide(), "one band each"),
    ],
)
def test_a_small_message_does_not_become_a_large_one(data: bytes, words: str) -> None:
    assert len(data) < 100_000
    tracemalloc.start()
    with pytest.raises(ValueError, match=words):
        SensorStatistics.from_bytes(data)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 80 << 20


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"not zlib", "compressed JSON"),
        (zlib.compress(b"[1]"), "table"),
        (zlib.compress(b"[" * 100_000), "compressed JSON"),
        (zlib.compress(b" " * (65 << 20)), "compressed JSON"),
        (forged(lambda f: {"spy-satellite": f[S2]}), "spy-satellite"),
        (forged(lambda f: {S2: {"infra": f[S2]["red"]}}), "infra"),
        (forged(lambda f: {S2: {"red": f[S2]["red"] | {"count": 7}}}), "counts"),
        (forged(lambda f: {S2: {"red": 3}}), "dictionary"),
        (forged(lambda f: {S2: 3}), "table"),
    ],
)
def test_what_no_pixels_could_have_given_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SensorStatistics.from_bytes(data)
