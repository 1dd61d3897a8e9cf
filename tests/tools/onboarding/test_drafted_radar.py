"""Of radar products only polarisations are imagery."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layouts import chips_of, drafted, names_of, pixels_of, raster

from fedsense_core.tools.onboarding.scene_groups import BESIDE_RADAR


@pytest.mark.parametrize(
    ("letter", "decibels", "low", "high"),
    [("p", "power", 0.01, 0.5), ("a", "amplitude", 0.1, 0.7), ("d", "no", -25.0, -3.0)],
)
def test_hyp3_with_its_side_files(tmp_path: Path, letter: str, decibels: str, low: float, high: float) -> None:
    """HyP3's RTC product guide: polarisations beside DEM, incidence angle, layover and shadow, area
    and a picture; the second letter of ``gpuned`` is the scale. Nodata is 0."""
    scenes = [f"S1A_IW_{date}T053412_DVP_RTC30_G_g{letter}uned_A784" for date in ("20230101", "20230113")]
    written = {}
    for scene in scenes:
        folder, side = tmp_path / "sentinel1" / scene, (128, 128)
        for band in ("VV", "VH"):
            values = pixels_of(scene + band, side, "float32", low, high)
            written[scene, band] = raster(folder / f"{scene}_{band}.tif", values, 30, nodata=0)[0]
        raster(folder / f"{scene}_inc_map.tif", pixels_of("i", side, "float32", 0.5, 0.8), 30, nodata=0)
        raster(folder / f"{scene}_area.tif", pixels_of("a", side, "float32", 0.5, 2), 30, nodata=0)
        raster(folder / f"{scene}_dem.tif", pixels_of("d", side, "int16", 0, 900), 30, nodata=0)
        raster(folder / f"{scene}_ls_map.tif", np.ones(side, np.uint8), 30, nodata=0)
        raster(folder / f"{scene}_rgb.tif", pixels_of("r", (3, *side), "uint8", 0, 255), 30, nodata=0)
    draft, site = drafted(tmp_path / "sentinel1")
    (source,) = site.sources
    assert names_of(source) == [[f"{scene}_VV.tif", f"{scene}_VH.tif"] for scene in scenes]
    assert (source.card.is_radar, source.card.decibels, source.card.gsd_m) == (True, decibels, 30.0)
    assert len(draft.grouping.left_out[BESIDE_RADAR]) == 10
    (chips,) = chips_of(site, 128)
    vv = written[scenes[0], "VV"]
    factor = {"power": 10.0, "amplitude": 20.0, "no": 0.0}[decibels]
    expected = factor * np.log10(vv) if factor else vv
    np.testing.assert_allclose(np.asarray(chips.read([0]))[0, 0], expected, rtol=1e-5)


def test_scales_of_hyp3_are_never_mixed(tmp_path: Path) -> None:
    for letter in "pa":
        name = f"S1A_IW_20230101T053412_DVP_RTC30_G_g{letter}uned_A784"
        for band in ("VV", "VH"):
            values = pixels_of(letter + band, (64, 64), "float32", 0.1, 0.7)
            raster(tmp_path / "hyp3" / letter / name / f"{name}_{band}.tif", values, 30, nodata=0)
    _, site = drafted(tmp_path / "hyp3")
    assert {source.card.decibels: source.scenes[0].path.parents[1].name for source in site.sources} == {
        "power": "p",
        "amplitude": "a",
    }


def test_opera_with_its_masks_and_static_layers(tmp_path: Path) -> None:
    """OPERA RTC-S1 (JPL D-108758): gamma nought as power, not-a-number where there is none."""
    burst = "T066-140117-IW1_20230101T053412Z_20230102T000000Z_S1A_30_v1.0"
    for band in ("VV", "VH"):
        values = pixels_of(band, (128, 128), "float32", 0.01, 0.5)
        values[:64] = np.nan
        raster(tmp_path / "opera" / f"OPERA_L2_RTC-S1_{burst}_{band}.tif", values, 30, nodata=np.nan)
    raster(tmp_path / "opera" / f"OPERA_L2_RTC-S1_{burst}_mask.tif", np.zeros((128, 128), np.uint8), 30, nodata=255)
    static = "OPERA_L2_RTC-S1-STATIC_T066-140117-IW1_20140403_S1A_30_v1.0"
    for layer in ("incidence_angle", "local_incidence_angle", "number_of_looks", "rtc_anf_gamma0_to_sigma0"):
        values = pixels_of(layer, (128, 128), "float32", 0.5, 40)
        raster(tmp_path / "opera" / "static" / f"{static}_{layer}.tif", values, 30)
    raster(tmp_path / "opera" / "static" / f"{static}_mask.tif", np.zeros((128, 128), np.uint8), 30)
    draft, site = drafted(tmp_path / "opera")
    (source,) = site.sources
    assert names_of(source) == [[f"OPERA_L2_RTC-S1_{burst}_VV.tif", f"OPERA_L2_RTC-S1_{burst}_VH.tif"]]
    assert source.card.decibels == "power"
    assert len(draft.grouping.left_out[BESIDE_RADAR]) == 6
    assert len(chips_of(site)[0]) == 2


def test_measurements_of_a_sentinel1_product(tmp_path: Path) -> None:
    """Sentinel-1 Product Specification (MPC-0240), 3.4.2: names in lower case, positions by ground
    control points."""
    product = "S1A_IW_GRDH_1SDV_20230101T053412_20230101T053437_046592_059563_1F4B.SAFE"
    for number, band in enumerate(("vv", "vh"), start=1):
        name = f"s1a-iw-grd-{band}-20230101t053412-20230101t053437-046592-059563-00{number}.tiff"
        values = pixels_of(band, (128, 128), "uint16", 20, 800)
        values[:, :64] = 0
        raster(tmp_path / "s1" / product / "measurement" / name, values, None)
    _, site = drafted(tmp_path / "s1")
    (source,) = site.sources
    assert source.sensor == "sentinel1-grd"
    assert [len(names) for names in names_of(source)] == [2]
    assert len(chips_of(site)[0]) == 2


def test_heights_and_angles_of_processors_are_known_by_the_name_of_the_scene(tmp_path: Path) -> None:
    for end in ("VV", "VH", "dem", "localIncidenceAngle"):
        path = tmp_path / "rtc" / f"20230101_track66_{end}.tif"
        raster(path, pixels_of(end, (64, 64), "float32", 0.01, 0.4), 20)
    raster(tmp_path / "rtc" / "20230101_track66_B04.tif", pixels_of("B04", (64, 64), "uint16", 100, 4000), 10)
    draft, _ = drafted(tmp_path / "rtc")
    assert len(draft.grouping.left_out[BESIDE_RADAR]) == 2
    assert draft.entries[0].group.labels == ("vv", "vh")


def test_one_band_of_unknown_polarisation_is_asked_for(tmp_path: Path) -> None:
    """SEN1-2 (arXiv 1807.01569) names no polarisation: s1 folders of 8-bit pictures."""
    raster(tmp_path / "set" / "s1_0" / "a_s1_0_p1.png", pixels_of("p", (64, 64), "uint8", 0, 255), None)
    raster(tmp_path / "set" / "rgb.tif", pixels_of("q", (3, 64, 64), "uint8", 0, 255), None)
    draft, site = drafted(tmp_path / "set")
    assert [source.sensor for source in site.sources] == ["rgb"]
    assert "polarisation" in draft.entries[1].guess.missing
