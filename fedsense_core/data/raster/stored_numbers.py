"""Which number in a source's files a pixel had before it was converted: what a site file calls
nodata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import rasterio

from fedsense_core.data.raster.files import open_raster, origins_of
from fedsense_core.data.raster.formats import GDAL_OPTIONS, Unreadable
from fedsense_core.data.raster.scenes import layers_needed
from fedsense_core.data.raster.units import Units
from fedsense_core.data.sites.schema import Scene, Source


def units_of(source: Source, scene_paths: Sequence[str], bands: Sequence[str]) -> Units:
    """Return the units of the named bands in the first of these scenes that can be read.

    Scenes of one source may differ in them; without any, those of an image of a dataset.
    """
    scenes = {str(scene.path): scene for scene in source.scenes}
    with rasterio.Env(**GDAL_OPTIONS):
        for path in scene_paths:
            if path in scenes and (units := _of_scene(scenes[path], source, bands)):
                return units
    return Units.of_image(source, len(bands))


def _of_scene(scene: Scene, source: Source, bands: Sequence[str]) -> Units | None:
    positions = source.card.positions(bands, source.sensor)
    steps: dict[int, tuple[float, float]] = {}
    found = None
    for layer, wanted in layers_needed(scene, positions):
        try:
            with open_raster(layer.path) as file:
                indexes = [layer.bands.index(band) + 1 for band in wanted]
                found = Units.of(origins_of(layer.path)[0], file, wanted, indexes, source)
        except (Unreadable, ValueError):
            return None
        steps |= dict(zip(wanted, zip(found.gain, found.offset, strict=True), strict=True))
    if found is None or any(position not in steps for position in positions):
        return None
    gains, offsets = zip(*(steps[position] for position in positions), strict=True)
    return replace(found, gain=gains, offset=offsets)
