"""What a client says in its log about its own imagery, before it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from federation import tiny

from client_app.identity import Identity

NEWER = "S2B_MSIL2A_20290605T101559_N0650_R065_T32TQM_20290605T131559"
"""A product's name as in ESA's naming convention, of a baseline that does not exist yet."""


def test_baseline_that_is_not_known_yet_and_an_undeclared_fill_are_warned_of(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1200, 5000, (3, 64, 64)).astype(np.uint16)
    values[:, :16] = 65535
    profile = {"driver": "GTiff", "count": 3, "width": 64, "height": 64, "dtype": "uint16"}
    with rasterio.open(tmp_path / f"{NEWER}.tif", "w", **profile) as file:
        file.write(values)
    site = tmp_path / "site.toml"
    bands = 'sensor = "sentinel2-l2a"\nbands = ["red", "green", "blue"]'
    site.write_text(f'name = "here"\n[[sources]]\npaths = ["*.tif"]\n{bands}\n')
    fill, constant, baseline = Identity("here", (site,), tmp_path / "state").warnings(tiny())
    assert fill.startswith(
        "sentinel2-l2a: 65535 (in the card's units 6.454e+04) is the value of 25 % of the pixels of every band"
    )
    assert "Set `nodata = 65535` for this source" in fill
    assert constant.startswith("sentinel2-l2a: 4 of 16 chips are constant")
    assert baseline.startswith("baseline 06.50 of 1 scene is newer than")
