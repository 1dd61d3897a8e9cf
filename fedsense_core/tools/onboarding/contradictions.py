"""Values that a sensor card does not explain, in words that say what is probably wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.chips.fills import fill_warnings
from fedsense_core.data.chips.statistics import Statistics
from fedsense_core.data.raster.formats import Unreadable
from fedsense_core.data.raster.stored_numbers import units_of
from fedsense_core.data.sites.schema import Source
from fedsense_core.data.sites.sensors import SensorCard
from fedsense_core.data.sites.side_masks import unread_side_masks
from fedsense_core.tools.onboarding.survey import look

LOOKED_AT = 12
"""Scenes whose pixel sizes are compared with the card's."""
LEGACY = "Landsat surface reflectance from before Collection 2 needs scale = 0.0001 and offset = 0.0"


def contradictions(source: Source, chips: Chips) -> list[str]:
    """Return what looks wrong about the pixels of one source, whose only source ``chips`` are
    from."""
    statistics, names = chips.statistics[0], list(chips.bands)
    found = fill_warnings(chips, 0, units_of(source, chips.scene_paths, names))
    found += unread_side_masks(source)
    found += _ranges(source.card, statistics, names)
    found += _constant(statistics, names)
    found += _equal(statistics, names)
    found += _pixel_size(source, chips.scene_paths)
    return found


def physical(card: SensorCard) -> tuple[float, float]:
    """Return scale and offset from the chips' numbers to physical values: decibels are physical
    already."""
    return (1.0, 0.0) if card.decibels != "no" else (card.scale, card.offset)


def _ranges(card: SensorCard, statistics: Statistics, names: Sequence[str]) -> Iterator[str]:
    """Yield how values contradict the card's range: one sentence for the cause if it shows, else
    for the bands."""
    if card.expected is None:
        return
    cause = _cause(card, statistics)
    if cause:
        yield cause
        return
    scale, offset = physical(card)
    low, high = card.expected
    ends = np.sort(statistics.percentiles([2, 98]) * scale + offset, axis=0)
    outside = [(name, a, b) for name, (a, b) in zip(names, ends.T, strict=True) if a < low or b > high]
    if outside:
        listed = ", ".join(f"{name} {a:.4g} to {b:.4g}" for name, a, b in outside)
        yield (
            f"values beyond what the card expects ({low:g} to {high:g}): {listed} (2 % and 98 %). Another card, or "
            "another `scale`, `offset` or `nodata`, may be the right one"
        )


def _cause(card: SensorCard, statistics: Statistics) -> str:
    """Return what explains strange values of the whole source, or an empty text."""
    assert card.expected is not None
    least, most = float(statistics.minimum.min()), float(statistics.maximum.max())
    middle = statistics.percentiles([50])[0] * card.scale + card.offset
    low, high = card.expected
    span = f"all values lie between {least:.4g} and {most:.4g}"
    if card.is_radar:
        if card.decibels == "no" and low < 0 and least >= 0:
            return f"{span}: looks like amplitudes or powers, not decibels. Try sensor = 'sentinel1-grd'"
        return ""
    if card.expected == (0.0, 255.0):
        if card.scale == 1 and least >= 0 and most <= 1.5:
            return f"{span}: looks like values divided by 255 already, under a card for 8-bit values"
        return (
            f"{span}: looks like 16-bit values under a card for 8-bit ones. Name the sensor's own card"
            if most > 255
            else ""
        )
    full = (high - card.offset) / card.scale  # the stored number of the brightest that is expected
    if full > 10 * 255:
        if least >= -1 and most <= 2:
            return f"{span}: looks like reflectance already. Set scale = 1.0 and offset = 0.0 for this source"
        if least >= 0 and most <= 255:
            return f"{span}: looks like 8-bit values under a card for 16-bit ones. Try sensor = 'rgb', or 'aerial-rgbn'"
        if card.offset < 0 and (middle < 0).all():
            return f"{span}: most would be negative reflectance. {LEGACY}"
    return ""


def _constant(statistics: Statistics, names: Sequence[str]) -> list[str]:
    pairs = zip(names, statistics.minimum, statistics.maximum, strict=True)
    return [f"band {name} is constant: every pixel is {low:g}" for name, low, high in pairs if low == high]


def _equal(statistics: Statistics, names: Sequence[str]) -> list[str]:
    """Name bands whose pixels are distributed alike to the last one: copies of each other."""
    copies: dict[object, list[str]] = {}
    for name, counts, sums in zip(names, statistics.counts, statistics.exact, strict=True):
        if sums.low < sums.high:
            copies.setdefault((counts.tobytes(), sums), []).append(name)
    return [
        f"bands {', '.join(group)} have exactly the same values: copies of one band?"
        for group in copies.values()
        if len(group) > 1
    ]


def _pixel_size(source: Source, scene_paths: Sequence[str]) -> list[str]:
    scenes = {str(scene.path): scene for scene in source.scenes}
    sizes = []
    for path in scene_paths[:: -(-len(scene_paths) // LOOKED_AT)]:
        layers = scenes[path].layers if path in scenes else ()
        own = [size for layer in layers if (size := _gsd_m(layer.path))]
        sizes += [min(own)] if own else []
    if not sizes:
        return []
    low, high, said = min(sizes), max(sizes), source.card.gsd_m
    if 0.8 * said <= low and high <= 1.25 * said:
        return []
    real = f"{low:.3g}" if high < 1.05 * low else f"{low:.3g} to {high:.3g}"
    return [f"pixels are {real} m by the files' georeference, but the site file says {said:g} m: set `gsd_m`"]


def _gsd_m(path: Path) -> float | None:
    try:
        return look(path).gsd_m
    except Unreadable:
        return None
