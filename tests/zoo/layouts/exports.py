"""What people export from Earth Engine, Worldview and their own programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from netcdf_files import write_netcdf
from zoo.framework import Array, Bools, ExpectedSource, Layout, Truth, byte_planes, everywhere, levels, plane
from zoo.framework import write_raster as write

SIZE = 32
FOUR = ("red", "green", "blue", "nir")
EARTH_ENGINE = "https://developers.google.com/earth-engine/guides/exporting_images"


def seen() -> Bools:
    """Return where (H, W) an export is not masked."""
    valid = everywhere(SIZE)
    valid[:3, :5] = False
    return valid


def spectra(bands: int, scene: int, first: float = 1200.0) -> Array:
    """Return planes (C, H, W)."""
    return np.stack([plane(level, SIZE) for level in levels(bands, scene, first)])


def tiles(folder: Path, name: str, values: Sequence[Array], gsd: float, **options: Any) -> dict[str, Truth]:
    """Write the parts of an export that is too large for one file, named by their first row and
    column."""
    truth = {}
    for i, one in enumerate(values):
        file = f"{name}-0000000000-{10496 * i:010}"
        write(folder / f"{file}.tif", one, gsd=gsd, corner=(500_000.0 + i * gsd * SIZE, 5_000_000.0), **options)
        truth[file] = Truth(one.astype(np.float32).astype(float), seen())
    return truth


def _double(folder: Path) -> list[ExpectedSource]:
    parts = [np.where(seen(), spectra(4, scene) + 0.5, np.nan) for scene in range(2)]
    truth = tiles(folder, "S2_jambi_2024_20m_AllBands", parts, 20, descriptions=("B4", "B3", "B2", "B8"))
    return [ExpectedSource("sentinel2-l2a", FOUR, truth, gsd_m=20, scale=1e-4)]


def _integers(folder: Path) -> list[ExpectedSource]:
    truth, names = {}, ("20200815T160901_20200815T161653_T17SLU", "20200820T160829_20200820T161419_T17SLU")
    for scene, name in enumerate(names):
        values = np.where(seen(), spectra(3, scene), 0).astype(np.int32)
        write(folder / f"{name}.tif", values, descriptions=("B4", "B3", "B2"))
        truth[name] = Truth(values.astype(float), seen())
    return [ExpectedSource("sentinel2-l2a", FOUR[:3], truth, gsd_m=10, scale=1e-4)]


def _reflectance(folder: Path) -> list[ExpectedSource]:
    parts = [np.where(seen(), spectra(4, scene) / 10_000, np.nan).astype(np.float32) for scene in range(2)]
    options = {"descriptions": ("B4", "B3", "B2", "B8"), "nodata": float("nan")}
    truth = tiles(folder, "sentinel2_summer", parts, 10, **options)
    return [ExpectedSource("sentinel2-l2a", FOUR, truth, gsd_m=10, scale=1, offset=0)]


def _landsat(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, name in enumerate(("LC08_044034_20140318", "LC08_044034_20140403")):
        values = np.where(seen(), spectra(6, scene, first=8000), 0).astype(np.uint16)
        write(folder / f"{name}.tif", values, gsd=30, descriptions=[f"SR_B{i}" for i in range(2, 8)])
        truth[name] = Truth(values.astype(float), seen())
    bands = ("blue", "green", "red", "nir", "swir_1", "swir_2")
    return [ExpectedSource("landsat8-l2", bands, truth, gsd_m=30, scale=2.75e-5, offset=-0.2)]


def _radar(folder: Path) -> list[ExpectedSource]:
    truth, names = {}, ("S1A_IW_GRDH_1SDV_20200103T003035_20200103T003100_030637_0382D6_5F0D", "S1_VVVH_2017_May_avg")
    for scene, name in enumerate(names):
        values = np.stack([-(plane(100 + 300 * band + 37 * scene, SIZE) + 1) / 50 for band in range(2)])
        stored = np.where(seen(), values, np.nan).astype(np.float32)
        write(folder / f"{name}.tif", stored, descriptions=("VV", "VH"))
        truth[name] = Truth(stored.astype(float), seen())
    return [ExpectedSource("sentinel1-grd-db", ("VV", "VH"), truth, gsd_m=10)]


def _cubes(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, day in enumerate(("2021-06-05", "2021-06-10")):
        values, name = np.where(seen(), spectra(4, scene), -32768).astype(np.int16), f"S2_L2A_T32TQM_{day}"
        bands = dict(zip(("B02", "B03", "B04", "B08"), values, strict=True))
        write_netcdf(folder / f"{name}.nc", bands, fill=-32768, packed=(1e-4, 0.0), times=1)
        truth[name] = Truth(values.astype(float), seen())
    return [ExpectedSource("sentinel2-l2a", ("blue", "green", "red", "nir"), truth, gsd_m=10, scale=1e-4)]


def _worldview(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, day in enumerate(("2021-06-29", "2021-11-06")):
        values, name = byte_planes(3, SIZE, scene), f"snapshot-{day}T00_00_00Z"
        write(
            folder / f"{name}.tiff",
            values,
            gsd=0.25 / 111.19493,
            corner=(10.0, 0.01),
            crs="EPSG:4326",
            photometric="RGB",
        )
        truth[name] = Truth(values.astype(float), everywhere(SIZE))
    return [ExpectedSource("rgb", FOUR[:3], truth, gsd_m=250)]


def _true_colour(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, name in enumerate(("T32TQM_20230605T101559_TCI_10m", "T32TQM_20230615T101559_TCI_10m")):
        values = byte_planes(3, SIZE, scene)
        write(folder / f"{name}.jp2", values, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
        truth[name] = Truth(values.astype(float), everywhere(SIZE))
    return [ExpectedSource("rgb", FOUR[:3], truth, gsd_m=10)]


def _planet_visual(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, name in enumerate(("20230912_175450_00_2439", "20230913_181233_51_24b6")):
        values = byte_planes(4, SIZE, scene)
        values[3] = 255 * seen()
        write(folder / "PSScene" / f"{name}_3B_Visual_clip.tif", values, gsd=3, photometric="RGB", ALPHA="YES")
        truth[name] = Truth(values[:3].astype(float), seen())
    return [ExpectedSource("rgb", FOUR[:3], truth, gsd_m=3)]


LAYOUTS: Sequence[Layout] = (
    Layout(
        "Sentinel-2 in true colour alone",
        "ESA, Sentinel-2 Products Specification Document, TCI: an 8-bit picture of B04, B03 and B02",
        _true_colour,
    ),
    Layout(
        "PlanetScope in true colour alone",
        "Planet, PSScene, asset ortho_visual (https://docs.planet.com/data/imagery/planetscope/psscene/): red, green, "
        "blue, alpha",
        _planet_visual,
    ),
    Layout(
        "Earth Engine, double, in tiles",
        f"{EARTH_ENGINE}, large file exports: name-row-column.tif; bands of a median are Float64, masked pixels NaN",
        _double,
    ),
    Layout(
        "Earth Engine, Int32, one file an image",
        f"{EARTH_ENGINE} and geemap.ee_export_image_collection: files are named by system:index of "
        "COPERNICUS/S2_SR_HARMONIZED; mixed integer types become Int32, masked pixels 0 without a nodata value",
        _integers,
    ),
    Layout(
        "Earth Engine, Sentinel-2 divided by 10,000",
        f"{EARTH_ENGINE}; the collection's own example maps image.divide(10000) "
        "(https://developers.google.com/earth-engine/datasets/catalog/COPERNICUS_S2_SR_HARMONIZED)",
        _reflectance,
    ),
    Layout(
        "Earth Engine, Landsat 8 surface reflectance",
        "https://developers.google.com/earth-engine/datasets/catalog/LANDSAT_LC08_C02_T1_L2: bands SR_B2 to SR_B7, "
        "scale 0.0000275, offset -0.2; named by system:index",
        _landsat,
    ),
    Layout(
        "Cubes of xarray, one netCDF file a date",
        "CF conventions 1.8, 5.6 and 8.1, as xarray.Dataset.to_netcdf writes them with a rioxarray reference "
        "(https://corteva.github.io/rioxarray/stable/getting_started/crs_management.html): one variable a band",
        _cubes,
    ),
    Layout(
        "Earth Engine, Sentinel-1",
        "https://developers.google.com/earth-engine/datasets/catalog/COPERNICUS_S1_GRD: bands VV and VH in decibels",
        _radar,
    ),
    Layout(
        "Worldview snapshots",
        "NASA GIBS, Worldview snapshots (https://wvs.earthdata.nasa.gov): snapshot-date.tiff, pictures in EPSG:4326",
        _worldview,
    ),
)
