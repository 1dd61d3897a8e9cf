"""Small netCDF files as xarray writes them with rioxarray's georeference: one variable a band, each
with the name of a grid mapping, beside it coordinates (CF conventions 1.8, sections 4, 5.6 and
8.1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from scipy.io import netcdf_file

Array = np.ndarray[Any, Any]


def write_netcdf(
    path: Path,
    variables: Mapping[str, Array],
    *,
    gsd: float = 10.0,
    fill: float | None = None,
    packed: tuple[float, float] | None = None,
    times: int = 0,
    corner: tuple[float, float] = (500_000.0, 5_000_000.0),
) -> Path:
    """Write variables (H, W), stored as they are, in the classic format with 64-bit offsets.

    ``packed`` is scale and offset; with ``times`` each variable has a first axis ``t`` of so many
    equal layers.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = next(iter(variables.values())).shape
    file = netcdf_file(path, "w", version=2)
    file.Conventions = b"CF-1.8"
    axes = {"y": corner[1] - gsd * (np.arange(height) + 0.5), "x": corner[0] + gsd * (np.arange(width) + 0.5)}
    if times:
        axes = {"t": np.arange(float(times))} | axes
    for axis, values in axes.items():
        file.createDimension(axis, len(values))
        variable = file.createVariable(axis, "f8", (axis,))
        variable[:] = values
        variable.units = b"days since 2021-06-05" if axis == "t" else b"m"
        variable.standard_name = b"time" if axis == "t" else f"projection_{axis}_coordinate".encode()
    mapping = file.createVariable("spatial_ref", "i4", ())
    mapping.grid_mapping_name = b"transverse_mercator"
    mapping.crs_wkt = CRS.from_epsg(32632).to_wkt().encode()
    for name, values in variables.items():
        variable = file.createVariable(name, values.dtype, tuple(axes))
        variable[:] = values
        variable.grid_mapping = b"spatial_ref"
        if fill is not None:
            variable._FillValue = values.dtype.type(fill)
        if packed is not None:
            variable.scale_factor, variable.add_offset = map(np.float64, packed)
    file.close()
    return path
