"""Products of other makers, by their names: card, mask and pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layouts import chips_of, drafted, names_of, pixels_of, raster

SHAPE = (64, 64)


def test_hls_with_its_fmask(tmp_path: Path) -> None:
    """HLS Product User Guide 2.0, section 5: names with dots, fill -9999, bits of Fmask."""
    written = {}
    for product, codes in (("HLS.S30", ("B02", "B03", "B04", "B8A")), ("HLS.L30", ("B02", "B03", "B04", "B05"))):
        name = f"{product}.T32TQM.2023150T101559.v2.0"
        for code in (*codes, *(("B10",) if product == "HLS.L30" else ())):
            values = pixels_of(product + code, SHAPE, "int16", 100, 4000)
            written[product, code] = raster(tmp_path / "hls" / name / f"{name}.{code}.tif", values, 30, nodata=-9999)[0]
        flags = np.full(SHAPE, 64, np.uint8)
        flags[:32] = 64 | 2  # cloud
        raster(tmp_path / "hls" / name / f"{name}.Fmask.tif", flags, 30, nodata=255)
        raster(tmp_path / "hls" / name / f"{name}.SZA.tif", pixels_of("z", SHAPE, "uint16", 100, 4000), 30)
    _, site = drafted(tmp_path / "hls")
    found = {source.sensor: source for source in site.sources}
    assert {sensor: [len(names) for names in names_of(source)] for sensor, source in found.items()} == {
        "hls-s30": [5],
        "hls-l30": [5],
    }
    for chips in chips_of(site, 32):
        product, code = ("HLS.S30", "B8A") if chips.sensor[0] == "hls-s30" else ("HLS.L30", "B05")
        assert [(row, col) for row, col in zip(chips.row, chips.col, strict=True)] == [(32, 0), (32, 32)]
        np.testing.assert_array_equal(np.asarray(chips.read([0]))[0, -1], written[product, code][32:, :32])


@pytest.mark.parametrize(("end", "bands", "sensor"), [("_SR", 4, "planetscope-4"), ("_SR_8b", 8, "planetscope-8")])
def test_planetscope_with_its_usable_data_mask(tmp_path: Path, end: str, bands: int, sensor: str) -> None:
    """Planet's PSScene assets: surface reflectance, and a mask of eight bands, of which the first
    is 1 where it is clear."""
    for scene in ("20230605_101559_12_2489", "20230606_101600_33_248b"):
        values = pixels_of(scene, (bands, *SHAPE), "uint16", 100, 4000)
        raster(tmp_path / "planet" / f"{scene}_3B_AnalyticMS{end}.tif", values, 3, nodata=0)
        mask = np.ones((8, *SHAPE), np.uint8)
        mask[0, :, :32] = 0
        raster(tmp_path / "planet" / f"{scene}_3B_udm2.tif", mask, 3)
        raster(tmp_path / "planet" / f"{scene}_3B_Visual.tif", pixels_of("v", (3, *SHAPE), "uint8", 0, 255), 3)
    _, site = drafted(tmp_path / "planet")
    (source,) = site.sources
    assert (source.sensor, source.card.scale, len(source.scenes)) == (sensor, 1e-4, 2)
    assert all(scene.mask for scene in source.scenes)
    (chips,) = chips_of(site, 32)
    assert set(chips.col) == {32}


def test_planetscope_radiances_are_taken_for_no_reflectance(tmp_path: Path) -> None:
    values = pixels_of("r", (4, *SHAPE), "uint16", 3000, 9000)
    raster(tmp_path / "planet" / "20230605_101559_12_2489_3B_AnalyticMS.tif", values, 3)
    draft, site = drafted(tmp_path / "planet")
    (source,) = site.sources
    assert (source.sensor, source.card.scale, source.card.names) == ("custom", 1.0, ["blue", "green", "red", "nir"])
    assert "no surface reflectance" in draft.entries[0].guess.reason


@pytest.mark.parametrize(("satellite", "sensor"), [("WV02", "worldview2"), ("WV03", "worldview3"), ("", "worldview2")])
def test_maxar_by_the_metadata_beside(tmp_path: Path, satellite: str, sensor: str) -> None:
    """Maxar's Imagery Support Data: names say the kind and the level, the .IMD the satellite."""
    name = "21JUN15101010-M2AS_R1C1-050012345010_01_P001"
    raster(tmp_path / "wv" / f"{name}.TIF", pixels_of("w", (8, *SHAPE), "uint16", 100, 2000), 2)
    pan = pixels_of("p", (256, 256), "uint16", 100, 2000)
    raster(tmp_path / "wv" / f"{name.replace('M2AS', 'P2AS')}.TIF", pan, 0.5)
    if satellite:
        (tmp_path / "wv" / f"{name}.IMD").write_text(f'version = "28.4";\n\tsatId = "{satellite}";\n')
    _, site = drafted(tmp_path / "wv")
    assert [source.sensor for source in site.sources] == [sensor]
    assert len(chips_of(site)[0]) == 1


@pytest.mark.parametrize(
    ("name", "bands", "dtype", "sensor"),
    [
        ("GF2_PMS1_E113.5_N23.1_20150212_L1A0000647768-MSS1.tif", 4, "uint16", "gaofen2"),
        ("GF1_WFV1_E113.5_N23.1_20150212_L1A0000647768.tiff", 4, "uint16", "gaofen1"),
        ("m_3808508_ne_16_1_20160613.tif", 4, "uint8", "naip"),
        ("m_3808508_ne_16_060_20180613_20190209.tif", 3, "uint8", "naip"),
        ("EuroSAT_MS/Forest/Forest_1.tif", 13, "uint16", "sentinel2-l1c"),
    ],
)
def test_names_that_say_the_card(tmp_path: Path, name: str, bands: int, dtype: str, sensor: str) -> None:
    values = raster(tmp_path / "a" / name, pixels_of(name, (bands, *SHAPE), dtype, 10, 250), None)
    _, site = drafted(tmp_path / "a")
    (source,) = site.sources
    assert source.sensor == sensor
    assert source.card.gsd_m == (16.0 if "WFV" in name else source.card.gsd_m)
    if bands == 13:
        assert source.card.names[-1] == "nir_narrow", "EuroSAT has band 8A last"
    (chips,) = chips_of(site)
    np.testing.assert_array_equal(np.asarray(chips.read([0]))[0], values)


@pytest.mark.parametrize(
    ("dtype", "unit", "scale"),
    [("float64", 1, 1e-4), ("int32", 1, 1e-4), ("float32", 1e-4, 1.0), ("float64", 1e-4, 1.0), ("uint16", 1, 1e-4)],
)
def test_exports_of_earth_engine_as_counts_and_as_reflectance(
    tmp_path: Path, dtype: str, unit: float, scale: float
) -> None:
    """Export.image.toDrive writes the images' types, tiles named by rows and columns, and names of
    bands as descriptions (developers.google.com/earth-engine/guides/exporting_images)."""
    written = []
    for i in range(2):
        values = (pixels_of(str(i), (3, *SHAPE), "uint16", 1100, 4000) * unit).astype(dtype)
        path = tmp_path / "gee" / f"s2_export-0000000000-000000{i * 512:04d}.tif"
        written.append(raster(path, values, names=("B4", "B3", "B2")))
    _, site = drafted(tmp_path / "gee")
    (source,) = site.sources
    assert (source.sensor, source.card.names, source.card.scale) == ("sentinel2-l2a", ["red", "green", "blue"], scale)
    (chips,) = chips_of(site)
    for i in range(2):
        np.testing.assert_allclose(np.asarray(chips.read([i]))[0], written[i], rtol=1e-6)
