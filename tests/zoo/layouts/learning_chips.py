"""Sets for machine learning whose chips are files with all bands, mostly without names for
them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from zoo.framework import ExpectedSource, Layout, Truth, byte_planes, everywhere, levels, plane, write_raster
from zoo.layouts.sentinel2 import GSD_M, names_of

SIZE = 32
CODES = tuple(GSD_M)


def _optical(scene: int, codes: tuple[str, ...] = CODES) -> np.ndarray:
    """Return bands (C, H, W) in the order of ``codes``, all on one grid."""
    of_band = dict(zip(CODES, levels(13, scene), strict=True))
    return np.stack([plane(of_band[code], SIZE) for code in codes]).astype(np.uint16)


def _decibels(scene: int) -> np.ndarray:
    return np.stack([plane(level, SIZE) / 100 - 25 for level in levels(2, scene, 0)]).astype(np.float32)


def _eurosat(folder: Path) -> list[ExpectedSource]:
    """EuroSAT of all bands: B8A comes last, not after B08 as in other sets of 13 bands."""
    order = (*(code for code in CODES if code != "B8A"), "B8A")
    below = folder / "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
    truth = {}
    for scene, name in enumerate(("AnnualCrop/AnnualCrop_1", "AnnualCrop/AnnualCrop_2", "SeaLake/SeaLake_1")):
        shown = _optical(scene, order)
        write_raster(below / f"{name}.tif", shown, 10.0)
        truth[f"{name}."] = Truth(shown, everywhere(SIZE))
    return [ExpectedSource("sentinel2-l1c", names_of(order), truth, gsd_m=10, scale=1e-4)]


def _triplets(folder: Path, season: str, block: int, labels: dict[str, int]) -> list[ExpectedSource]:
    """Write radar, all bands of level 1C, and labels, in folders and files named by season, kind
    and number."""
    optical, radar = {}, {}
    for scene, number in enumerate((30, 31)):
        for kind, shown in (("s1", _decibels(scene)), ("s2", _optical(scene))):
            name = f"{season}_{kind}_{block}_p{number}.tif"
            write_raster(folder / season / f"{kind}_{block}" / name, shown)
            (radar if kind == "s1" else optical)[name] = Truth(shown, everywhere(SIZE))
        for kind, bands in labels.items():
            path = folder / season / f"{kind}_{block}/{season}_{kind}_{block}_p{number}.tif"
            write_raster(path, np.full((bands, SIZE, SIZE), 10, np.uint16))
    left_out = tuple(f"{season}_{kind}_*" for kind in labels)
    return [
        ExpectedSource("sentinel2-l1c", names_of(CODES), optical, gsd_m=10, scale=1e-4, left_out=left_out),
        ExpectedSource("sentinel1-grd-db", ("VV", "VH"), radar, gsd_m=10),
    ]


def _sen12ms(folder: Path) -> list[ExpectedSource]:
    return _triplets(folder, "ROIs1158_spring", 1, {"lc": 4})


def _dfc2020(folder: Path) -> list[ExpectedSource]:
    return _triplets(folder, "ROIs0000_test", 0, {"lc": 4, "dfc": 1})


def _sen1floods11(folder: Path) -> list[ExpectedSource]:
    """In degrees; gaps of the radar are not-a-number, and labels have -1."""
    below = folder / "v1.1/data/flood_events/HandLabeled"
    optical, radar = {}, {}
    place = {"crs": "EPSG:4326", "corner": (-1.2, 9.0)}
    for scene, name in enumerate(("Ghana_103272", "India_285297")):
        shown, echo = _optical(scene), _decibels(scene)
        echo[:, 5, 6] = np.nan
        write_raster(below / f"S2Hand/{name}_S2Hand.tif", shown, 8.983e-5, **place)
        write_raster(below / f"S1Hand/{name}_S1Hand.tif", echo, 8.983e-5, **place)
        optical[f"{name}_S2Hand"] = Truth(shown, everywhere(SIZE))
        radar[f"{name}_S1Hand"] = Truth(echo, np.isfinite(echo[0]))
        labels = np.zeros((SIZE, SIZE), np.int16)
        labels[:4] = -1
        write_raster(below / f"LabelHand/{name}_LabelHand.tif", labels, 8.983e-5, **place)
        for kind in ("JRCWaterHand", "S1OtsuLabelHand"):
            water = (labels == 0).astype(np.uint8)
            write_raster(below / f"{kind}/{name}_{kind}.tif", water, 8.983e-5, **place)
    left_out = ("*_LabelHand.tif", "*_JRCWaterHand.tif", "*_S1OtsuLabelHand.tif")
    return [
        ExpectedSource("sentinel2-l1c", names_of(CODES), optical, gsd_m=10, scale=1e-4, left_out=left_out),
        ExpectedSource("sentinel1-grd-db", ("VV", "VH"), radar, gsd_m=10),
    ]


def _ssl4eo_l(folder: Path) -> list[ExpectedSource]:
    """Seven bands of 8 bits without names: a person has to say what they are."""
    waves = (0.443, 0.482, 0.5615, 0.6545, 0.865, 1.6085, 2.2005)
    truth = {}
    for scene, name in enumerate(
        ("0000001/LC08_172030_20130526", "0000001/LC08_172030_20130902", "0000002/LC08_223084_20130413")
    ):
        shown = byte_planes(1, SIZE, scene)[0] + np.arange(7, dtype=np.uint8)[:, None, None] * 15
        write_raster(folder / "ssl4eo_l_oli_sr" / name / "all_bands.tif", shown, 30)
        truth[f"/{name}/"] = Truth(shown, everywhere(SIZE))
    names = tuple(f"band_{i}" for i in range(1, 8))
    answers = tuple(str(wave) for wave in waves)
    return [
        ExpectedSource("custom", names, truth, gsd_m=30, wavelengths_um=waves, missing="wavelengths", answers=answers)
    ]


LAYOUTS = (
    Layout("eurosat-ms", "https://zenodo.org/records/7711810; order of bands as in torchgeo's EuroSAT", _eurosat),
    Layout("sen12ms", "https://doi.org/10.14459/2019mp1474000; names as in torchgeo's SEN12MS", _sen12ms),
    Layout(
        "dfc2020",
        "https://ieee-dataport.org/competitions/2020-ieee-grss-data-fusion-contest (names as in SEN12MS)",
        _dfc2020,
    ),
    Layout(
        "sen1floods11",
        "https://github.com/cloudtostreet/Sen1Floods11, README.md and docs/README.md (folders, types, bands, -1)",
        _sen1floods11,
    ),
    Layout("ssl4eo-l", "https://arxiv.org/abs/2306.09424; folders and types as in torchgeo's SSL4EOL", _ssl4eo_l),
)
