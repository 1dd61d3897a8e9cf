from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from numpy.typing import NDArray

from fedsense_core.data.chips.statistics import Statistics, merged

Pixels = NDArray[Any]
INTEGERS = ("uint8", "int8", "uint16", "int16")
QS = (0, 0.1, 2, 25, 50, 75, 98, 99.9, 100)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def values_of(dtype: str) -> st.SearchStrategy[Any]:
    if dtype == "float32":
        return st.floats(width=32, allow_nan=False, allow_infinity=False)  # with -0 and subnormal numbers
    return stn.from_dtype(np.dtype(dtype))


def tables(dtype: str, bands: int = 2) -> st.SearchStrategy[Pixels]:
    """Draw pixels (C, N)."""
    return st.integers(1, 60).flatmap(lambda n: stn.arrays(dtype, (bands, n), elements=values_of(dtype)))


ANY_TABLE = st.sampled_from((*INTEGERS, "float32")).flatmap(tables)


def of(table: Pixels) -> Statistics:
    """Return the statistics of pixels (C, N), all valid."""
    return Statistics.of(table[None, :, None, :], np.ones((1, 1, table.shape[1]), bool))


def exact_moments(row: Pixels) -> tuple[float, float]:
    """Return mean and deviation by rational numbers."""
    xs = [Fraction(float(x)) for x in row]
    mean = sum(xs) / len(xs)
    return float(mean), math.sqrt(sum((x - mean) ** 2 for x in xs) / len(xs))


def by_rank(table: Pixels) -> NDArray[np.float64]:
    """Return (len(QS), C) the pixel of rank ceil(q N / 100)."""
    n = table.shape[1]
    ranks = [max(1, math.ceil(Fraction(q) * n / 100)) for q in QS]
    return np.sort(table, axis=1)[:, [rank - 1 for rank in ranks]].T.astype(np.float64)


def floor_of(mean: float) -> float:
    return 1e-6 * max(abs(mean), 1e-6)


@given(ANY_TABLE)
@settings(max_examples=30, deadline=None)
def test_mean_is_exact_and_deviation_is_right_to_the_last_digits(table: Pixels) -> None:
    found = of(table)
    for band, row in enumerate(table):
        mean, std = exact_moments(row)
        assert found.mean[band] == mean
        assert found.std[band] == pytest.approx(max(std, floor_of(mean)), rel=1e-14)
    assert found.minimum.tolist() == table.min(axis=1).tolist()
    assert found.maximum.tolist() == table.max(axis=1).tolist()
    assert (found.count, found.bands) == (table.shape[1], len(table))


@given(st.sampled_from(INTEGERS).flatmap(tables))
@settings(max_examples=30, deadline=None)
def test_percentiles_of_integers_are_exact(table: Pixels) -> None:
    assert np.array_equal(of(table).percentiles(QS), by_rank(table))


@given(tables("float32"))
@settings(max_examples=30, deadline=None)
def test_percentiles_of_floats_are_within_a_bin_and_grow(table: Pixels) -> None:
    found, right = of(table).percentiles(QS), by_rank(table)
    assert (np.abs(found - right) <= np.maximum(2.0**-8 * np.abs(right), 2.0**-134)).all()
    assert (np.diff(found, axis=0) >= 0).all()
    assert np.array_equal(found[[0, -1]], right[[0, -1]])


@pytest.mark.parametrize("magnitudes", [1 << 23, 255 << 23])  # the numbers below 2^-126; all
def test_percentiles_of_floats_of_any_size_are_within_a_bin(magnitudes: int, rng: np.random.Generator) -> None:
    bits = rng.integers(0, magnitudes, 20_000, np.uint32) | (rng.integers(0, 2, 20_000, np.uint32) << 31)
    row, qs = np.sort(bits.view(np.float32)), range(1, 100)
    found, right = of(row[None]).percentiles(qs)[:, 0], row[[q * 200 - 1 for q in qs]].astype(np.float64)
    assert (np.abs(found - right) <= np.maximum(2.0**-8 * np.abs(right), 2.0**-134)).all()


def test_large_windows_equal_numpy(rng: np.random.Generator) -> None:
    """More pixels than are binned at once, with a mask, in both kinds."""
    for pixels in (rng.normal(3000, 900, (3, 2, 400, 300)), rng.normal(-12, 5, (3, 2, 400, 300))):
        dtype = "uint16" if pixels.mean() > 0 else "float32"
        chips, valid = pixels.clip(-60, 60000).astype(dtype), rng.random((3, 400, 300)) > 0.1
        found = Statistics.of(chips, valid)
        table = np.stack([chips[:, band][valid] for band in range(2)]).astype(np.float64)
        np.testing.assert_allclose(found.mean, table.mean(axis=1), rtol=1e-12)
        np.testing.assert_allclose(found.std, table.std(axis=1), rtol=1e-12)
        right = np.percentile(table, [2, 50, 98], axis=1, method="inverted_cdf")
        np.testing.assert_allclose(found.percentiles([2, 50, 98]), right, rtol=0 if dtype == "uint16" else 2.0**-10)


@pytest.mark.parametrize(("mean", "std"), [(1e4, 1), (-1e4, 1), (1e6, 1), (1, 1e-4), (1e30, 1e26), (1e-30, 1e-34)])
def test_a_deviation_that_is_tiny_beside_the_mean_loses_nothing(
    mean: float, std: float, rng: np.random.Generator
) -> None:
    table = rng.normal(mean, std, (1, 100_000)).astype(np.float32)
    row = table[0].astype(np.float64)
    assert of(table).std[0] == pytest.approx(np.sqrt(np.square(row - row.mean()).mean()), rel=1e-9)


@given(ANY_TABLE, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_any_split_merged_in_any_order_gives_the_same_bits(table: Pixels, random: Any) -> None:
    columns = random.sample(range(table.shape[1]), table.shape[1])
    cuts = sorted(random.choices(range(table.shape[1] + 1), k=4))
    parts = [of(table[:, chosen]) for chosen in np.split(np.array(columns), cuts)]
    while len(parts) > 1:  # any tree of merges
        one, other = (parts.pop(random.randrange(len(parts))) for _ in range(2))
        parts.append(one.merge(other))
    whole = of(table)
    assert parts[0] == whole
    for figure in (Statistics.summary, Statistics.to_json):
        assert json.dumps(figure(parts[0])) == json.dumps(figure(whole))


@given(tables("uint16"), tables("int16"), tables("float32"))
@settings(max_examples=30, deadline=None)
def test_integers_and_floats_merge_as_floats_exactly(a: Pixels, b: Pixels, c: Pixels) -> None:
    whole = of(np.concatenate([x.astype(np.float32) for x in (a, b, c)], axis=1))
    assert merged([of(a), of(b), of(c)]) == of(c).merge(of(b)).merge(of(a)) == of(b).merge(of(c).merge(of(a))) == whole


@given(tables("uint16"), tables("int16"))
@settings(max_examples=30, deadline=None)
def test_integer_types_merge_with_exact_percentiles(a: Pixels, b: Pixels) -> None:
    both = np.concatenate([a.astype(np.int64), b.astype(np.int64)], axis=1)
    found = of(a).merge(of(b))
    assert np.array_equal(found.percentiles(QS), by_rank(both))
    assert found.mean.tolist() == [exact_moments(row)[0] for row in both]


@given(ANY_TABLE, st.data())
@settings(max_examples=30, deadline=None)
def test_invalid_pixels_are_left_out_whatever_they_hold(table: Pixels, data: st.DataObject) -> None:
    keep = data.draw(stn.arrays(bool, table.shape[1]))
    whatever = np.where(keep, table, np.nan if table.dtype == np.float32 else 7).astype(table.dtype)
    assert Statistics.of(whatever[None, :, None], keep[None, None]) == of(table[:, keep])


def test_chips_bands_and_pixels_are_told_apart(rng: np.random.Generator) -> None:
    chips = rng.integers(0, 60000, (5, 3, 8, 8)).astype(np.uint16)
    valid = rng.random((5, 8, 8)) > 0.5
    right = np.stack([chips[:, band][valid] for band in range(3)])
    assert Statistics.of(chips, valid) == of(right)
    assert Statistics.of(np.asfortranarray(chips), valid) == of(right)
    assert [of(right).band(i) for i in range(3)] == [of(right[i : i + 1]) for i in range(3)]
    assert of(right.astype(np.float32)).band(2) == of(right[2:].astype(np.float32))
    assert Statistics.of(chips[:, ::-1].astype(">u2"), valid) == of(right[::-1])


def test_other_types_count_as_float32() -> None:
    values = np.array([[0.1, 70_000, -3]])
    assert of(values) == of(values.astype(np.float32))
    assert of(values.astype(np.int64)) == of(values.astype(np.int64).astype(np.float32))
    assert of(np.array([[True, False]])) == of(np.array([[1, 0]], np.uint8))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_valid_pixel_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="infinite or not a number"):
        of(np.array([[1, bad]], np.float32))


def test_a_double_beyond_float32_is_refused() -> None:
    with pytest.raises(ValueError, match="infinite"):
        of(np.array([[1e300]]))


def test_negative_zero_is_zero() -> None:
    zeros = np.zeros((1, 3), np.float32)
    for same in (of(-zeros), of(-zeros[:, 1:]).merge(of(zeros[:, :1]))):
        assert json.dumps(same.to_json()) == json.dumps(of(zeros).to_json())


@pytest.mark.parametrize(
    ("chips", "valid"), [((2, 3, 8, 8), (2, 8, 4)), ((2, 3, 8, 8), (2, 3, 8, 8)), ((3, 8, 8), (8, 8))]
)
def test_shapes_that_do_not_fit_are_refused(chips: tuple[int, ...], valid: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"chips are \(n, C, S, S\)"):
        Statistics.of(np.zeros(chips, np.uint8), np.ones(valid, bool))


def test_nothing_merges_as_nothing() -> None:
    nothing, some = Statistics.empty(2), of(np.array([[1, 2], [3, 4]], np.uint8))
    assert of(np.zeros((2, 0), np.float32)) == nothing == merged([nothing, nothing])
    assert nothing.merge(some) == some == some.merge(nothing)
    assert (nothing.count, nothing.mean.tolist()) == (0, [0, 0])
    assert (nothing.std > 0).all(), "it must be able to divide"
    for figure in (
        lambda: nothing.percentiles([50]),
        lambda: nothing.minimum,
        lambda: nothing.maximum,
        nothing.summary,
    ):
        with pytest.raises(ValueError, match="no valid pixel"):
            figure()


def test_what_cannot_be_merged_or_asked_is_refused() -> None:
    with pytest.raises(ValueError, match="of 2 and of 3 bands"):
        Statistics.empty(2).merge(Statistics.empty(3))
    with pytest.raises(ValueError, match="no statistics to merge"):
        merged([])
    for q in (-1, 100.5, math.nan):
        with pytest.raises(ValueError, match="between 0 and 100"):
            of(np.ones((1, 1), np.uint8)).percentiles([q])


def test_a_constant_band_has_a_deviation_that_can_divide() -> None:
    found = of(np.array([[5000] * 9, [0] * 9], np.uint16))
    assert found.std.tolist() == [pytest.approx(5e-3), pytest.approx(1e-12)]


def test_the_summary_has_one_float_a_band() -> None:
    table = np.stack([np.arange(1, 101), np.full(100, 7)]).astype(np.uint8)
    found = json.loads(json.dumps(of(table).summary()))
    assert found == {
        "count": 100,
        "mean": [50.5, 7.0],
        "std": pytest.approx([table[0].std(), 7e-6]),
        "p2": [2.0, 7.0],
        "p98": [98.0, 7.0],
        "min": [1.0, 7.0],
        "max": [100.0, 7.0],
    }
