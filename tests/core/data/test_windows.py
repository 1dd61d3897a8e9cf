"""Windows hold every chip once, stay within their bytes, and do not cut through blocks where they
need not."""

from __future__ import annotations

from collections import Counter, OrderedDict

from hypothesis import given, settings
from hypothesis import strategies as st

from fedsense_core.data.raster.formats import GDAL_OPTIONS
from fedsense_core.data.raster.windows import Axis, plan_windows

Lengths = st.integers(8, 900)
Blocks = st.integers(1, 300)


@given(Lengths, Lengths, Blocks, Blocks, st.integers(8, 80), st.integers(1, 80), st.integers(1, 200_000))
@settings(max_examples=200, deadline=None)
def test_every_chip_lies_in_one_window_and_windows_are_bounded(
    height: int, width: int, rows: int, columns: int, size: int, stride: int, most: int
) -> None:
    stride = max(stride, size // 4)
    down, across = Axis(height, rows, size, stride), Axis(width, columns, size, stride)
    seen: Counter[tuple[int, int]] = Counter()
    for window in plan_windows(down, across, 3, most):
        assert window.row_off + window.height <= height
        assert window.col_off + window.width <= width
        chips = ((window.height - size) // stride + 1) * ((window.width - size) // stride + 1)
        assert chips == 1 or window.height * window.width * 3 <= most
        seen.update(
            (y, x)
            for y in range(window.row_off, window.row_off + window.height - size + 1, stride)
            for x in range(window.col_off, window.col_off + window.width - size + 1, stride)
        )
    expected = [(y, x) for y in range(0, height - size + 1, stride) for x in range(0, width - size + 1, stride)]
    assert seen == Counter(expected)


def decodings(down: Axis, across: Axis, most: int, cached: int) -> float:
    """Return how often a block is decoded in the mean, if GDAL's cache holds ``cached`` of those
    used last."""
    cache: OrderedDict[tuple[int, int], None] = OrderedDict()
    count, blocks = 0, set()
    for window in plan_windows(down, across, 2, most):
        for y in range(window.row_off // down.block, -(-(window.row_off + window.height) // down.block)):
            for x in range(window.col_off // across.block, -(-(window.col_off + window.width) // across.block)):
                blocks.add((y, x))
                count += (y, x) not in cache
                cache[y, x] = None
                cache.move_to_end((y, x))
                while len(cache) > cached:
                    cache.popitem(last=False)
    return count / len(blocks)


def test_blocks_into_which_chips_fit_are_decoded_once_without_any_cache() -> None:
    for block, size in ((512, 64), (256, 256), (64, 128), (96, 32)):
        side = Axis(10 * block, block, size, size)
        assert decodings(side, side, 1 << 26, cached=1) == 1


def test_chips_that_reach_over_blocks_cost_few_decodings_even_where_the_cache_holds_no_row_of_the_raster() -> None:
    cached = GDAL_OPTIONS["GDAL_CACHEMAX"] // (256 * 256 * 2)
    assert cached < 300_000 / 256
    for size, stride in ((100, 100), (64, 32), (224, 150)):
        down, across = (Axis(length, 256, size, stride) for length in (5000, 300_000))
        assert decodings(down, across, 1 << 26, cached) < 1.05


def test_rows_that_are_wider_than_a_window_are_decoded_once() -> None:
    down, across = Axis(2000, 1, 64, 64), Axis(50_000, 50_000, 64, 64)
    assert decodings(down, across, 1 << 20, cached=64) == 1
