"""Public layouts in formats that are not read: each is named, with what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from zoo.framework import byte_planes, write_raster

from fedsense_core.errors import SiteError
from fedsense_core.tools.onboarding.drafting import describe, draft_site

Make = Callable[[Path], None]
SIZE = 32


def _netcdf(folder: Path) -> None:
    """One variable a band, as in Copernicus' Sentinel-3 SYN products (file S3-SYN, oa01_sdr)."""
    folder = folder / "S3B_SY_2_SYN____20230101T093000.SEN3"
    folder.mkdir(parents=True)
    for band in (4, 6, 8):
        (folder / f"Syn_Oa{band:02}_reflectance.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000))


def _modis(folder: Path) -> None:
    """HDF4-EOS of NASA's MOD09GA, collection 6.1."""
    folder.mkdir()
    (folder / "MOD09GA.A2020001.h18v04.061.2020003030245.hdf").write_bytes(b"\x0e\x03\x13\x01" + bytes(2000))


def _erdas(folder: Path) -> None:
    """ERDAS Imagine, https://gdal.org/drivers/raster/hfa.html."""
    write_raster(folder / "spot5_2008.img", byte_planes(4, SIZE), driver="HFA")


def _band_interleaved(folder: Path) -> None:
    """ESRI's .bil with its .hdr, https://gdal.org/drivers/raster/ehdr.html."""
    write_raster(folder / "aster_2004.bil", byte_planes(3, SIZE).astype(np.int16), driver="EHdr")


@pytest.mark.parametrize(
    ("make", "suffix"),
    [(_netcdf, "nc"), (_modis, "hdf"), (_erdas, "img"), (_band_interleaved, "bil")],
    ids=["netCDF", "HDF4", "ERDAS", "BIL"],
)
def test_archive_in_a_format_that_is_not_read_is_refused_by_name_with_the_remedy(
    make: Make, suffix: str, tmp_path: Path
) -> None:
    make(tmp_path / "archive")
    with pytest.raises(SiteError, match=rf"(?s)\.{suffix}\b.*gdal_translate"):
        draft_site(tmp_path / "archive", tmp_path / "site.toml", None, lambda done, total: None)
    assert not (tmp_path / "site.toml").exists()


@pytest.mark.parametrize(
    ("make", "suffix"),
    [(_netcdf, "nc"), (_modis, "hdf"), (_erdas, "img"), (_band_interleaved, "bil")],
    ids=["netCDF", "HDF4", "ERDAS", "BIL"],
)
def test_files_that_are_not_read_beside_others_are_named_in_draft_and_terminal(
    make: Make, suffix: str, tmp_path: Path
) -> None:
    make(tmp_path / "archive")
    write_raster(tmp_path / "archive" / "photo.tif", byte_planes(3, SIZE), photometric="RGB")
    draft = draft_site(tmp_path / "archive", tmp_path / "site.toml", None, lambda done, total: None)
    assert not draft.fault
    for text in (draft.path.read_text(), str(describe(draft))):
        words = " ".join(text.replace("\n#", " ").split())
        assert f".{suffix}" in words
        assert "gdal_translate" in words
