"""Sentinel-2 under the names that its distributors give it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from zoo.framework import Array, ExpectedSource, Layout, Truth, levels, plane, stored_plane, write_raster

SIZE = 48
"""Pixels of 10 m: whole pixels of 20 and of 60 m too."""
GSD_M = {
    "B01": 60,
    "B02": 10,
    "B03": 10,
    "B04": 10,
    "B05": 20,
    "B06": 20,
    "B07": 20,
    "B08": 10,
    "B8A": 20,
    "B09": 60,
    "B10": 60,
    "B11": 20,
    "B12": 20,
}
NAMES = {
    "B01": "coastal",
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "red_edge_1",
    "B06": "red_edge_2",
    "B07": "red_edge_3",
    "B08": "nir",
    "B8A": "nir_narrow",
    "B09": "water_vapour",
    "B10": "cirrus",
    "B11": "swir_1",
    "B12": "swir_2",
}
LEVEL_2A = tuple(code for code in GSD_M if code != "B10")
SCL_CLEAR, SCL_SHADOW, SCL_CLOUD, SCL_SNOW = 4, 3, 9, 11


def scene_classes(scene: int) -> Array:
    """Return an SCL (H, W) of 20 m pixels: snow, which stays, a small cloud, and one that spoils
    two chips."""
    classes = np.full((SIZE // 2, SIZE // 2), SCL_CLEAR, np.uint8)
    classes[0, :3] = SCL_SNOW
    classes[2:4, 10 + scene : 12 + scene] = SCL_CLOUD
    classes[5, 9] = SCL_SHADOW
    classes[16:, 4:12] = SCL_CLOUD
    return classes


def seen(codes: tuple[str, ...], scene: int, gsd: Mapping[str, int] = GSD_M) -> Array:
    """Return what a scene's bands (C, H, W) show on the grid of 10 m."""
    of_band = dict(zip(GSD_M, levels(len(GSD_M), scene), strict=True))
    return np.stack([plane(of_band[code], SIZE, gsd[code] // 10) for code in codes])


def stored(code: str, scene: int, gsd: int | None = None, offset: int = 0) -> Array:
    """Return a band (H, W) as its file holds it, with ``offset`` added as the ground segment
    does."""
    of_band = dict(zip(GSD_M, levels(len(GSD_M), scene), strict=True))
    return (stored_plane(of_band[code], SIZE, (gsd or GSD_M[code]) // 10) + offset).astype(np.uint16)


def names_of(codes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the cards' names of bands."""
    return tuple(NAMES[code] for code in codes)


def clear_pixels(scene: int) -> Array:
    """Return where (H, W) `scene_classes` leaves the pixels of 10 m."""
    return np.isin(scene_classes(scene), (SCL_CLEAR, SCL_SNOW)).repeat(2, axis=0).repeat(2, axis=1)


def _element84(folder: Path) -> list[ExpectedSource]:
    """The bucket ``sentinel-cogs``: year and month without leading zeros above the scenes."""
    truth = {}
    for scene, (month, name) in enumerate(
        (("2022/5", "S2A_36QWD_20220516_0_L2A"), ("2022/11", "S2B_36QWD_20221117_0_L2A"))
    ):
        place = folder / "sentinel-s2-l2a-cogs/36/Q/WD" / month / name
        for code in LEVEL_2A:
            write_raster(place / f"{code}.tif", stored(code, scene), GSD_M[code], nodata=0)
        write_raster(place / "SCL.tif", scene_classes(scene), 20, nodata=0)
        write_raster(place / "AOT.tif", stored("B05", scene), 20, nodata=0)
        write_raster(place / "WVP.tif", stored("B06", scene), 20, nodata=0)
        write_raster(place / "TCI.tif", np.full((3, SIZE, SIZE), 77, np.uint8), 10, nodata=0)
        write_raster(place / "L2A_PVI.tif", np.full((3, 12, 12), 77, np.uint8), 320)
        (place / f"{name}.json").write_text("{}")
        truth[name] = Truth(seen(LEVEL_2A, scene), clear_pixels(scene))
    left_out = ("AOT.tif", "WVP.tif", "TCI.tif", "L2A_PVI.tif")
    return [ExpectedSource("sentinel2-l2a", names_of(LEVEL_2A), truth, gsd_m=10, scale=1e-4, left_out=left_out)]


def _by_asset_key(folder: Path) -> list[ExpectedSource]:
    """The same bucket as tools for STAC save it, each file by the key of its asset: ``nir08`` is
    B8A, and not the B08 that other catalogues of this name mean."""
    truth = {}
    for scene, name in enumerate(("S2A_36QWD_20220516_0_L2A", "S2B_36QWD_20221117_0_L2A")):
        for key, code in ASSET_KEYS.items():
            write_raster(folder / name / f"{key}.tif", stored(code, scene), GSD_M[code], nodata=0)
        write_raster(folder / name / "scl.tif", scene_classes(scene), 20, nodata=0)
        for key in ("aot", "wvp"):
            write_raster(folder / name / f"{key}.tif", stored("B05", scene), 20, nodata=0)
        write_raster(folder / name / "visual.tif", np.full((3, SIZE, SIZE), 77, np.uint8), nodata=0)
        (folder / name / f"{name}.json").write_text("{}")
        truth[name] = Truth(seen(LEVEL_2A, scene), clear_pixels(scene))
    left_out = ("aot.tif", "wvp.tif", "visual.tif")
    return [ExpectedSource("sentinel2-l2a", names_of(LEVEL_2A), truth, gsd_m=10, scale=1e-4, left_out=left_out)]


ASSET_KEYS = {
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge1": "B05",
    "rededge2": "B06",
    "rededge3": "B07",
    "nir": "B08",
    "nir08": "B8A",
    "nir09": "B09",
    "swir16": "B11",
    "swir22": "B12",
}

LAYOUTS = (
    Layout(
        "sentinel-cogs",
        "https://registry.opendata.aws/sentinel-2-l2a-cogs (bucket: UTM zone/latitude band/square/year/month/scene)",
        _element84,
    ),
    Layout(
        "earth-search-by-key",
        "https://earth-search.aws.element84.com/v1/collections/sentinel-2-l2a (keys of assets); "
        "https://stac-asset.readthedocs.io (FileNameStrategy.KEY)",
        _by_asset_key,
    ),
)
