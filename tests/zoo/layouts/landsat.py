"""Landsat Collection 2 as the United States Geological Survey distributes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from zoo.framework import Array, ExpectedSource, Layout, Truth, levels, plane, write_raster

SIZE = 32
CLEAR, CLOUD, SHADOW, FILL = 21824, 22280, 23888, 1
"""Values of QA_PIXEL that real scenes of Landsat 8 have: LSDS-1619, section 3.2 and its table of
common values."""
OLI = ("coastal", "blue", "green", "red", "nir", "swir_1", "swir_2")


def clouded(scene: int) -> Array:
    """Return a QA_PIXEL (H, W): fill along the left edge, a small cloud, and one that fills a
    chip's corner."""
    quality = np.full((SIZE, SIZE), CLEAR, np.uint16)
    quality[:, 0] = FILL
    quality[4:7, 20 + scene : 23 + scene] = CLOUD
    quality[7, 20] = SHADOW
    quality[16:, 24:] = CLOUD
    return quality


def _level_2(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, name in enumerate(
        ("LC08_L2SP_140041_20130503_20190828_02_T1", "LC08_L2SP_140041_20130519_20200913_02_T1")
    ):
        quality = clouded(scene)
        values = np.stack([plane(level, SIZE) for level in levels(7, scene, 7300)])
        start = folder / name / name
        for i, band in enumerate(values, start=1):
            stored = np.where(quality == FILL, 0, band).astype(np.uint16)
            write_raster(start.with_name(f"{name}_SR_B{i}.TIF"), stored, 30, nodata=0)
        for what in ("ST_B10",):
            write_raster(start.with_name(f"{name}_{what}.TIF"), plane(40_000, SIZE).astype(np.uint16), 30, nodata=0)
        for what in ("ST_ATRAN", "ST_CDIST", "ST_DRAD", "ST_EMIS", "ST_EMSD", "ST_QA", "ST_TRAD", "ST_URAD"):
            write_raster(start.with_name(f"{name}_{what}.TIF"), plane(900, SIZE).astype(np.int16), 30, nodata=-9999)
        write_raster(start.with_name(f"{name}_SR_QA_AEROSOL.TIF"), np.full((SIZE, SIZE), 96, np.uint8), 30, nodata=1)
        write_raster(start.with_name(f"{name}_QA_RADSAT.TIF"), np.zeros((SIZE, SIZE), np.uint16), 30)
        write_raster(start.with_name(f"{name}_QA_PIXEL.TIF"), quality, 30, nodata=1)
        write_raster(start.with_name(f"{name}_thumb_small.jpeg"), np.full((3, 16, 16), 90, np.uint8), 0, driver="JPEG")
        start.with_name(f"{name}_MTL.txt").write_text("GROUP = LANDSAT_METADATA_FILE\nEND\n")
        truth[name] = Truth(values, quality == CLEAR)
    return [
        ExpectedSource(
            "landsat8-l2",
            OLI,
            truth,
            gsd_m=30,
            scale=2.75e-5,
            offset=-0.2,
            left_out=("*_ST_*", "*_QA_RADSAT.TIF", "*_QA_AEROSOL.TIF", "*_thumb_*"),
        )
    ]


LAYOUTS = (
    Layout(
        "landsat-c2-l2",
        "USGS LSDS-1328, Landsat 8-9 OLI/TIRS Collection 2 Level 2 Data Format Control Book, section 3 (names, fill "
        "values); https://www.usgs.gov/landsat-missions/landsat-collection-2-quality-assessment-bands",
        _level_2,
    ),
)
