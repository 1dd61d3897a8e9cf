"""Sets for machine learning whose patches are folders with one file a band."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from zoo.framework import ExpectedSource, Layout, Truth, byte_planes, everywhere, levels, plane, write_raster
from zoo.layouts.sentinel2 import GSD_M, LEVEL_2A, SIZE, names_of, seen, stored

ALL = tuple(GSD_M)


def _decibels(scene: int) -> np.ndarray:
    """Return VV and VH (2, H, W) in decibels."""
    return np.stack([plane(level, SIZE) / 100 - 25 for level in levels(2, scene, 0)]).astype(np.float32)


def _write_sentinel_1(place: Path, scene: int, start: str = "") -> Truth:
    shown = _decibels(scene)
    for name, band in zip(("VV", "VH"), shown, strict=True):
        write_raster(place / f"{start}{name}.tif", band)
    return Truth(shown, everywhere(SIZE))


def _bigearthnet_2(folder: Path) -> list[ExpectedSource]:
    """Made with the toolbox from level 1C of 2017 and 2018, hence N9999, and no offset."""
    optical, radar = {}, {}
    for scene, (tile, row, beside) in enumerate(
        (
            ("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP", "26_57", "S1A_IW_GRDH_1SDV_20170613T165043"),
            ("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP", "26_58", "S1A_IW_GRDH_1SDV_20170613T165043"),
            ("S2B_MSIL2A_20170615T102019_N9999_R122_T32TNS", "45_23", "S1A_IW_GRDH_1SDV_20170615T170156"),
        )
    ):
        patch = f"{tile}_{row}"
        for code in LEVEL_2A:
            place = folder / "BigEarthNet-S2" / tile / patch
            write_raster(place / f"{patch}_{code}.tif", stored(code, scene), GSD_M[code])
        optical[f"/{patch}/"] = Truth(seen(LEVEL_2A, scene), everywhere(SIZE))
        name = f"{beside}_{tile[-5:]}_{row}"
        radar[f"/{name}/"] = _write_sentinel_1(folder / "BigEarthNet-S1" / beside / name, scene, f"{name}_")
        labels = np.full((SIZE, SIZE), 112, np.uint16)
        write_raster(folder / "Reference_Maps" / tile / patch / f"{patch}_reference_map.tif", labels)
    return [
        ExpectedSource("sentinel2-l2a", names_of(LEVEL_2A), optical, gsd_m=10, left_out=("*_reference_map.tif",)),
        ExpectedSource("sentinel1-grd-db", ("VV", "VH"), radar, gsd_m=10),
    ]


def _bigearthnet_1(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, name in enumerate(("S2A_MSIL2A_20170613T101031_61_39", "S2A_MSIL2A_20170613T101031_61_40")):
        for code in LEVEL_2A:
            write_raster(folder / "BigEarthNet-v1.0" / name / f"{name}_{code}.tif", stored(code, scene), GSD_M[code])
        (folder / "BigEarthNet-v1.0" / name / f"{name}_labels_metadata.json").write_text('{"labels": ["Pastures"]}')
        truth[f"/{name}/"] = Truth(seen(LEVEL_2A, scene), everywhere(SIZE))
    return [ExpectedSource("sentinel2-l2a", names_of(LEVEL_2A), truth, gsd_m=10)]


def _ssl4eo_s12(folder: Path) -> list[ExpectedSource]:
    """Three products of the same places, whose folders of the same date and tile have the same
    name."""
    surface, top, radar = {}, {}, {}
    seasons = ("20200323T162931_20200323T163750_T15QXA", "20200621T162901_20200621T164746_T15QXA")
    passes = (
        "S1A_IW_GRDH_1SDV_20200329T001515_20200329T001540_031883_03AE27_9BAF",
        "S1B_IW_GRDH_1SDV_20200627T001449_20200627T001514_022212_02A27E_2A09",
    )
    for patch in range(2):
        for season in range(2):
            scene, number = 2 * patch + season, f"{patch:07d}"
            for name, codes, truth in (("s2a", LEVEL_2A, surface), ("s2c", ALL, top)):
                shift = 4 * (name == "s2c")
                place = folder / name / number / seasons[season]
                for code in codes:
                    write_raster(place / f"{code.replace('B0', 'B')}.tif", stored(code, scene + shift), GSD_M[code])
                truth[f"/{name}/{number}/{seasons[season]}/"] = Truth(seen(codes, scene + shift), everywhere(SIZE))
            key = f"s1/{number}/{passes[season]}"
            radar[f"/{key}/"] = _write_sentinel_1(folder / key, scene)
    return [
        ExpectedSource("sentinel2-l2a", names_of(LEVEL_2A), surface, gsd_m=10),
        ExpectedSource("sentinel2-l1c", names_of(ALL), top, gsd_m=10),
        ExpectedSource("sentinel1-grd-db", ("VV", "VH"), radar, gsd_m=10),
    ]


def _oscd(folder: Path) -> list[ExpectedSource]:
    """Pairs of dates, all bands brought to 10 m, without georeference; pictures of both, and change
    maps."""
    images = folder / "Onera Satellite Change Detection dataset - Images"
    optical, pictures = {}, {}
    for number, city in enumerate(("paris", "aguasclaras")):
        for date in (1, 2):
            scene = 2 * number + date - 1
            shown = np.stack([plane(level, SIZE) for level in levels(13, scene)])
            for code, band in zip(ALL, shown, strict=True):
                write_raster(images / city / f"imgs_{date}_rect/{code}.tif", band.astype(np.uint16), 0)
            optical[f"/{city}/imgs_{date}_rect/"] = Truth(shown, everywhere(SIZE))
            picture = byte_planes(3, 32, scene)
            write_raster(images / city / f"pair/img{date}.png", picture, 0, driver="PNG")
            pictures[f"/{city}/pair/img{date}.png"] = Truth(picture, everywhere(32))
        labels = folder / "Onera Satellite Change Detection dataset - Train Labels" / city / "cm"
        change = np.zeros((SIZE, SIZE), np.uint8)
        change[10:20, 10:20] = 255
        write_raster(labels / "cm.png", change, 0, driver="PNG")
        write_raster(labels / f"{city}-cm.tif", change // 255 + 1, 0)
    return [
        ExpectedSource("sentinel2-l1c", names_of(ALL), optical, left_out=("cm.png", "*-cm.tif")),
        ExpectedSource("rgb", ("red", "green", "blue"), pictures),
    ]


LAYOUTS = (
    Layout("bigearthnet-v2", "https://bigearth.net (reBEN); folders as in torchgeo's BigEarthNetV2", _bigearthnet_2),
    Layout("bigearthnet-v1", "https://arxiv.org/abs/1902.06148; folders as in torchgeo's BigEarthNet", _bigearthnet_1),
    Layout("ssl4eo-s12", "https://github.com/zhu-xlab/SSL4EO-S12; folders as in torchgeo's SSL4EOS12", _ssl4eo_s12),
    Layout("oscd", "https://rcdaudt.github.io/oscd; folders as in torchgeo's OSCD", _oscd),
)
