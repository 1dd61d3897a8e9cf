"""The sensor cards that ship with FedSense, as data (a Flower bundle carries Python files and no others of ours).

Central wavelengths are the operators' published ones, in micrometres. ``scale`` and ``offset`` give reflectance where
the product defines it; 8-bit renderings and raw counts keep 1 and 0. Where a product changed (Sentinel-2 baseline 04.00
adds 1000 counts; Landsat surface reflectance before Collection 2 is in units of 0.0001), a site file may override them.
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
# Middle of each band of Landsat 8 and 9 OLI. Panchromatic and thermal bands have other pixel sizes, hence other files.
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

_C2_REFLECTANCE = {"scale": 2.75e-5, "offset": -0.2, "nodata": 0.0}

CARDS: dict[str, dict[str, Any]] = {
    "rgb": {"bands": _AERIAL[:3], "gsd_m": 1.0},
    "aerial-rgb": {"bands": _AERIAL[:3], "gsd_m": 0.3},
    "aerial-rgbn": {"bands": _AERIAL, "gsd_m": 0.6},
    "modis-rgb": {"bands": _MODIS, "gsd_m": 500.0},
    "sentinel2-l1c": {"bands": _S2, "gsd_m": 10.0, "scale": 1e-4, "nodata": 0.0},
    "sentinel2-l2a": {
        "bands": [b for b in _S2 if b["code"] != "B10"],  # cirrus carries nothing from the ground
        "gsd_m": 10.0,
        "scale": 1e-4,
        "nodata": 0.0,
    },
    # Counts of an 8-bit instrument; their calibration changes from scene to scene.
    "landsat5-l1": {"bands": _TM, "gsd_m": 30.0, "nodata": 0.0},
    "landsat7-l1": {"bands": _ETM, "gsd_m": 30.0, "nodata": 0.0},
    "landsat8-l1": {"bands": _OLI, "gsd_m": 30.0, "scale": 2e-5, "offset": -0.1, "nodata": 0.0},
    "landsat9-l1": {"bands": _OLI, "gsd_m": 30.0, "scale": 2e-5, "offset": -0.1, "nodata": 0.0},
    "landsat5-l2": {"bands": _TM, "gsd_m": 30.0, **_C2_REFLECTANCE},
    "landsat7-l2": {"bands": _ETM, "gsd_m": 30.0, **_C2_REFLECTANCE},
    "landsat8-l2": {"bands": _OLI, "gsd_m": 30.0, **_C2_REFLECTANCE},
    "landsat9-l2": {"bands": _OLI, "gsd_m": 30.0, **_C2_REFLECTANCE},
}
"""Name -> the fields of a `SensorCard`."""
