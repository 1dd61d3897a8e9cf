"""SAFE products, mosaics, and other files that are no plain imagery, in a draft."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import chips_of, drafted, names_of, pixels_of, raster
from safe_products import GRD, L2A, write_grd, write_l2a, zipped

from fedsense_core.errors import SiteError
from fedsense_core.tools.onboarding.drafting import draft_site
from fedsense_core.tools.onboarding.safe_groups import OTHER_KIND, UNPACKED
from fedsense_core.tools.onboarding.scene_groups import REPEATS


def test_products_are_scenes_by_kind_and_archives_of_unpacked_ones_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "2023"
    root = write_l2a(folder, clouds=slice(0, 50))
    write_grd(folder)
    other = zipped(root)
    (folder / "S1A_IW_SLC__1SDV_20230101T053412_20230101T053437_046592_059563_AAAA.SAFE/measurement").mkdir(
        parents=True
    )
    raster(folder / "flight.tif", pixels_of("f", (3, 64, 64), "uint8", 0, 255), 0.2)
    draft, site = drafted(tmp_path / "hub")
    assert {source.sensor: [len(names) for names in names_of(source)] for source in site.sources} == {
        "sentinel2-l2a": [13],
        "sentinel1-grd": [2],
        "rgb": [1],
    }
    assert draft.grouping.left_out == {
        OTHER_KIND: ["2023/S1A_IW_SLC__1SDV_20230101T053412_20230101T053437_046592_059563_AAAA.SAFE"],
        UNPACKED: [f"2023/{other.name}"],
    }
    by_sensor = {chips.sensor[0]: chips for chips in chips_of(site)}
    assert len(by_sensor["sentinel2-l2a"]) == 3, "the lower third of nine chips is clear, of one product"
    assert len(by_sensor["sentinel1-grd"]) == 4


def test_archives_alone_are_scenes(tmp_path: Path) -> None:
    zipped(write_l2a(tmp_path / "made")).rename(tmp_path / f"{L2A}.zip")
    (tmp_path / "hub").mkdir()
    (tmp_path / f"{L2A}.zip").rename(tmp_path / "hub" / f"{L2A}.zip")
    _, site = drafted(tmp_path / "hub")
    assert [source.sensor for source in site.sources] == ["sentinel2-l2a"]
    assert len(chips_of(site)[0]) == 9


def test_wide_swaths_have_their_own_spacing_and_bands(tmp_path: Path) -> None:
    """Extra wide swaths over ice: HH and HV at 40 m (Sentinel-1 Product Definition, table 5-2)."""
    root = write_grd(tmp_path / "made")
    wide = tmp_path / "ice" / GRD.replace("IW_GRDH_1SDV", "EW_GRDM_1SDH")
    for file in root.rglob("*.tiff"):
        name = file.name.replace("-iw-", "-ew-").replace("-vv-", "-hh-").replace("-vh-", "-hv-")
        (wide / "measurement").mkdir(parents=True, exist_ok=True)
        file.rename(wide / "measurement" / name)
    _, site = drafted(tmp_path / "ice")
    (source,) = site.sources
    assert (source.card.names, source.card.gsd_m, source.card.decibels) == (["HH", "HV"], 40.0, "amplitude")
    assert len(chips_of(site)[0]) == 4


def test_a_mosaic_of_files_that_are_there_is_not_read_twice(tmp_path: Path) -> None:
    """As `gdalbuildvrt` writes it (gdal.org/drivers/raster/vrt.html)."""
    raster(tmp_path / "tiles" / "a.tif", pixels_of("a", (3, 64, 64), "uint8", 0, 255))
    rectangles = "".join(f'<{name} xOff="0" yOff="0" xSize="64" ySize="64"/>' for name in ("SrcRect", "DstRect"))
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}"><SimpleSource><SourceFilename relativeToVRT="1">a.tif'
        f"</SourceFilename><SourceBand>{i}</SourceBand>{rectangles}</SimpleSource></VRTRasterBand>"
        for i in (1, 2, 3)
    )
    (tmp_path / "tiles" / "all.vrt").write_text(f'<VRTDataset rasterXSize="64" rasterYSize="64">{bands}</VRTDataset>')
    draft, site = drafted(tmp_path / "tiles")
    assert draft.grouping.left_out == {REPEATS: ["all.vrt"]}
    assert names_of(site.sources[0]) == [["a.tif"]]


def test_the_folder_above_a_product_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="is a product; give the folder that it lies in"):
        draft_site(write_grd(tmp_path), tmp_path / "x.toml", None, lambda done, total: None)
