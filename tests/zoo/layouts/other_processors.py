"""Landsat, Sentinel-2 and MODIS by processors other than those of the ground segments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from zoo.framework import Array, ExpectedSource, Layout, Truth, everywhere, levels, plane, stored_plane, write_raster
from zoo.layouts.sentinel2 import GSD_M, NAMES, SIZE, names_of, stored

LAND = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
"""Without the bands of 60 m, which serve the correction alone."""
ANGLES = ("SAA", "SZA", "VAA", "VZA")


def _holes(clear: int, cloud: int, fill: int, dtype: type, size: int = SIZE) -> Array:
    """Return flags (H, W): a small cloud, a larger one that spoils a chip, and fill along the
    edge."""
    flags = np.full((size, size), clear, dtype)
    flags[3:6, 18:22] = cloud
    flags[20:30, 20:30] = cloud
    flags[:, 0] = fill
    return flags


def _maja(folder: Path) -> list[ExpectedSource]:
    """MAJA as Theia distributes it: with and without correction of slopes, masks at 10 and at
    20 m."""
    truth = {}
    for scene, name in enumerate(
        ("SENTINEL2A_20160928-105637-665_L2A_T31UDS_C_V1-0", "SENTINEL2B_20180619-103559-594_L2A_T31UDS_D_V1-8")
    ):
        place = folder / name
        flags = _holes(0, 0b11, 0, np.uint8)
        flags[8:10, 34:36] = 0b101  # shadow of a cloud
        outside = np.zeros((SIZE, SIZE), dtype=bool)
        outside[:, :2] = True
        for code in LAND:
            size = GSD_M[code]
            short = code.replace("B0", "B")
            band = stored(code, scene).astype(np.int16)
            band[:, : 20 // size] = -10000
            write_raster(place / f"{name}_FRE_{short}.tif", band, size, nodata=-10000)
            if code in ("B02", "B05"):
                write_raster(place / f"{name}_SRE_{short}.tif", band, size, nodata=-10000)
        for end, factor in (("R1", 1), ("R2", 2)):
            coarse = flags[::factor, ::factor]
            write_raster(place / f"MASKS/{name}_CLM_{end}.tif", coarse, 10 * factor)
            for what in ("EDG", "MG2", "SAT", "IAB"):
                write_raster(place / f"MASKS/{name}_{what}_{end}.tif", np.zeros_like(coarse), 10 * factor)
            write_raster(place / f"{name}_ATB_{end}.tif", np.full((2, *coarse.shape), 9, np.uint8), 10 * factor)
        write_raster(place / f"{name}_QKL_ALL.jpg", np.full((3, 32, 32), 90, np.uint8), 0, driver="JPEG")
        values = np.stack(
            [
                plane(levels(13, scene)[list(GSD_M).index(code)], SIZE, GSD_M[code] // 10, 2 * (GSD_M[code] > 10))
                for code in LAND
            ]
        )
        truth[name] = Truth(values, (flags == 0) & ~outside)
    left_out = ("*_SRE_*", "*_ATB_*", "*_EDG_*", "*_MG2_*", "*_SAT_*", "*_IAB_*", "*_CLM_R2.tif", "*_QKL_*")
    return [ExpectedSource("sentinel2-l2a", names_of(LAND), truth, gsd_m=10, scale=1e-4, left_out=left_out)]


def _force(folder: Path) -> list[ExpectedSource]:
    """A data cube of FORCE: folders of tiles, in which files of the same day have the same name, of
    Sentinel-2 and of Landsat."""
    expected = []
    for sensor, card, bands, short in (
        ("SEN2A", "sentinel2-l2a", names_of(LAND), 10),
        ("LND08", "landsat8-l2", ("blue", "green", "red", "nir", "swir_1", "swir_2"), 6),
    ):
        truth = {}
        for scene, tile in enumerate(("X0069_Y0043", "X0070_Y0043")):
            start = f"20230605_LEVEL2_{sensor}"
            flags = _holes(0, 0b100, 1, np.int16)
            flags[8, 40] = 0b1000  # cloud shadow
            flags[40:44, 40:44] |= 1 << 5  # water, which stays
            shown = np.stack([plane(level, SIZE) for level in levels(short, scene + 2 * (short == 6))])
            place = folder / "level2" / tile
            corner = (4_500_000.0 + 30_000 * scene, 3_000_000.0)
            options = {"corner": corner, "crs": "EPSG:3035"}
            write_raster(
                place / f"{start}_BOA.tif", np.where(flags == 1, -9999, shown).astype(np.int16), nodata=-9999, **options
            )
            write_raster(place / f"{start}_QAI.tif", flags, nodata=1, **options)
            truth[f"{tile}/{start}"] = Truth(shown, np.isin(flags, (0, 1 << 5)))
        scale, offset = 1e-4, 0.0
        expected.append(ExpectedSource(card, bands, truth, gsd_m=10, scale=scale, offset=offset))
    return expected


def _hls(folder: Path) -> list[ExpectedSource]:
    """NASA's harmonized reflectance of both sensors side by side, with fill in single bands too."""
    expected = []
    for product, card, names in (
        ("HLS.S30.T32TQM.2023151T101559.v2.0", "hls-s30", NAMES),
        (
            "HLS.L30.T32TQM.2023156T100456.v2.0",
            "hls-l30",
            dict(zip(("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B09"), _OLI, strict=True)),
        ),
    ):
        shown = np.stack([plane(level, SIZE) for level in levels(len(names), len(expected), 1000)])
        flags = _holes(64, 64 | 2, 255, np.uint8)
        flags[8, 40:42] = 64 | 4  # beside a cloud
        flags[9, 40:42] = 64 | 8  # shadow
        flags[40:44, 40:44] = 32  # water
        for code, band in zip(names, shown, strict=True):
            kept = np.where(flags == 255, -9999, band).astype(np.int16)
            kept[44, 44] = -9999 if code == "B04" else kept[44, 44]
            write_raster(folder / product / f"{product}.{code}.tif", kept, 30, nodata=-9999, scales=(1e-4,))
        if "L30" in product:
            for code in ("B10", "B11"):
                write_raster(folder / product / f"{product}.{code}.tif", shown[0].astype(np.int16), 30, nodata=-9999)
        write_raster(folder / product / f"{product}.Fmask.tif", flags, 30, nodata=255)
        for angle in ANGLES:
            write_raster(folder / product / f"{product}.{angle}.tif", shown[0].astype(np.uint16), 30, nodata=40000)
        valid = np.isin(flags, (64, 32))
        valid[44, 44] = False
        left_out = ("*.SAA.tif", "*.SZA.tif", "*.VAA.tif", "*.VZA.tif", "*.L30.*.B1[01].tif")
        truth = {product: Truth(shown, valid)}
        expected.append(
            ExpectedSource(card, tuple(names.values()), truth, gsd_m=30, scale=1e-4, offset=0, left_out=left_out)
        )
    return expected


_OLI = ("coastal", "blue", "green", "red", "nir", "swir_1", "swir_2", "cirrus")


def _modis(folder: Path) -> list[ExpectedSource]:
    """The daily grid of MOD09 as the exports of the archives name its layers: GeoTIFF of one layer
    each, with the layers of quality beside them.

    The archive's own exports state the scale 0.0001; GDAL copies that of the HDF file, 10,000, by
    which to divide (https://github.com/rspatial/terra/issues/1354).
    """
    truth = {}
    for scene, day in enumerate(("A2016189.h09v05.006.2016191073856", "A2016205.h09v05.006.2016207071416")):
        shown = np.stack([plane(level, SIZE) for level in levels(7, scene, 500)])
        start = folder / f"MOD09GA.{day}"
        options = {"crs": "ESRI:54008", "corner": (-9_000_000.0, 4_400_000.0)}
        for i, band in enumerate(shown, start=1):
            kept = band.astype(np.int16)
            kept[:, 0] = -28672
            scales = (1e4,) if scene else (1e-4,)
            path = Path(f"{start}_sur_refl_b0{i}_1.tif")
            write_raster(path, kept, 463.3127, nodata=-28672, scales=scales, **options)
        write_raster(Path(f"{start}_QC_500m_1.tif"), np.full((SIZE, SIZE), 1 << 30, np.uint32), 463.3127, **options)
        write_raster(Path(f"{start}_state_1km_1.tif"), np.full((SIZE // 2,) * 2, 8, np.uint16), 926.6254, **options)
        valid = everywhere(SIZE)
        valid[:, 0] = False
        truth[day] = Truth(shown, valid)
    names = ("red", "nir", "blue", "green", "nir_1240", "swir_1", "swir_2")
    left_out = ("*_QC_500m_1.tif", "*_state_1km_1.tif")
    return [ExpectedSource("modis-sr", names, truth, gsd_m=463, scale=1e-4, offset=0, left_out=left_out)]


def _enmap(folder: Path) -> list[ExpectedSource]:
    """A cube of 224 bands: more than a card may have."""
    name = "ENMAP01-____L2A-DT0000001053_20220611T072305Z_002_V010400_20231221T134421Z"
    cube = np.repeat(stored_plane(500, 32)[None], 224, axis=0).astype(np.int16)
    write_raster(folder / name / f"{name}-SPECTRAL_IMAGE.TIF", cube, 30, nodata=-32768)
    for what in ("CLOUD", "CLOUDSHADOW", "HAZE", "CIRRUS", "SNOW", "CLASSES"):
        write_raster(folder / name / f"{name}-QL_QUALITY_{what}.TIF", np.zeros((32, 32), np.uint8), 30)
    return []


LAYOUTS = (
    Layout(
        "theia-maja",
        "https://www.cesbio.cnrs.fr/maja/sentinel-2-output-format (files, FRE and SRE, NODATA -10000, bits of CLM)",
        _maja,
    ),
    Layout(
        "force-ard",
        "https://force-eo.readthedocs.io/en/latest/components/lower-level/level2/format.html (names, bands, bits of "
        "QAI, nodata -9999)",
        _force,
    ),
    Layout(
        "hls",
        "HLS Product User Guide, product version 2.0, LP DAAC (file naming, section 6: bands, fill, Fmask)",
        _hls,
    ),
    Layout(
        "modis-mod09ga",
        "https://ladsweb.modaps.eosdis.nasa.gov/filespec/MODIS/61/MOD09GA_c61 (layers, fill -28672); names as exported "
        "in https://www.earthdatascience.org/courses/use-data-open-source-python/multispectral-remote-sensing/modis-data-in-python",
        _modis,
    ),
    Layout(
        "enmap-l2a",
        "EnMAP HSI Product Specification, EN-PCV-ICD-2009-2 (file names, 224 bands, no-data -32768)",
        _enmap,
        refused=r"more than 64 bands.*gdal_translate -b",
    ),
)
