"""Numbers that stand for no measurement though nothing declares them: which, how many, and what
to do.

One pixel of -3.4e38 rules a band's mean and deviation, and a black collar is chips of nothing. A
fill is recognised by what imagery never does: one value far from all others, or one value of all
bands over whole areas. Shapes: n chips, C bands, S chip size, W values of one band.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedsense_core.data.chips.binning import float_edges
from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.chips.statistics import Statistics
from fedsense_core.data.raster.stored_numbers import units_of
from fedsense_core.data.raster.units import Units
from fedsense_core.data.sites.schema import Site

Float64s = NDArray[np.float64]
Int64s = NDArray[np.int64]

USUAL = (-1.0, -99.0, -999.0, -9999.0, -10000.0, -99999.0, -32767.0, -32768.0, 9999.0, 32767.0, 65535.0)
"""What programs fill with. Others are found too, if they lie further off."""
SATURATED = 255.0
"""Snow and clouds reach it in 8 bits, over whole areas: no fill."""
HUGE = 1e30
"""No sensor measures it: -3.4028235e38 is the least float32, 9.96921e36 netCDF's own fill."""
FEW = 16
"""Fewer pixels of one value may be glint or faults, unless they rule the deviation."""
RULING = 2.0
"""Times that a few pixels make a band's deviation as large, from which on they are named."""
FAR = 3.0
"""Times the range of all other values that a value of no usual fill lies off."""
NEAR = 0.03
"""Share of the others' range that counts as near a value."""
MOST_NEAR = 0.25
"""Most pixels near a fill, as a multiple of its own: around clipped darkness there are more."""
LEAST_AREA = 0.005
"""Share of a source's pixels in areas of one value from which on they are named."""
LEAST_CONSTANT = 0.01
"""Share of a source's chips that are constant from which on they are named."""
CELL = 8
"""Side of an area of one value, in pixels: noise makes none."""
LOOKED_AT = 512
"""Chips of a source that are searched for areas."""


@dataclass(frozen=True)
class Values:
    """The values of one band in order, each an interval: of integers it has no width."""

    low: Float64s
    """(W,)"""
    high: Float64s
    """(W,)"""
    pixels: Int64s
    """(W,) above 0."""

    @classmethod
    def of(cls, statistics: Statistics, band: int) -> Values:
        """Return the values of a band of at least one pixel."""
        row = statistics.counts[band]
        columns = np.flatnonzero(row)
        at = columns + statistics.first
        low, high = (at.astype(np.float64), at.astype(np.float64)) if statistics.sums is None else float_edges(at)
        ends = statistics.exact[band]
        return cls(np.clip(low, ends.low, ends.high), np.clip(high, ends.low, ends.high), row[columns])

    def without(self, first: int, last: int) -> Values:
        """Return all but the first and last so many."""
        keep = slice(first, len(self.pixels) - last)
        return Values(self.low[keep], self.high[keep], self.pixels[keep])

    def share_at(self, value: float) -> float:
        """Return the share of the pixels that have a value, or share its bin."""
        return float(self.pixels[(self.low <= value) & (value <= self.high)].sum() / self.pixels.sum())

    def range(self) -> tuple[float, float]:
        """Return the least and the greatest value."""
        return float(self.low[0]), float(self.high[-1])

    def spread(self) -> float:
        """Return how far the middle 98 % of the pixels reach."""
        up_to = np.cumsum(self.pixels) / self.pixels.sum()
        first, last = np.searchsorted(up_to, [0.01, 0.99])
        return float(self.high[min(last, len(up_to) - 1)] - self.low[first])

    def deviation(self) -> float:
        """Return the standard deviation, as nearly as the intervals tell."""
        middle = (self.low + self.high) / 2
        mean = np.average(middle, weights=self.pixels)
        return float(np.sqrt(np.average((middle - mean) ** 2, weights=self.pixels)))


@dataclass(frozen=True)
class Outlier:
    """A fill at one end of a band's values."""

    value: float
    number: float
    """In the files."""
    pixels: int
    worsening: float
    """Deviation with it, as a multiple of that of the other values."""
    others: tuple[float, float]
    """Between which all other values lie."""


def fill_warnings(chips: Chips, source: int = 0, units: Units | None = None) -> list[str]:
    """Return what looks like undeclared fills among the pixels of one source of ``chips``, in words
    that name the value, its share and the remedy.

    ``units`` are those of the source's files, whose numbers a site file calls nodata; None where
    chips hold these.
    """
    statistics = chips.statistics[source]
    if not statistics.count:
        return []
    bands = [Values.of(statistics, band) for band in range(statistics.bands)]
    by_number = _outliers_of(bands, units)
    found = [_outlying(number, by_band, bands, chips.bands) for number, by_band in by_number.items()]
    outlying = {outlier.value for by_band in by_number.values() for outlier in by_band.values()}
    for value in _area_values(bands) - outlying:
        if area_share(chips, source, value) >= LEAST_AREA:
            found.append(_areas(value, units.stored(value, 0) if units else value, bands))
    constant, of = constant_chips(chips, source)
    if constant >= max(2, LEAST_CONSTANT * of):
        found.append(
            f"{constant} of {of} chips are constant: each band has one value all over them, as in the collar of a "
            "mosaic. They teach nothing. Declare that value as `nodata`, or leave such scenes out"
        )
    return found


def warnings_of(sets: Iterable[Chips], site: Site) -> list[str]:
    """Return the same of every source of chips that were opened of ``site``, each beginning with
    its sensor."""
    return [
        f"{chips.sensor[number]}: {text}"
        for chips in sets
        for number in range(len(chips.sensor))
        for text in fill_warnings(chips, number, _units(chips, number, site))
    ]


def _units(chips: Chips, number: int, site: Site) -> Units | None:
    """Return the units of one source of chips of a site, all of whose sources they have or one."""
    if len(chips.sensor) == len(site.sources):
        source = site.sources[number]
    else:
        first = chips.scene_paths[0]
        owners = [one for one in site.sources if any(str(scene.path) == first for scene in one.scenes)]
        if not owners:
            return None
        source = owners[0]
    return units_of(source, chips.scene_paths, chips.bands)


def constant_chips(chips: Chips, source: int = 0) -> tuple[int, int]:
    """Return how many chips of a source are constant in every band, and how many it has."""
    of_source = chips.origin.numpy() == source
    scenes = np.unique(chips.scene[of_source])
    counted = sum(chips.constant[scene] for scene in scenes) if chips.constant else 0
    return counted, int(np.count_nonzero(of_source))


def outliers(values: Values, stored: Callable[[float], float] = float) -> list[Outlier]:
    """Return the fills at both ends of a band's values, outermost first; ``stored`` tells a value's
    number in the files."""
    found: list[Outlier] = []
    more = True
    while more:
        more = False
        for first, last in ((1, 0), (0, 1)):
            rest = values.without(first, last)
            if len(rest.pixels) and (outlier := _judged(values, rest, 0 if first else -1, stored)):
                found.append(outlier)
                values, more = rest, True
    return found


def _judged(values: Values, rest: Values, at: int, stored: Callable[[float], float]) -> Outlier | None:
    """Return the value at one end of a band as a fill, or None where it may be a measurement."""
    low, high = rest.range()
    edges, pixels = (float(values.low[at]), float(values.high[at])), int(values.pixels[at])
    value, number = edges[at], _usual(stored(edges[0]), stored(edges[1]), stored(edges[at]))
    gap = low - float(values.high[0]) if at == 0 else float(values.low[-1]) - high
    spread, worsening = rest.spread(), values.deviation() / max(rest.deviation(), 1e-300)
    is_huge = abs(value) >= HUGE and gap > abs(value) / 2
    is_usual = number in USUAL and gap > spread / 2 and (pixels >= FEW or worsening >= RULING)
    is_far = pixels >= FEW and len(rest.pixels) >= FEW and gap > FAR * (high - low)
    return Outlier(value, number, pixels, worsening, (low, high)) if is_huge or is_usual or is_far else None


def _usual(one: float, other: float, else_: float) -> float:
    """Return the usual fill between two numbers, or ``else_``."""
    low, high = sorted((one, other))
    return next((number for number in USUAL if low <= number <= high), else_)


def _outliers_of(bands: Sequence[Values], units: Units | None) -> dict[float, dict[int, Outlier]]:
    """Return outliers by their number in the files, then by position of the band."""
    found: dict[float, dict[int, Outlier]] = {}
    for band, values in enumerate(bands):
        for outlier in outliers(values, partial(units.stored, band=band) if units else float):
            found.setdefault(outlier.number, {})[band] = outlier
    return found


def _outlying(number: float, found: Mapping[int, Outlier], bands: Sequence[Values], names: Sequence[str]) -> str:
    counts = [outlier.pixels for outlier in found.values()]
    alike = len(found) == len(bands) and len(set(counts)) == 1
    where = "every band" if alike else ", ".join(names[band] for band in found)
    lows, highs = zip(*(outlier.others for outlier in found.values()), strict=True)
    worst = max(outlier.worsening for outlier in found.values())
    times = f"{worst:,.0f}" if worst < 1e6 else "more than a million"
    effect = f" It makes the deviation {times} times as large." if worst >= RULING else ""
    partly = "" if alike else ' and `nodata_bands = "any"`'
    converted = _converted(number, next(iter(found.values())).value)
    share = _percent(max(counts) / int(bands[0].pixels.sum()))
    return (
        f"{_number(number)}{converted} is the value of {share} of the pixels of {where}, far "
        f"from all others ({min(lows):.4g} to {max(highs):.4g}): a fill that nothing declares.{effect} "
        f"Set `nodata = {_number(number)}`{partly} for this source"
    )


def _area_values(bands: Sequence[Values]) -> set[float]:
    """Return the values that are frequent in all bands, and stand out there: 0, and an end that
    bands have in common."""
    ends = [{values.range()[at] for values in bands} for at in (0, 1)]
    candidates = {0.0}.union(*(values for values in ends if len(values) == 1)) - {SATURATED}
    return {value for value in candidates if all(_stands_out(values, value) for values in bands)}


def _areas(value: float, number: float, bands: Sequence[Values]) -> str:
    share = min(values.share_at(value) for values in bands)
    return (
        f"{_number(number)}{_converted(number, value)} is the value of all bands at once in {_percent(share)} of the "
        "pixels, over whole areas: probably a collar or a gap. If it is no measurement, set "
        f"`nodata = {_number(number)}` for this source"
    )


def _stands_out(values: Values, value: float) -> bool:
    """Tell whether a value is frequent, and much more so than those near it: what is clipped has
    near ones."""
    is_it = (values.low <= value) & (value <= values.high)
    others = Values(values.low[~is_it], values.high[~is_it], values.pixels[~is_it])
    if values.share_at(value) < LEAST_AREA or not len(others.pixels):
        return False
    reach = NEAR * others.spread()
    near = (others.high >= value - reach) & (others.low <= value + reach)
    return bool(others.pixels[near].sum() < MOST_NEAR * values.pixels[is_it].sum())


def area_share(chips: Chips, source: int, value: float) -> float:
    """Return the share of a source's pixels in cells of `CELL` x `CELL` where every band has
    ``value``, over at most `LOOKED_AT` of its chips."""
    mine = np.flatnonzero(chips.origin.numpy() == source)
    mine = mine[np.linspace(0, len(mine) - 1, min(len(mine), LOOKED_AT)).astype(np.int64)]
    cells = 0.0
    for index in mine:
        same = (chips.read([int(index)]).numpy()[0] == value).all(axis=0)
        side = len(same) // CELL * CELL
        cells += float(same[:side, :side].reshape(side // CELL, CELL, side // CELL, CELL).all(axis=(1, 3)).mean())
    return cells / len(mine)


def _number(value: float) -> str:
    """Return a number as a site file takes it."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else str(np.float32(value))


def _converted(number: float, value: float) -> str:
    return "" if math.isclose(number, value, rel_tol=0.01) else f" (in the card's units {value:.4g})"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
