"""Sentinel-2 products as the Copernicus ground segment packs them: folders ``.SAFE`` with JPEG
2000."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from zoo.framework import Array, ExpectedSource, Layout, Truth, write_raster
from zoo.layouts.sentinel2 import GSD_M, LEVEL_2A, SIZE, clear_pixels, names_of, scene_classes, seen, stored

PSD = "Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD, issue 14.9"
NEW_GSD_M = {**GSD_M, "B01": 20}
"""From baseline 04.00 on, level 2A holds B01 with pixels of 20 m too."""
LEFT_OUT = ("*_TCI*", "*_AOT_*", "*_WVP_*", "*_PVI.*", "MSK_*", "*_SCL_60m.*", "T*_B0[24]_[26]0m.*", "T*_B01_60m.*")
LOSSLESS = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
GREY = np.full((SIZE // 2, SIZE // 2), 90, np.uint8)


def metadata(level: str, baseline: str, offset: int | None) -> str:
    """Return the product's MTD_MSIL2A.xml or MTD_MSIL1C.xml: its baseline, and the offset that it
    states for each band, if any (PSD, tables of General_Info)."""
    tag, around = {
        "2A": ("BOA_ADD_OFFSET", "BOA_ADD_OFFSET_VALUES_LIST"),
        "1C": ("RADIO_ADD_OFFSET", "Radiometric_Offset_List"),
    }[level]
    values = "".join(f'<{tag} band_id="{i}">{offset}</{tag}>' for i in range(13))
    stated = f"<{around}>{values}</{around}>" if offset is not None else ""
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n'
        f'<n1:Level-{level}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level}.xsd">'
        f"<n1:General_Info><Product_Info><PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL>"
        f"<PRODUCT_TYPE>S2MSI{level}</PRODUCT_TYPE><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></Product_Info>"
        "<Product_Image_Characteristics><Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>"
        "<SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>"
        f"{stated}</Product_Image_Characteristics></n1:General_Info></n1:Level-{level}_User_Product>\n"
    )


def write_level_2a(
    folder: Path,
    name: str,
    scene: int,
    stated: int | None,
    added: int,
    gsd: Mapping[str, int] = NEW_GSD_M,
    suffix: str = ".jp2",
) -> Truth:
    """Write a product of level 2A, with ``added`` on all counts and ``stated`` in its metadata.

    It holds some bands at two or three sizes, as real ones do, and a pixel of B04 that the offset
    would make negative.
    """
    options = LOSSLESS if suffix == ".jp2" else {}
    product = folder / f"{name}.SAFE"
    _, _, sensed, baseline, _, tile, _ = name.split("_")
    granule = product / f"GRANULE/L2A_{tile}_A032620_{sensed}"
    stem = f"{tile}_{sensed}"
    finest = {code: [size] for code, size in gsd.items() if code in LEVEL_2A}
    coarser = {"B01": [60], "B02": [20, 60], "B04": [20, 60], "B8A": [], "B09": []}
    for code, sizes in finest.items():
        for size in {*sizes, *coarser.get(code, ())}:
            band = stored(code, scene, size, added)
            if code == "B04" and size == 10:
                band[9, 9] = max(1, added - 10)
            write_raster(granule / f"IMG_DATA/R{size}m/{stem}_{code}_{size}m{suffix}", band, size, **options)
    classes = scene_classes(scene)
    write_raster(granule / f"IMG_DATA/R20m/{stem}_SCL_20m{suffix}", classes, 20, **options)
    write_raster(granule / f"IMG_DATA/R60m/{stem}_SCL_60m{suffix}", np.full((8, 8), 4, np.uint8), 60, **options)
    for what in ("AOT", "WVP"):
        write_raster(granule / f"IMG_DATA/R10m/{stem}_{what}_10m{suffix}", stored("B02", scene), 10, **options)
    write_raster(granule / f"IMG_DATA/R10m/{stem}_TCI_10m{suffix}", np.full((3, SIZE, SIZE), 90, np.uint8), **options)
    write_raster(granule / f"QI_DATA/{stem}_PVI{suffix}", np.full((3, 16, 16), 90, np.uint8), 320, **options)
    for what in ("MSK_CLDPRB_20m", "MSK_SNWPRB_20m", "MSK_DETFOO_B02"):
        write_raster(granule / f"QI_DATA/{what}{suffix}", GREY, 20, **options)
    digits = baseline.removeprefix("N")
    text = metadata("2A", f"{digits[:2]}.{digits[2:]}", stated)
    (product / "MTD_MSIL2A.xml").write_text(text)
    (granule / "MTD_TL.xml").write_text("<n1:Level-2A_Tile_ID xmlns:n1='x'/>")
    (product / "manifest.safe").write_text("<xfdu:XFDU xmlns:xfdu='urn:ccsds:schema:xfdu:1'/>")
    values = seen(LEVEL_2A, scene, gsd)
    values[LEVEL_2A.index("B04"), 9, 9] = 0 if added else 1
    return Truth(values, clear_pixels(scene))


def _new_baselines(folder: Path, suffix: str = ".jp2") -> list[ExpectedSource]:
    names = (
        "S2B_MSIL2A_20230605T101559_N0509_R065_T32TQM_20230605T134210",
        "S2A_MSIL2A_20220302T102021_N0400_R065_T32TQM_20220302T140000",
    )
    truth = {name: write_level_2a(folder, name, scene, -1000, 1000, suffix=suffix) for scene, name in enumerate(names)}
    return [ExpectedSource("sentinel2-l2a", names_of(LEVEL_2A), truth, gsd_m=10, scale=1e-4, left_out=LEFT_OUT)]


def _old_baseline(folder: Path) -> list[ExpectedSource]:
    name = "S2A_MSIL2A_20200604T103031_N0214_R108_T32TQM_20200604T142601"
    truth = {name: write_level_2a(folder, name, 0, None, 0, GSD_M)}
    left_out = tuple(pattern for pattern in LEFT_OUT if "B01" not in pattern)
    return [ExpectedSource("sentinel2-l2a", names_of(LEVEL_2A), truth, gsd_m=10, left_out=left_out)]


def _toolbox(folder: Path) -> list[ExpectedSource]:
    """Both were made by a user with Sen2Cor, so that the name says N9999 whatever was done: only
    the metadata tell."""
    with_offset = "S2B_MSIL2A_20230605T101559_N9999_R065_T32TQM_20230606T080000"
    without = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_20200901T080000"
    truth = {
        with_offset: write_level_2a(folder, with_offset, 0, -1000, 1000),
        without: write_level_2a(folder, without, 1, None, 0),
    }
    return [ExpectedSource("sentinel2-l2a", names_of(LEVEL_2A), truth, gsd_m=10, left_out=LEFT_OUT)]


def _zipped(folder: Path) -> list[ExpectedSource]:
    """As downloads come: Copernicus Data Space names them ``.SAFE.zip``, its predecessor
    ``.zip``."""
    expected = _new_baselines(folder)
    for product, end in zip(sorted(folder.glob("*.SAFE")), (".SAFE.zip", ".zip"), strict=True):
        shutil.make_archive(str(folder / "packed"), "zip", folder, product.name)
        (folder / "packed.zip").rename(folder / f"{product.stem}{end}")
        shutil.rmtree(product)
    return expected


def _converted(folder: Path) -> list[ExpectedSource]:
    """As Microsoft's Planetary Computer holds them: folders by tile and day, and GeoTIFF within the
    SAFE."""
    return _new_baselines(folder / "32/T/QM/2023/06/05", ".tif")


def _level_1c(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, (name, stated, added) in enumerate(
        (
            ("S2A_MSIL1C_20220706T103041_N0400_R108_T32TQM_20220706T124321", -1000, 1000),
            ("S2B_MSIL1C_20180601T102019_N0206_R065_T32TQM_20180601T123005", None, 0),
        )
    ):
        product = folder / f"{name}.SAFE"
        _, _, sensed, baseline, _, tile, _ = name.split("_")
        granule = product / f"GRANULE/L1C_{tile}_A036768_{sensed}"
        for code, size in GSD_M.items():
            path = granule / f"IMG_DATA/{tile}_{sensed}_{code}.jp2"
            write_raster(path, stored(code, scene, size, added), size, **LOSSLESS)
        write_raster(granule / f"IMG_DATA/{tile}_{sensed}_TCI.jp2", np.full((3, SIZE, SIZE), 90, np.uint8), **LOSSLESS)
        write_raster(granule / "QI_DATA/MSK_CLASSI_B00.jp2", np.zeros((3, 8, 8), np.uint8), 60, **LOSSLESS)
        digits = baseline.removeprefix("N")
        (product / "MTD_MSIL1C.xml").write_text(metadata("1C", f"{digits[:2]}.{digits[2:]}", stated))
        valid: Array = np.ones((SIZE, SIZE), dtype=bool)
        truth[name] = Truth(seen(tuple(GSD_M), scene), valid)
    left_out = ("*_TCI.*", "MSK_*")
    return [ExpectedSource("sentinel2-l1c", names_of(tuple(GSD_M)), truth, gsd_m=10, scale=1e-4, left_out=left_out)]


LAYOUTS = (
    Layout("safe-l2a-offset", f"{PSD}, User_Product_Level-2A: names, IMG_DATA, BOA_ADD_OFFSET", _new_baselines),
    Layout("safe-l2a-before-offset", f"{PSD} (baselines before 04.00 state no offset)", _old_baseline),
    Layout(
        "safe-l2a-toolbox",
        "Sen2Cor 2.11 Configuration and User Manual, S2-PDGS-MPC-L2A-SUM: products of a user carry N9999",
        _toolbox,
    ),
    Layout(
        "safe-l2a-zip", f"{PSD}; https://documentation.dataspace.copernicus.eu/APIs/OData.html (.SAFE.zip)", _zipped
    ),
    Layout(
        "safe-l2a-geotiff",
        "https://github.com/microsoft/AIforEarthDataSets, storage-docs/sentinel-2-storage.md",
        _converted,
    ),
    Layout("safe-l1c", f"{PSD}, User_Product_Level-1C: names, IMG_DATA, RADIO_ADD_OFFSET", _level_1c),
)
