"""Aerial photographs, as national mapping agencies distribute them in tiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from zoo.framework import Array, ExpectedSource, Layout, Truth, byte_planes, everywhere, write_raster

SIZE = 32
RGB = ("red", "green", "blue")
JP2: dict[str, Any] = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
"""Without loss, so that pixels can be compared; agencies lose a little, E080 says how much."""


def tile(scene: int, bands: int = 3) -> tuple[Array, Truth]:
    """Return pixels (C, H, W) of 8 bits, black and white ones among them, which are measurements
    all the same."""
    values = byte_planes(bands, SIZE, scene)
    values[:, 5, 7 + scene], values[:, 9, 3] = 0, 255
    return values, Truth(values.astype(float), everywhere(SIZE))


def _naip(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, name in enumerate(("m_3807511_ne_18_060_20181104", "m_3807511_nw_18_060_20181104")):
        values, truth[name] = tile(scene, bands=4)
        place = folder / "md" / "2018" / "60cm" / "rgbir" / "38075" / f"{name}.tif"
        write_raster(place, values, gsd=0.6, crs="EPSG:26918", photometric="RGB", compress="lzw")
    return [ExpectedSource("naip", (*RGB, "nir"), truth, gsd_m=0.6)]


def _swissimage(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, name in enumerate(("swissimage-dop10_2021_2594-1138", "swissimage-dop10_2020_2528-1153")):
        values, truth[name] = tile(scene)
        write_raster(folder / name / f"{name}_0.1_2056.tif", values, gsd=0.1, crs="EPSG:2056", photometric="RGB")
    return [ExpectedSource("rgb", RGB, truth, gsd_m=0.1)]


def _north_rhine_westphalia(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, name in enumerate(("dop10rgbi_32_280_5652_1_nw_2023", "dop10rgbi_32_357_5645_1_nw_2025")):
        values, truth[name] = tile(scene, bands=4)
        write_raster(folder / f"{name}.jp2", values, gsd=0.1, crs="EPSG:25832", **JP2)
    return [ExpectedSource("aerial-rgbn", (*RGB, "nir"), truth, gsd_m=0.1)]


def _bd_ortho(folder: Path) -> list[ExpectedSource]:
    found: list[dict[str, Truth]] = []
    for kind, start in (("RVB", 0), ("IRC", 5)):
        truth = {}
        for scene, at in enumerate(("0640-6865", "0645-6865"), start=start):
            name = f"75-2021-{at}-LA93-0M20-{'' if kind == 'RVB' else 'IRC-'}E080"
            values, truth[name] = tile(scene)
            place = folder / f"BDORTHO_2-0_{kind}-0M20_JP2-E080_LAMB93_D075_2021-01-01" / "ORTHOHR"
            place = place / "1_DONNEES_LIVRAISON_2022-03-00150" / f"OHR_{kind}_0M20_JP2-E080_LAMB93_D75-2021"
            write_raster(place / f"{name}.jp2", values, gsd=0.2, crs="EPSG:2154", **JP2)
            (place / f"{name}.tab").write_text("!table")
        found.append(truth)
    return [
        ExpectedSource("rgb", RGB, found[0], gsd_m=0.2),
        ExpectedSource("aerial-rgbn", ("nir", "red", "green"), found[1], gsd_m=0.2),
    ]


def _geonrw(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, name in enumerate(("aachen/280_5652", "bergisch/357_5645")):
        values, truth[f"{name}_rgb"] = tile(scene)
        write_raster(folder / f"{name}_rgb.jp2", values, gsd=1, crs="EPSG:25832", **JP2)
        write_raster(folder / f"{name}_dem.tif", values[0].astype(np.float32), gsd=1, crs="EPSG:25832")
        write_raster(folder / f"{name}_seg.tif", values[0] % 11, gsd=1, crs="EPSG:25832")
    return [ExpectedSource("rgb", RGB, truth, gsd_m=1, left_out=("*_dem.tif", "*_seg.tif"))]


LAYOUTS: Sequence[Layout] = (
    Layout(
        "NAIP",
        "USDA, NAIP digital ortho photo image, names of quarter quads (https://registry.opendata.aws/naip/): "
        "m_quad_corner_zone_resolution_date.tif with red, green, blue and near infrared",
        _naip,
    ),
    Layout(
        "SWISSIMAGE 10 cm",
        "swisstopo, SWISSIMAGE (https://www.swisstopo.admin.ch/en/orthoimage-swissimage-10): GeoTIFF in LV95",
        _swissimage,
    ),
    Layout(
        "Digital orthophotographs of North Rhine-Westphalia",
        "Geobasis NRW (https://www.opengeodata.nrw.de/produkte/geobasis/lusat/dop/dop_jp2_f10/): "
        "dop10rgbi, 10 cm, red, green, blue and near infrared as JPEG 2000",
        _north_rhine_westphalia,
    ),
    Layout(
        "BD ORTHO",
        "IGN, BD ORTHO descriptif de contenu (https://geoservices.ign.fr/bdortho): RVB is red, green, blue; "
        "IRC is near infrared, red, green",
        _bd_ortho,
    ),
    Layout(
        "GeoNRW",
        "Baier et al., GeoNRW, https://doi.org/10.21227/s5xq-b822, as torchgeo.datasets.GeoNRW reads it: "
        "city/x_y_rgb.jp2 beside _dem.tif and _seg.tif",
        _geonrw,
    ),
)
