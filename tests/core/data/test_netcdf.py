"""netCDF files with one variable a band are read as rasters; others are refused with the reason."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from netcdf_files import write_netcdf
from rasterio.transform import from_origin

from fedsense_core.data.raster.files import open_raster
from fedsense_core.data.raster.formats import FAULTS, GDAL_OPTIONS, Unreadable
from fedsense_core.data.sites.limits import ReadLimits

NAMES = ("B02", "B03", "B04", "B08")


def stack(dtype: str = "int16", bands: int = 4, side: int = 48) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(3)
    return rng.integers(1, 3000, (bands, side, side + 16)).astype(dtype)


def named(values: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return dict(zip(NAMES, values, strict=False))


@pytest.mark.parametrize("times", [0, 1], ids=["y x", "t y x, one time"])
def test_variables_are_the_bands_with_their_names_fill_scale_and_place(tmp_path: Path, times: int) -> None:
    values = stack()
    values[:, 3, 5] = -999
    path = write_netcdf(tmp_path / "cube.nc", named(values), fill=-999, packed=(1e-4, -0.1), times=times)
    with rasterio.Env(**GDAL_OPTIONS), open_raster(path) as file:
        assert file.descriptions == NAMES
        assert (file.nodatavals, file.scales, file.offsets) == ((-999.0,) * 4, (1e-4,) * 4, (-0.1,) * 4)
        assert file.crs.to_epsg() == 32632
        assert file.transform == from_origin(500_000, 5_000_000, 10, 10)
        np.testing.assert_array_equal(file.read(), values)
        assert [tuple(np.argwhere(file.read_masks(band) == 0)[0]) for band in file.indexes] == [(3, 5)] * 4


def test_compressed_chunks_of_netcdf_4_are_read(tmp_path: Path) -> None:
    values = stack("uint16", bands=2)
    profile = {"driver": "GTiff", "count": 2, "height": 48, "width": 64, "dtype": "uint16", "crs": "EPSG:32632"}
    with rasterio.open(tmp_path / "a.tif", "w", transform=from_origin(5e5, 5e6, 10, 10), **profile) as file:
        file.write(values)
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.nc", driver="netCDF", FORMAT="NC4", COMPRESS="DEFLATE")
    with rasterio.Env(**GDAL_OPTIONS), open_raster(tmp_path / "a.nc") as file:
        assert file.descriptions == ("Band1", "Band2")
        np.testing.assert_array_equal(file.read(), values)


def _several_times(path: Path) -> None:
    write_netcdf(path, named(stack()), times=3)


def _several_types(path: Path) -> None:
    write_netcdf(path, named(stack()) | {"SCL": stack("int8")[0]})


def _one_variable_of_times(path: Path) -> None:
    write_netcdf(path, {"ndvi": stack()[0]}, times=3)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_several_times, "has 3 layers along t"),
        (_several_types, r"several types \(SCL differ\); .*gdal_translate"),
        (_one_variable_of_times, "has 3 layers along t"),
        (lambda path: path.write_bytes(b"CDF\x01" + bytes(500)), "no readable netCDF"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500)), "no readable netCDF"),
    ],
    ids=["times", "types", "one variable of times", "empty classic", "empty HDF5"],
)
def test_what_makes_no_one_raster_is_refused_with_the_reason(make: Any, reason: str, tmp_path: Path) -> None:
    make(tmp_path / "x.nc")
    with rasterio.Env(**GDAL_OPTIONS), pytest.raises(Unreadable, match=reason):
        open_raster(tmp_path / "x.nc")


def test_limits_hold_for_each_variable(tmp_path: Path) -> None:
    path = write_netcdf(tmp_path / "x.nc", named(stack()))
    with rasterio.Env(**GDAL_OPTIONS), pytest.raises(Unreadable, match="claims 64 x 48 pixels"):
        open_raster(path, ReadLimits(max_file_pixels=1000))


@pytest.mark.parametrize("mutants", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_files_are_refused_or_read_and_never_end_the_process(mutants: int, tmp_path: Path) -> None:
    path = write_netcdf(tmp_path / "x.nc", named(stack()), fill=-999)
    rng, whole = np.random.default_rng(mutants), path.read_bytes()
    for number in range(mutants):
        damaged = bytearray(whole if number % 3 else whole[: int(rng.integers(len(whole)))])
        for _ in range(int(rng.integers(1, 12))):
            damaged[int(rng.integers(min(len(damaged), 3000 if number % 2 else len(damaged))))] = int(rng.integers(256))
        path.write_bytes(damaged)
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
            os._exit(_read(path))
        assert os.waitpid(child, 0)[1] == 0, f"mutant {number}"


def _read(path: Path) -> int:
    try:
        with rasterio.Env(**GDAL_OPTIONS), open_raster(path, ReadLimits(max_file_pixels=1 << 20)) as file:
            file.read()
    except (Unreadable, *FAULTS):
        return 0
    except BaseException:
        return 1
    return 0
