"""The sensor cards and mask rules that ship with FedSense, as data (a Flower bundle carries only
Python files of ours).

Central wavelengths are the operators' published ones, in micrometres. ``scale`` and ``offset`` give
reflectance where the product defines it; 8-bit renderings and raw counts keep 1 and 0. Where a
product changed (Landsat surface reflectance before Collection 2 is in units of 0.0001), a site file
may override them. Sentinel-2's change of counts is in `sentinel2`.
"""

from __future__ import annotations

from typing import Any


def _band(code: str, name: str, wavelength_um: float) -> dict[str, Any]:
    return {"code": code, "name": name, "wavelength_um": wavelength_um}


# Sentinel-2A, spectral response functions of 2022; B and C differ by less than 2 nm in the visible.
_S2 = [
    _band("B01", "coastal", 0.4427),
    _band("B02", "blue", 0.4927),
    _band("B03", "green", 0.5598),
    _band("B04", "red", 0.6646),
    _band("B05", "red_edge_1", 0.7041),
    _band("B06", "red_edge_2", 0.7405),
    _band("B07", "red_edge_3", 0.7828),
    _band("B08", "nir", 0.8328),
    _band("B8A", "nir_narrow", 0.8647),
    _band("B09", "water_vapour", 0.9451),
    _band("B10", "cirrus", 1.3735),
    _band("B11", "swir_1", 1.6137),
    _band("B12", "swir_2", 2.2024),
]
# Middle of each band of Landsat 8 and 9 OLI. No Landsat card has the panchromatic and thermal
# bands: they have other pixel sizes, and heat is no reflectance.
_OLI = [
    _band("B1", "coastal", 0.443),
    _band("B2", "blue", 0.482),
    _band("B3", "green", 0.5615),
    _band("B4", "red", 0.6545),
    _band("B5", "nir", 0.865),
    _band("B6", "swir_1", 1.6085),
    _band("B7", "swir_2", 2.2005),
]
_ETM = [
    _band("B1", "blue", 0.485),
    _band("B2", "green", 0.56),
    _band("B3", "red", 0.66),
    _band("B4", "nir", 0.835),
    _band("B5", "swir_1", 1.65),
    _band("B7", "swir_2", 2.22),
]
_TM = [*_ETM[:3], _band("B4", "nir", 0.83), _band("B5", "swir_1", 1.65), _band("B7", "swir_2", 2.215)]
_MODIS = [_band("B1", "red", 0.645), _band("B4", "green", 0.555), _band("B3", "blue", 0.469)]
# Middle of the seven bands for land (MODIS Surface Reflectance User's Guide, table 1).
_MODIS_LAND = [
    _band("B01", "red", 0.645),
    _band("B02", "nir", 0.8585),
    _band("B03", "blue", 0.469),
    _band("B04", "green", 0.555),
    _band("B05", "nir_1240", 1.24),
    _band("B06", "swir_1", 1.64),
    _band("B07", "swir_2", 2.13),
]
# Typical of large-format mapping cameras.
_AERIAL = [_band("R", "red", 0.65), _band("G", "green", 0.55), _band("B", "blue", 0.46), _band("N", "nir", 0.83)]

# Harmonized Landsat and Sentinel-2, version 2.0: bands of the two sensors under their own numbers
# with two digits, without the thermal ones (HLS Product User Guide, LP DAAC). NIR of L30 is narrow.
_HLS_L30 = [band | {"code": f"B0{band['code'][1]}"} for band in _OLI] + [_band("B09", "cirrus", 1.3735)]
# Middle of each band of PlanetScope's third generation (PSB.SD, SuperDove), which has replaced the
# others since 2020; 4-band files hold four of the eight, docs.planet.com/data/imagery/planetscope.
_PLANETSCOPE = [
    _band("coastal_blue", "coastal", 0.4415),
    _band("", "blue", 0.49),
    _band("", "green_i", 0.531),
    _band("", "green", 0.565),
    _band("", "yellow", 0.61),
    _band("", "red", 0.665),
    _band("rededge", "red_edge_1", 0.705),
    _band("", "nir", 0.865),
]
# Middle of each published band, which both satellites share (Maxar's data sheets of WorldView-2 and
# -3); codes as the products' .IMD files have them. The red edge lies between two of Sentinel-2.
_WORLDVIEW = [
    _band("BAND_C", "coastal", 0.425),
    _band("BAND_B", "blue", 0.48),
    _band("BAND_G", "green", 0.545),
    _band("BAND_Y", "yellow", 0.605),
    _band("BAND_R", "red", 0.66),
    _band("BAND_RE", "red_edge", 0.725),
    _band("BAND_N", "nir", 0.8325),
    _band("BAND_N2", "nir_2", 0.95),
]
# Middle of 0.45-0.52, 0.52-0.59, 0.63-0.69 and 0.77-0.89, the same for the PMS cameras of Gaofen-1
# and -2 (China Centre for Resources Satellite Data and Application).
_GAOFEN = [
    _band("B1", "blue", 0.485),
    _band("B2", "green", 0.555),
    _band("B3", "red", 0.66),
    _band("B4", "nir", 0.83),
]
# Middle of 0.59-0.71, 0.5-0.62, 0.43-0.55 and 0.74-0.94 (Pleiades), and of 0.625-0.695, 0.53-0.59,
# 0.45-0.52 and 0.76-0.89 (SPOT 6 and 7), in the order of DIMAP's files (Airbus' user guides).
_PLEIADES = [_band("", "red", 0.65), _band("", "green", 0.56), _band("", "blue", 0.49), _band("", "nir", 0.84)]
_SPOT = [_band("", "red", 0.66), _band("", "green", 0.56), _band("", "blue", 0.485), _band("", "nir", 0.825)]
# Middle of 0.44-0.51, 0.52-0.59, 0.63-0.685, 0.69-0.73 and 0.76-0.85 (Planet's product
# specification).
_RAPIDEYE = [
    _band("", "blue", 0.475),
    _band("", "green", 0.555),
    _band("", "red", 0.6575),
    _band("", "red_edge_1", 0.71),
    _band("", "nir", 0.805),
]
# Middle of the bands of Leica's ADS100 (data sheet), with which most of NAIP has been flown; other
# cameras differ by up to 30 nm.
_NAIP = [_band("R", "red", 0.635), _band("G", "green", 0.555), _band("B", "blue", 0.465), _band("N", "nir", 0.845)]

_SAR = [{"name": "VV", "polarisation": "VV"}, {"name": "VH", "polarisation": "VH"}]  # as every GRD product orders them

# What nearly all pixels show: clouds and snow in the sun reach 1.6; corrections for the air make
# dark water negative.
_REFLECTANCE = {"expected": (-0.2, 1.6)}
_BYTES = {"expected": (0.0, 255.0)}
_S2_COUNTS = {"gsd_m": 10.0, "scale": 1e-4, "nodata": 0.0, "baseline_offset": 1000.0, **_REFLECTANCE}
# Landsat numbers begin at 1 (QUANTIZE_CAL_MIN_BAND of level 1; the range of level 2 is 1 to 65455,
# USGS LSDS-1619), so 0 is no measurement in any band.
_LANDSAT = {"gsd_m": 30.0, "nodata": 0.0, "nodata_bands": "any"}
_TM_COUNTS = {**_LANDSAT, **_BYTES}
_OLI_L1 = {**_LANDSAT, "scale": 2e-5, "offset": -0.1, **_REFLECTANCE}
_L2 = {**_LANDSAT, "scale": 2.75e-5, "offset": -0.2, **_REFLECTANCE}
_HLS = {"gsd_m": 30.0, "scale": 1e-4, "nodata": -9999.0, "nodata_bands": "any", **_REFLECTANCE}
# Surface reflectance (`_SR`); radiance, the other analytic product, has another scale.
_PLANET = {"gsd_m": 3.0, "scale": 1e-4, "nodata": 0.0, **_REFLECTANCE}
# Raw counts of 11 bits, or of 14 after some corrections; level 1A and 2A of Gaofen have 10 bits.
_MAXAR = {"nodata": 0.0, "expected": (0.0, 16383.0)}
_PMS = {"nodata": 0.0, "expected": (0.0, 1023.0)}
# Counts of 12 bits, or reflectance in units of 0.0001 where ordered so: DIM_*.XML says it.
_AIRBUS = {"nodata": 0.0, "expected": (0.0, 16383.0)}

CARDS: dict[str, dict[str, Any]] = {
    "rgb": {"bands": _AERIAL[:3], "gsd_m": 1.0, **_BYTES},
    "aerial-rgb": {"bands": _AERIAL[:3], "gsd_m": 0.3, **_BYTES},
    "aerial-rgbn": {"bands": _AERIAL, "gsd_m": 0.6, **_BYTES},
    "naip": {"bands": _NAIP, "gsd_m": 0.6, **_BYTES},
    "modis-rgb": {"bands": _MODIS, "gsd_m": 500.0, **_BYTES},
    # MOD09GA, MOD09A1 and those of Aqua; -28672 lies outside the valid range of -100 to 16000.
    "modis-sr": {
        "bands": _MODIS_LAND,
        "gsd_m": 463.3,
        "scale": 1e-4,
        "nodata": -28672.0,
        "nodata_bands": "any",
        **_REFLECTANCE,
    },
    # Amplitudes of ground range detected products, as distributed: not calibrated, so some 55 dB
    # above sigma nought.
    "sentinel1-grd": {
        "bands": _SAR,
        "gsd_m": 10.0,
        "nodata": 0.0,
        "kind": "sar",
        "decibels": "amplitude",
        "expected": (15.0, 85.0),
    },
    # Backscatter that another program has calibrated and turned into decibels already.
    "sentinel1-grd-db": {"bands": _SAR, "gsd_m": 10.0, "kind": "sar", "expected": (-50.0, 10.0)},
    "sentinel2-l1c": {"bands": _S2, **_S2_COUNTS},
    # Cirrus (B10) carries nothing from the ground.
    "sentinel2-l2a": {"bands": [band for band in _S2 if band["code"] != "B10"], **_S2_COUNTS},
    # Counts of an 8-bit instrument; their calibration changes from scene to scene.
    "landsat5-l1": {"bands": _TM, **_TM_COUNTS},
    "landsat7-l1": {"bands": _ETM, **_TM_COUNTS},
    "landsat8-l1": {"bands": _OLI, **_OLI_L1},
    "landsat9-l1": {"bands": _OLI, **_OLI_L1},
    "landsat5-l2": {"bands": _TM, **_L2},
    "landsat7-l2": {"bands": _ETM, **_L2},
    "landsat8-l2": {"bands": _OLI, **_L2},
    "landsat9-l2": {"bands": _OLI, **_L2},
    "hls-l30": {"bands": _HLS_L30, **_HLS},
    "hls-s30": {"bands": _S2, **_HLS},
    "planetscope-4": {"bands": [_PLANETSCOPE[i] for i in (1, 3, 5, 7)], **_PLANET},
    "planetscope-8": {"bands": _PLANETSCOPE, **_PLANET},
    "worldview2": {"bands": _WORLDVIEW, "gsd_m": 1.84, **_MAXAR},
    "worldview3": {"bands": _WORLDVIEW, "gsd_m": 1.24, **_MAXAR},
    "gaofen1": {"bands": _GAOFEN, "gsd_m": 8.0, **_PMS},
    "gaofen2": {"bands": _GAOFEN, "gsd_m": 4.0, **_PMS},
    "pleiades": {"bands": _PLEIADES, "gsd_m": 2.0, **_AIRBUS},
    "spot67": {"bands": _SPOT, "gsd_m": 6.0, **_AIRBUS},
    # Radiance in units of 0.01, of which bright clouds have some 450; or surface reflectance in
    # units of 0.0001, where the name says `_SR`.
    "rapideye": {"bands": _RAPIDEYE, "gsd_m": 5.0, "nodata": 0.0, "expected": (0.0, 50_000.0)},
}
"""Name -> the fields of a `SensorCard`."""

MASKS: dict[str, dict[str, tuple[int, ...]]] = {
    # Sentinel-2 level 2A, scene classification (SCL): 0 no data, 1 saturated or defective, 3 cloud
    # shadow, 8 and 9 cloud of medium and high probability, 10 thin cirrus. Kept: 2 dark areas, 4
    # plants, 5 soil, 6 water, 7 unclassified, 11 snow.
    "sentinel2-scl": {"drop": (0, 1, 3, 8, 9, 10)},
    # Landsat Collection 2, QA_PIXEL: bit 0 fill, 1 dilated cloud, 2 cirrus (unused before Landsat
    # 8), 3 cloud, 4 cloud shadow. Kept: bit 5 snow, 7 water; bit 6 says clear, and bits 8 to 15
    # repeat the others as confidences.
    "landsat-qa": {"drop_bits": (0, 1, 2, 3, 4)},
    # Landsat Collection 1, BQA: bit 0 fill, 4 cloud, 8 the upper one of two that say how likely
    # cloud shadow is. Kept: snow, cirrus by its confidence alone.
    "landsat-c1-bqa": {"drop_bits": (0, 4, 8)},
    # HLS 2.0, Fmask: bit 1 cloud, 2 adjacent to cloud or shadow, 3 cloud shadow; 255 fill. They are
    # left out of NASA's own vegetation indices, HLS-VI. Kept: bit 4 snow and ice, 5 water; bit 0,
    # cirrus, is not in use, and 6 and 7 are the level of aerosols.
    "hls-fmask": {"drop": (255,), "drop_bits": (1, 2, 3)},
    # PlanetScope's usable data mask, UDM2: band 1 is 1 where clear of cloud, haze, shadow, snow and
    # fill; bands 2 to 6 say which of them, 7 how sure that is, 8 what is missing.
    "planet-udm2": {"keep": (1,)},
    # MAJA, CLM: bit 0 all clouds but the thinnest and all shadows, 1 to 5 which of them, and how
    # they were found. Kept: bit 6 thinnest clouds, 7 high clouds by 1.38 micrometres.
    "maja-clm": {"drop_bits": (0, 1, 2, 3)},
    # FORCE, QAI: bit 0 no data, 1 and 2 cloud (buffered, opaque, cirrus), 3 cloud shadow. Kept: bit
    # 4 snow, 5 water; the others say how good aerosols, illumination and water vapour are.
    "force-qai": {"drop_bits": (0, 1, 2, 3)},
}
"""Name -> the fields of a `MaskRule`: ready-made rules for the masks that come with products."""
