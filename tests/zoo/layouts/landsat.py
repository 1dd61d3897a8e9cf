"""Landsat Collection 2 as the United States Geological Survey distributes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from zoo.framework import Array, ExpectedSource, Layout, Truth, byte_planes, levels, plane, write_raster

SIZE = 32
CLEAR, CLOUD, SHADOW, FILL = 21824, 22280, 23888, 1
"""Values of QA_PIXEL of Landsat 8 that are frequent in real scenes (LSDS-1619, table of pixel
values)."""
CLEAR_TM, CLOUD_TM = 5440, 5896
"""The same of Landsat 4 to 7 (LSDS-1618), which have no bits of cirrus."""
OLI = ("coastal", "blue", "green", "red", "nir", "swir_1", "swir_2")
TM = ("blue", "green", "red", "nir", "swir_1", "swir_2")
TM_CODES = ("B1", "B2", "B3", "B4", "B5", "B7")
SURFACE_TEMPERATURE = ("ST_ATRAN", "ST_CDIST", "ST_DRAD", "ST_EMIS", "ST_EMSD", "ST_QA", "ST_TRAD", "ST_URAD")
PICTURE = np.full((3, 16, 16), 90, np.uint8)
LEFT_OUT = ("*_ST_*", "*_QA_RADSAT.TIF", "*_QA_AEROSOL.TIF", "*_thumb_*", "*_SR_CLOUD_QA.TIF", "*_ATMOS_OPACITY.TIF")


def quality(scene: int, clear: int = CLEAR, cloud: int = CLOUD) -> Array:
    """Return a QA_PIXEL (H, W): fill along the left edge, a small cloud with a shadow, and a cloud
    that spoils a chip."""
    values = np.full((SIZE, SIZE), clear, np.uint16)
    values[:, 0] = FILL
    values[4:7, 20 + scene : 23 + scene] = cloud
    values[7, 20] = SHADOW
    values[16:, 24:] = cloud
    return values


def write_level_2(start: Path, codes: Sequence[str], scene: int, shown: Array, flags: Array, thermal: str) -> None:
    """Write the files of a science package whose names begin with ``start``: bands (C, H, W), and
    all that comes with them."""
    for code, band in zip(codes, shown, strict=True):
        write_raster(_named(start, f"SR_{code}.TIF"), np.where(flags == FILL, 0, band).astype(np.uint16), 30, nodata=0)
    write_raster(_named(start, f"{thermal}.TIF"), plane(40_000 + scene, SIZE).astype(np.uint16), 30, nodata=0)
    for what in SURFACE_TEMPERATURE:
        write_raster(_named(start, f"{what}.TIF"), plane(900, SIZE).astype(np.int16), 30, nodata=-9999)
    write_raster(_named(start, "QA_RADSAT.TIF"), np.zeros((SIZE, SIZE), np.uint16), 30)
    write_raster(_named(start, "QA_PIXEL.TIF"), flags, 30, nodata=1)
    write_raster(_named(start, "thumb_small.jpeg"), PICTURE, 0, driver="JPEG")
    _named(start, "MTL.txt").write_text("GROUP = LANDSAT_METADATA_FILE\nEND_GROUP = LANDSAT_METADATA_FILE\nEND\n")


def _named(start: Path, end: str) -> Path:
    return start.with_name(f"{start.name}_{end}")


def _level_2(folder: Path) -> list[ExpectedSource]:
    truth = {}
    names = ("LC08_L2SP_140041_20130503_20190828_02_T1", "LC08_L2SP_140041_20130519_20200913_02_T1")
    for scene, name in enumerate(names):
        flags = quality(scene)
        shown = np.stack([plane(level, SIZE) for level in levels(7, scene, 7300)])
        start = folder / name / name
        write_level_2(start, [f"B{i}" for i in range(1, 8)], scene, shown, flags, "ST_B10")
        write_raster(_named(start, "SR_QA_AEROSOL.TIF"), np.full((SIZE, SIZE), 96, np.uint8), 30, nodata=1)
        truth[name] = Truth(shown, flags == CLEAR)
    return [ExpectedSource("landsat8-l2", OLI, truth, gsd_m=30, scale=2.75e-5, offset=-0.2, left_out=LEFT_OUT)]


def _level_2_of_two_missions(folder: Path) -> list[ExpectedSource]:
    """One flat folder with products of Landsat 5 and 7: same bands, other calibrations and
    wavelengths."""
    expected = []
    for scene, (name, sensor) in enumerate(
        (
            ("LT05_L2SP_042036_20070925_20200829_02_T1", "landsat5-l2"),
            ("LE07_L2SP_042036_20010612_20200917_02_T1", "landsat7-l2"),
        )
    ):
        flags = quality(scene, CLEAR_TM, CLOUD_TM)
        shown = np.stack([plane(level, SIZE) for level in levels(6, scene, 7300)])
        start = folder / name
        write_level_2(start, TM_CODES, scene, shown, flags, "ST_B6")
        write_raster(_named(start, "SR_CLOUD_QA.TIF"), np.full((SIZE, SIZE), 2, np.uint8), 30)
        write_raster(_named(start, "SR_ATMOS_OPACITY.TIF"), plane(100, SIZE).astype(np.int16), 30, nodata=-9999)
        truth = {name: Truth(shown, flags == CLEAR_TM)}
        expected.append(ExpectedSource(sensor, TM, truth, gsd_m=30, scale=2.75e-5, offset=-0.2, left_out=LEFT_OUT))
    return expected


def _level_1(folder: Path) -> list[ExpectedSource]:
    """With the panchromatic band at 15 m, the thermal ones, and four rasters of angles."""
    name = "LC09_L1TP_193028_20230605_20230605_02_T1"
    flags = quality(0)
    shown = np.stack([plane(level, SIZE) for level in levels(7, 0, 7300)])
    start = folder / name / name
    for i, band in enumerate(shown, start=1):
        write_raster(_named(start, f"B{i}.TIF"), np.where(flags == FILL, 0, band).astype(np.uint16), 30, nodata=0)
    write_raster(_named(start, "B8.TIF"), plane(9000, 2 * SIZE).astype(np.uint16), 15, nodata=0)
    for code in ("B9", "B10", "B11"):
        write_raster(_named(start, f"{code}.TIF"), plane(5000, SIZE).astype(np.uint16), 30, nodata=0)
    for what in ("SAA", "SZA", "VAA", "VZA"):
        write_raster(_named(start, f"{what}.TIF"), plane(3000, SIZE).astype(np.int16), 30, nodata=0)
    write_raster(_named(start, "QA_RADSAT.TIF"), np.zeros((SIZE, SIZE), np.uint16), 30)
    write_raster(_named(start, "QA_PIXEL.TIF"), flags, 30, nodata=1)
    left_out = ("*_B8.TIF", "*_B9.TIF", "*_B1[01].TIF", "*_[SV][AZ]A.TIF", "*_QA_RADSAT.TIF")
    truth = {name: Truth(shown, flags == CLEAR)}
    return [ExpectedSource("landsat9-l1", OLI, truth, gsd_m=30, scale=2e-5, offset=-0.1, left_out=left_out)]


def _collection_1(folder: Path) -> list[ExpectedSource]:
    """Of before 2022: the last but one part of names is 01, and the quality band another."""
    name = "LC08_L1TP_140041_20130503_20170504_01_T1"
    flags = quality(0)
    shown = np.stack([plane(level, SIZE) for level in levels(7, 0, 7300)])
    start = folder / name / name
    for i, band in enumerate(shown, start=1):
        write_raster(_named(start, f"B{i}.TIF"), np.where(flags == FILL, 0, band).astype(np.uint16), 30)
    write_raster(_named(start, "B8.TIF"), plane(9000, 2 * SIZE).astype(np.uint16), 15)
    bqa = np.select([flags == CLEAR, flags == CLOUD, flags == SHADOW], [2720, 2800, 2976], 1).astype(np.uint16)
    write_raster(_named(start, "BQA.TIF"), bqa, 30)
    truth = {name: Truth(shown, flags == CLEAR)}
    return [ExpectedSource("landsat8-l1", OLI, truth, gsd_m=30, scale=2e-5, offset=-0.1, left_out=("*_B8.TIF",))]


def _level_1_of_landsat_7(folder: Path) -> list[ExpectedSource]:
    """Counts of 8 bits, with the thermal band at two gains, and a gap such as those since the scan
    line corrector failed in 2003."""
    name = "LE07_L1TP_042036_20100612_20200911_02_T1"
    flags = quality(0, CLEAR_TM, CLOUD_TM)
    flags[10] = FILL
    shown = byte_planes(1, SIZE)[0] + np.arange(6, dtype=np.uint8)[:, None, None] * 12
    start = folder / name / name
    for code, band in zip(TM_CODES, shown, strict=True):
        write_raster(_named(start, f"{code}.TIF"), np.where(flags == FILL, 0, band).astype(np.uint8), 30, nodata=0)
    for code in ("B6_VCID_1", "B6_VCID_2"):
        write_raster(_named(start, f"{code}.TIF"), byte_planes(1, SIZE), 30, nodata=0)
    write_raster(_named(start, "B8.TIF"), np.full((2 * SIZE, 2 * SIZE), 70, np.uint8), 15, nodata=0)
    write_raster(_named(start, "QA_PIXEL.TIF"), flags, 30, nodata=1)
    truth = {name: Truth(shown, flags == CLEAR_TM)}
    return [ExpectedSource("landsat7-l1", TM, truth, gsd_m=30, left_out=("*_B8.TIF", "*_B6_VCID_?.TIF"))]


def _analysis_ready(folder: Path) -> list[ExpectedSource]:
    """Tiles of the United States: names say region and tile instead of level, path and row."""
    truth = {}
    names = ("LC08_CU_003004_20230909_20230914_02", "LC08_CU_003004_20230925_20231003_02")
    for scene, name in enumerate(names):
        flags = quality(scene)
        shown = np.stack([plane(level, SIZE) for level in levels(7, scene, 7300)])
        start = folder / name / name
        write_level_2(start, [f"B{i}" for i in range(1, 8)], scene, shown, flags, "ST_B10")
        truth[name] = Truth(shown, flags == CLEAR)
    return [ExpectedSource("landsat8-l2", OLI, truth, gsd_m=30, scale=2.75e-5, offset=-0.2, left_out=LEFT_OUT)]


LAYOUTS = (
    Layout(
        "landsat-c2-l2",
        "USGS LSDS-1328, Landsat 8-9 OLI/TIRS Collection 2 Level 2 Data Format Control Book; LSDS-1619, Landsat 8-9 "
        "Collection 2 Level 2 Science Product Guide (fill values, scale, QA_PIXEL)",
        _level_2,
    ),
    Layout(
        "landsat-c2-l2-tm-etm",
        "USGS LSDS-1618, Landsat 4-7 Collection 2 Level 2 Science Product Guide",
        _level_2_of_two_missions,
    ),
    Layout(
        "landsat-c2-l1",
        "USGS LSDS-1822, Landsat 8-9 OLI/TIRS Collection 2 Level 1 Data Format Control Book",
        _level_1,
    ),
    Layout(
        "landsat-c2-l1-etm",
        "USGS LSDS-1414, Landsat 7 ETM+ Collection 2 Level 1 Data Format Control Book (bands of 8 bits, B6_VCID_1)",
        _level_1_of_landsat_7,
    ),
    Layout(
        "landsat-c1-l1",
        "USGS LSDS-1656, Landsat 8 Data Users Handbook, version 5 (file names; BQA of Collection 1)",
        _collection_1,
    ),
    Layout(
        "landsat-c2-ard",
        "USGS LSDS-1435, Landsat Collection 2 U.S. Analysis Ready Data, Data Format Control Book (naming of tiles)",
        _analysis_ready,
    ),
)
