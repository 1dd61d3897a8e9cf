"""How many scenes had a number added to their counts, and why, in words for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import rasterio

from fedsense_core.data.raster.files import open_raster, origins_of
from fedsense_core.data.raster.formats import GDAL_OPTIONS, Unreadable
from fedsense_core.data.raster.scenes import layers_needed
from fedsense_core.data.raster.units import offset_of
from fedsense_core.data.sites.schema import Scene, Source
from fedsense_core.data.sites.sentinel2 import NEWEST_KNOWN, Offset


def offsets_of(source: Source, scene_paths: Sequence[str], bands: Sequence[str]) -> list[Offset]:
    """Return what is added to the counts of each of a source's scenes that is used and can be read.

    Empty for sources whose files and products state no offset.
    """
    if not source.baseline_offset and source.card.add_offset is None:
        return []
    scenes = {str(scene.path): scene for scene in source.scenes}
    with rasterio.Env(**GDAL_OPTIONS):
        found = [_of_scene(scenes[path], source, bands) for path in scene_paths if path in scenes]
    return [offset for offset in found if offset is not None]


def said(offsets: Sequence[Offset]) -> list[str]:
    """Say what was added, to how many scenes and why, the most frequent number first."""
    lines = []
    numbers = Counter(_number(offset) for offset in offsets)
    for number, times in numbers.most_common():
        reasons = Counter(offset.why for offset in offsets if _number(offset) == number)
        why = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
        lines.append(f"{number} added to {times} of {_scenes(len(offsets))}: {why}")
    return lines


def unknown_baselines(offsets: Sequence[Offset]) -> list[str]:
    """Return a warning for each baseline that is newer than this release."""
    unknown = Counter(offset.unknown for offset in offsets if offset.unknown)
    return [
        f"baseline {baseline} of {_scenes(times)} is newer than {NEWEST_KNOWN}, the newest that FedSense knows: "
        "the offset is taken to be the same. Compare with ESA's notes, and set `add_offset` if it is not"
        for baseline, times in unknown.items()
    ]


def _of_scene(scene: Scene, source: Source, bands: Sequence[str]) -> Offset | None:
    """Return the offset of the scene's first file that has one, else that of its first file."""
    found = []
    for layer, wanted in layers_needed(scene, source.card.positions(bands, source.sensor)):
        try:
            with open_raster(layer.path) as file:
                indexes = [layer.bands.index(band) + 1 for band in wanted]
                found.append(offset_of(origins_of(layer.path)[0], file, wanted, indexes, source))
        except (Unreadable, ValueError):
            continue
    return next((offset for offset in found if any(offset.counts)), found[0] if found else None)


def _number(offset: Offset) -> str:
    numbers = sorted(set(offset.counts))
    return " to ".join(f"{number:g}" for number in dict.fromkeys((numbers[0], numbers[-1])))


def _scenes(count: int) -> str:
    return "1 scene" if count == 1 else f"{count} scenes"
