"""Radar: Sentinel-1 as ESA, ASF, NASA and Microsoft distribute it, and JAXA's mosaics of ALOS-2.

What the numbers are differs by product: amplitudes, powers or decibels. A source has to hold
polarisations alone, in decibels, whichever files of elevation, angle, area and quality lie beside
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from zoo.framework import Array, Bools, ExpectedSource, Layout, Truth, everywhere, levels, plane, write_raster

SIZE = 48
DUAL = ("VV", "VH")
COLLAR = 17
"""Columns without a measurement at the left: whole chips of 16 pixels, and a column of the next."""


def decibels(values: Array, factor: float, offset: float = 0.0) -> Array:
    """Return ``factor`` times the logarithm of stored values, plus ``offset``."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return factor * np.log10(values.astype(np.float64)) + offset


def right_of_collar() -> Bools:
    """Return where (H, W) there are measurements."""
    valid = everywhere(SIZE)
    valid[:, :COLLAR] = False
    return valid


def planes(scene: int, unit: float = 1.0, fill: float | None = None, dtype: str = "float32") -> Array:
    """Return VV and VH (2, H, W), with ``fill`` in the collar."""
    values = np.stack([plane(level, SIZE) for level in levels(2, scene, first=100.0)]) * unit
    if fill is not None:
        values[:, ~right_of_collar()] = fill
    return values.astype(dtype)


def write_sides(folder: Path, names: Mapping[str, str], gsd: float = 30.0) -> None:
    """Write side files by name and type, whose pixels no source may have."""
    for name, dtype in names.items():
        picture = any(word in name for word in ("rgb", "BROWSE", "quick-look"))
        values = np.full((3 if picture else 1, SIZE, SIZE), 1, dtype)
        values[:, 8:, 8:] = 2
        is_png = name.endswith(".png")
        write_raster(folder / name, values, gsd=0 if is_png else gsd, driver="PNG" if is_png else "GTiff")


GRD = (
    "S1A_IW_GRDH_1SDV_20230101T053412_20230101T053437_046592_059563_1F4B",
    "S1A_IW_GRDH_1SDV_20230113T053412_20230113T053437_046767_059B3C_8F71",
)


def _grd(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, name in enumerate(GRD):
        values = planes(scene, fill=0, dtype="uint16")
        parts = name.lower().split("_")
        corners = [(0, 0), (0, SIZE - 1), (SIZE - 1, 0), (SIZE - 1, SIZE - 1)]
        points = [GroundControlPoint(row, col, 10 + 1e-4 * col, 46 - 1e-4 * row) for row, col in corners]
        for number, (band, one) in enumerate(zip(DUAL, values, strict=True), start=1):
            file = f"s1a-iw-grd-{band.lower()}-{'-'.join(parts[4:8])}-00{number}.tiff"
            place = folder / f"{name}.SAFE" / "measurement" / file
            write_raster(place, one, gsd=0, gcps=points, crs=CRS.from_epsg(4326))
        write_sides(folder / f"{name}.SAFE" / "preview", {"quick-look.png": "uint8"})
        truth[name] = Truth(decibels(values, 20), right_of_collar())
    return [ExpectedSource("sentinel1-grd", DUAL, truth, gsd_m=10, left_out=("quick-look.png",))]


HYP3_SIDES = {
    "_dem.tif": "int16",
    "_inc_map.tif": "float32",
    "_ls_map.tif": "uint8",
    "_area.tif": "float32",
    "_rgb.tif": "uint8",
    ".png": "uint8",
    "_rgb.png": "uint8",
}
HYP3_LEFT_OUT = ("*_dem.tif", "*_inc_map.tif", "*_ls_map.tif", "*_area.tif", "*_rgb.tif", "*.png")


def _hyp3_rtc(letter: str, factor: float) -> Layout:
    """Return a layout of products whose ``letter`` says power, amplitude or decibel."""

    def make(folder: Path) -> list[ExpectedSource]:
        truth = {}
        for scene, (day, code) in enumerate(((4, "FD6A"), (8, "0B1C"))):
            name = f"S1A_IW_2018012{day}T161201_DVP_RTC30_G_g{letter}uned_{code}"
            stored = planes(scene, unit=1e-3, fill=0)
            if not factor:
                stored = np.where(right_of_collar(), decibels(stored, 10) - 1, 0).astype(np.float32)
            for band, one in zip(DUAL, stored, strict=True):
                write_raster(folder / name / f"{name}_{band}.tif", one, gsd=30, nodata=0)
            write_sides(folder / name, {name + end: dtype for end, dtype in HYP3_SIDES.items()})
            (folder / name / f"{name}.README.md.txt").write_text("The side files of this product explain themselves.")
            truth[name] = Truth(decibels(stored, factor) if factor else stored, right_of_collar())
        return [ExpectedSource("custom", DUAL, truth, gsd_m=30, left_out=HYP3_LEFT_OUT)]

    kind = {"p": "power", "a": "amplitude", "d": "decibel"}[letter]
    return Layout(
        f"HyP3 RTC, {kind}",
        "ASF HyP3, RTC product guide, naming convention and image files "
        "(https://hyp3-docs.asf.alaska.edu/guides/rtc_product_guide/): letter e of the name is the scale",
        make,
    )


OPERA = (
    "OPERA_L2_RTC-S1_T115-245714-IW1_20250418T141628Z_20250419T010229Z_S1A_30_v1.0",
    "OPERA_L2_RTC-S1_T115-245714-IW1_20250430T141628Z_20250501T010229Z_S1A_30_v1.0",
)


def _opera(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, name in enumerate(OPERA):
        stored = planes(scene, unit=1e-3, fill=np.nan)
        for band, one in zip(DUAL, stored, strict=True):
            write_raster(folder / f"{name}_{band}.tif", one, gsd=30, nodata=float("nan"))
        write_raster(folder / f"{name}_mask.tif", _opera_mask(), gsd=30, nodata=255)
        write_sides(folder, {f"{name}_BROWSE.png": "uint8"})
        truth[name] = Truth(decibels(stored, 10), right_of_collar())
    static = "OPERA_L2_RTC-S1-STATIC_T115-245714-IW1_20140403_S1A_30_v1.0"
    names = ("local_incidence_angle", "incidence_angle", "number_of_looks", "rtc_anf_gamma0_to_beta0")
    sides = {f"{static}_{label}.tif": "float32" for label in names}
    write_sides(folder, sides | {f"{static}_mask.tif": "uint8"})
    left_out = ("*_mask.tif", "*_BROWSE.png", "*RTC-S1-STATIC*")
    return [ExpectedSource("custom", DUAL, truth, gsd_m=30, left_out=left_out)]


def _opera_mask() -> Array:
    """Return what the product says of layover and shadow: 255 where there is no measurement."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:, :COLLAR] = 255
    mask[40:, 40:] = 3  # layover and shadow: measurements all the same
    return mask


def _planetary_computer(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, name in enumerate(GRD):
        day = name[17:25]
        stored = planes(scene, unit=1e-3, fill=-32768)
        place = folder / "GRD" / day[:4] / str(int(day[4:6])) / str(int(day[6:])) / "IW" / "DV" / name / "measurement"
        for band, one in zip(DUAL, stored, strict=True):
            write_raster(place / f"iw-{band.lower()}.rtc.tiff", one, nodata=-32768)
        truth[name] = Truth(decibels(np.where(stored < 0, 1, stored), 10), right_of_collar())
    return [ExpectedSource("custom", DUAL, truth, gsd_m=10)]


PALSAR_DB = -83.0
"""From 20 log10 of the counts to gamma nought."""


def _palsar(folder: Path) -> list[ExpectedSource]:
    truth, bands = {}, ("HH", "HV")
    for scene, tile in enumerate(("N22E089", "N22E090")):
        stored = planes(scene, fill=0, dtype="uint16")
        place, base = folder / f"{tile}_20_MOS_F02DAR", f"{tile}_20_"
        corner = (89.0 + scene, 22.0)
        for band, one in zip(bands, stored, strict=True):
            write_raster(
                place / f"{base}sl_{band}_F02DAR.tif", one, gsd=1 / 4500, corner=corner, crs="EPSG:4326", nodata=0
            )
        sides = {"date": "uint16", "linci": "uint8", "mask": "uint8"}
        write_sides(place, {f"{base}{label}_F02DAR.tif": dtype for label, dtype in sides.items()}, 1 / 4500)
        truth[tile] = Truth(decibels(stored, 20, PALSAR_DB), right_of_collar())
    left_out = ("*_date_*", "*_linci_*", "*_mask_*")
    return [ExpectedSource("custom", bands, truth, gsd_m=23.8, left_out=left_out)]


LAYOUTS: Sequence[Layout] = (
    Layout(
        "Sentinel-1 GRD, SAFE",
        "ESA, Sentinel-1 product specification S1-RS-MDA-52-7441; "
        "measurement GeoTIFFs of unsigned 16 bits with ground control points and no geotransform",
        _grd,
    ),
    _hyp3_rtc("p", 10),
    _hyp3_rtc("a", 20),
    _hyp3_rtc("d", 0),
    Layout(
        "OPERA RTC-S1",
        "NASA JPL OPERA, RTC-S1 product guide (https://hyp3-docs.asf.alaska.edu/guides/opera_rtc_product_guide/); "
        "gamma nought powers, NaN outside; classes of the mask and names of the static layers",
        _opera,
    ),
    Layout(
        "Sentinel-1 RTC of the Planetary Computer",
        "https://planetarycomputer.microsoft.com/dataset/sentinel-1-rtc; "
        "GRD/year/month/day/IW/DV/product/measurement/iw-vv.rtc.tiff, gamma nought powers, nodata -32768",
        _planetary_computer,
    ),
    Layout(
        "ALOS-2 PALSAR-2 mosaic",
        "JAXA, Global 25 m resolution PALSAR-2 mosaic, dataset description "
        "(https://www.eorc.jaxa.jp/ALOS/en/dataset/fnf_e.htm); "
        "gamma nought = 10 log10(DN squared) - 83 dB; 0 is no data; files date, linci and mask beside",
        _palsar,
    ),
)
