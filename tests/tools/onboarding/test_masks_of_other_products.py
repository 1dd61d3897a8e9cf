"""Masks called as those of a product whose rule they do not follow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from layouts import drafted, raster


def test_classes_of_fmask_are_not_read_as_the_bits_of_hls(tmp_path: Path) -> None:
    """As python-fmask (https://www.pythonfmask.org) writes them: 0 null, 1 clear, 2 cloud, 3
    shadow, 4 snow, 5 water. By the bits of HLS snow and water would be left out."""
    folder = tmp_path / "archive"
    for band in ("B02", "B03", "B04", "B08"):
        raster(folder / f"S2A_MSIL1C_20200101T105441_N0208_R051_T31UFT_{band}.tif", np.full((32, 32), 900, np.uint16))
    raster(folder / "S2A_MSIL1C_20200101T105441_N0208_R051_T31UFT_fmask.tif", np.full((32, 32), 5, np.uint8))
    draft, site = drafted(folder)
    assert [scene.mask for scene in site.sources[0].scenes] == [None]
    assert "1 file, as it may be a mask, whose classes the name does not tell" in draft.path.read_text().replace(
        "\n#  ", ""
    )
