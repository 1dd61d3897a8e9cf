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


def _hdf5(folder: Path) -> None:
    """HDF5-EOS of NASA's VNP09GA, collection 2."""
    folder.mkdir()
    (folder / "VNP09GA.A2022001.h18v04.002.2022003101010.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000))


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
    [(_hdf5, "h5"), (_modis, "hdf"), (_erdas, "img"), (_band_interleaved, "bil")],
    ids=["HDF5", "HDF4", "ERDAS", "BIL"],
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
    [(_hdf5, "h5"), (_modis, "hdf"), (_erdas, "img"), (_band_interleaved, "bil")],
    ids=["HDF5", "HDF4", "ERDAS", "BIL"],
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
