"""The sensor cards and mask rules that ship with FedSense, as data (a Flower bundle carries only
Python files of ours).

Central wavelengths are the operators' published ones, in micrometres. ``scale`` and ``offset`` give
reflectance where the product defines it; 8-bit renderings and raw counts keep 1 and 0. Where a
product changed (Sentinel-2 baseline 04.00 adds 1000 counts; Landsat surface reflectance before
Collection 2 is in units of 0.0001), a site file may override them.
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
# Typical of large-format mapping cameras.
_AERIAL = [_band("R", "red", 0.65), _band("G", "green", 0.55), _band("B", "blue", 0.46), _band("N", "nir", 0.83)]

_SAR = [{"name": "VV", "polarisation": "VV"}, {"name": "VH", "polarisation": "VH"}]  # as every GRD product orders them

# What nearly all pixels show: clouds and snow in the sun reach 1.6; corrections for the air make
# dark water negative.
_REFLECTANCE = {"expected": (-0.2, 1.6)}
_BYTES = {"expected": (0.0, 255.0)}
_S2_COUNTS = {"gsd_m": 10.0, "scale": 1e-4, "nodata": 0.0, "baseline_offset": 1000.0, **_REFLECTANCE}
_TM_COUNTS = {"gsd_m": 30.0, "nodata": 0.0, **_BYTES}
_OLI_L1 = {"gsd_m": 30.0, "scale": 2e-5, "offset": -0.1, "nodata": 0.0, **_REFLECTANCE}
_L2 = {"gsd_m": 30.0, "scale": 2.75e-5, "offset": -0.2, "nodata": 0.0, **_REFLECTANCE}

CARDS: dict[str, dict[str, Any]] = {
    "rgb": {"bands": _AERIAL[:3], "gsd_m": 1.0, **_BYTES},
    "aerial-rgb": {"bands": _AERIAL[:3], "gsd_m": 0.3, **_BYTES},
    "aerial-rgbn": {"bands": _AERIAL, "gsd_m": 0.6, **_BYTES},
    "modis-rgb": {"bands": _MODIS, "gsd_m": 500.0, **_BYTES},
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
    # MAJA, CLM: bit 0 all clouds but the thinnest and all shadows, 1 to 5 which of them, and how
    # they were found. Kept: bit 6 thinnest clouds, 7 high clouds by 1.38 micrometres.
    "maja-clm": {"drop_bits": (0, 1, 2, 3)},
    # FORCE, QAI: bit 0 no data, 1 and 2 cloud (buffered, opaque, cirrus), 3 cloud shadow. Kept: bit
    # 4 snow, 5 water; the others say how good aerosols, illumination and water vapour are.
    "force-qai": {"drop_bits": (0, 1, 2, 3)},
}
"""Name -> the fields of a `MaskRule`: ready-made rules for the masks that come with products."""
