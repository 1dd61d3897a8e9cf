"""Folders as archives have them, from the draft to the chips: which files become scenes, which mask
them, and that pixels are those of the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layouts import chips_of, drafted, names_of, pixels_of, raster

from fedsense_core.data.opening import load_site

S2_METRES = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20, "B09": 60,
    "B11": 20, "B12": 20,
}  # fmt: skip


def band(path: Path, metres: int, side: int, dtype: str = "uint16") -> np.ndarray:
    """A band of ``side`` times 10 metres."""
    n = side * 10 // metres
    return raster(path, pixels_of(path.as_posix(), (n, n), dtype, 1100, 4000), metres)[0]


def test_bigearthnet_patches_in_folders_of_tiles(tmp_path: Path) -> None:
    """BigEarthNet v2 (reBEN, arXiv 2407.03653): a folder a tile, a folder a patch, one file a band
    of 120, 60 and 20 pixels; N9999 is no processing baseline."""
    pixels = {}
    for tile in ("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP", "S2B_MSIL2A_20170808T094029_N9999_R036_T35ULA"):
        for patch in (f"{tile}_26_57", f"{tile}_27_57"):
            for label, metres in S2_METRES.items():
                path = tmp_path / "ben" / tile / patch / f"{patch}_{label}.tif"
                pixels[patch, label] = band(path, metres, 120)
    draft, site = drafted(tmp_path / "ben")
    (source,) = site.sources
    assert (source.sensor, len(source.scenes), source.card.gsd_m) == ("sentinel2-l2a", 4, 10.0)
    assert "gsd_m" not in draft.path.read_text(), "the finest band's pixels are the card's"
    (chips,) = chips_of(site, 120)
    at = chips.bands.index("red")
    found = [np.asarray(chips.read([i]))[0, at] for i in range(4)]
    for path, chip in zip(chips.scene_paths, found, strict=True):
        np.testing.assert_array_equal(chip, pixels[Path(path).parent.name, "B04"])


@pytest.mark.parametrize(
    ("folders", "scenes"),
    [
        # OSCD (IEEE DataPort "OSCD - Onera Satellite Change Detection"): two dates of each city.
        ([f"images_{s}/{c}_{s}/imgs_{d}" for s in ("train", "test") for c in ("a", "b") for d in (1, 2)], 8),
        # SSL4EO-S12 (arXiv 2211.07044): seasons of each location.
        ([f"s2c/{i:07d}/2020{m}T162931_2020{m}T163750_T15QXA" for i in range(3) for m in ("0323", "0621")], 6),
        # The same date at two places.
        (["33/2020", "33/2021", "34/2020"], 3),
    ],
)
def test_scenes_that_only_several_folders_tell_apart(tmp_path: Path, folders: list[str], scenes: int) -> None:
    pixels = {
        folder: [band(tmp_path / "set" / folder / f"{label}.tif", 10, 64) for label in ("B02", "B03", "B04")]
        for folder in folders
    }
    draft, site = drafted(tmp_path / "set")
    assert "{scene:**}/{band}.tif" in draft.path.read_text()
    (source,) = site.sources
    assert len(source.scenes) == scenes == len(folders)
    (chips,) = chips_of(site)
    assert chips.bands == ("blue", "green", "red")
    for i, path in enumerate(chips.scene_paths):
        folder = Path(path).parent.relative_to(tmp_path / "set").as_posix()
        np.testing.assert_array_equal(np.asarray(chips.read([i]))[0], pixels[folder])


def test_classifications_below_years_and_months_mask_their_scenes(tmp_path: Path) -> None:
    """Element 84's sentinel-cogs: UTM zone, band, square, year, month, product, one file a band,
    TCI and a preview (registry.opendata.aws/sentinel-2-l2a-cogs)."""
    for date in ("20220516", "20230516"):
        folder = tmp_path / "cogs" / "36/Q/WD" / date[:4] / "5" / f"S2A_36QWD_{date}_0_L2A"
        for label in ("B02", "B03", "B04", "B08", "B11"):
            band(folder / f"{label}.tif", S2_METRES[label], 128)
        classes = np.full((64, 64), 4, np.uint8)
        classes[:32] = 9  # cloud in the upper half
        raster(folder / "SCL.tif", classes, 20)
        raster(folder / "TCI.tif", pixels_of(date, (3, 128, 128), "uint8", 0, 255))
        raster(folder / "preview.jpg", pixels_of(date, (3, 32, 32), "uint8", 0, 255), None)
    _, site = drafted(tmp_path / "cogs")
    (source,) = site.sources
    assert source.card.names == ["blue", "green", "red", "nir", "swir_1"]
    assert [[*names, ""][-2] for names in names_of(source)] == ["SCL.tif", "SCL.tif"]
    assert [scene.mask and scene.mask.parent == scene.path.parent for scene in source.scenes] == [True, True]
    (chips,) = chips_of(site)
    assert len(chips) == 4, "of each scene the two lower chips of four"
    assert set(chips.row) == {64}


def test_bands_of_two_pixel_sizes_of_reprocessed_products(tmp_path: Path) -> None:
    """A granule that was processed twice has the same file names in two products (Sentinel-2
    Products Specification Document, section 3), here in folders that lost their suffix."""
    for baseline, done in (("N0400", "20220104T120000"), ("N0510", "20240104T120000")):
        product = f"S2A_MSIL2A_20220101T105441_{baseline}_R051_T31UFT_{done}"
        data = tmp_path / "safe" / product / "GRANULE" / "L2A_T31UFT_A034112_20220101T105441" / "IMG_DATA"
        for label, metres in [("B02", 10), ("B04", 10), ("B8A", 20), ("SCL", 20)]:
            path = data / f"R{metres}m" / f"T31UFT_20220101T105441_{label}_{metres}m.tif"
            if label == "SCL":
                raster(path, np.full((64, 64), 4, np.uint8), metres)
            else:
                band(path, metres, 128)
    _, site = drafted(tmp_path / "safe")
    (source,) = site.sources
    assert (
        names_of(source)
        == [[f"T31UFT_20220101T105441_{end}.tif" for end in ("B02_10m", "B04_10m", "B8A_20m", "SCL_20m")]] * 2
    )
    assert all(len({file.parents[5].name for file in scene.files}) == 1 for scene in source.scenes)
    (chips,) = chips_of(site)
    assert len(chips) == 8


def test_sizes_in_folders_of_their_own(tmp_path: Path) -> None:
    """The Sentinel-2 L2A bucket on AWS: tiles/31/U/FT/2022/1/1/0/R10m/B02.jp2, here as GeoTIFF."""
    for tile in ("31/U/FT/2022/1/1/0", "32/U/MB/2022/1/1/0"):
        for inner, label, metres in [
            ("R10m", "B02", 10),
            ("R10m", "B04", 10),
            ("R20m", "B02", 20),
            ("R20m", "B8A", 20),
        ]:
            band(tmp_path / "tiles" / tile / inner / f"{label}.tif", metres, 64)
        raster(tmp_path / "tiles" / tile / "R20m" / "SCL.tif", np.full((32, 32), 4, np.uint8), 20)
    _, site = drafted(tmp_path / "tiles")
    (source,) = site.sources
    assert [[file.parent.name + file.name for file in scene.files] for scene in source.scenes] == [
        ["R10mB02.tif", "R10mB04.tif", "R20mB8A.tif", "R20mSCL.tif"]
    ] * 2


def test_the_folder_of_one_scene(tmp_path: Path) -> None:
    for label, metres in [("B02", 10), ("B04", 10), ("B11", 20)]:
        band(tmp_path / "scene" / f"{label}.tif", metres, 64)
    raster(tmp_path / "scene" / "SCL.tif", np.full((32, 32), 4, np.uint8), 20)
    _, site = drafted(tmp_path / "scene")
    assert [names_of(source) for source in site.sources] == [[["B02.tif", "B04.tif", "B11.tif", "SCL.tif"]]]


def test_a_custom_card_stands_before_further_bands_and_has_the_finest_pixels(tmp_path: Path) -> None:
    """Reflectance as programs for atmospheric correction write it: names of colours, two pixel
    sizes."""
    metres = {"blue": 10, "green": 10, "red": 10, "nir": 10, "red_edge_1": 20, "swir_1": 20}
    for date in ("20230601", "20230611"):
        for colour, size in metres.items():
            n = 1280 // size
            path = tmp_path / "arch" / f"{date}_T32TQM_{colour}_{size}m.tif"
            raster(path, pixels_of(path.name, (n, n), "float32", 0, 0.5), size)
    draft, site = drafted(tmp_path / "arch")
    text = draft.path.read_text()
    assert text.index("[sources.sensor]") < text.index("[[sources.also]]")
    (source,) = site.sources
    assert (source.sensor, source.card.gsd_m, len(source.scenes)) == ("custom", 10.0, 2)
    assert set(source.card.names) == set(metres)
    (chips,) = chips_of(site)
    assert len(chips) == 8


def test_files_that_no_pattern_separates_are_listed_also_in_a_comment(tmp_path: Path) -> None:
    folder = tmp_path / "an_archive_with_a_name_that_is_long_enough_for_lists_of_several_lines"
    for name, bands in zip("abcde", (3, 1, 3, 1, 3), strict=True):
        raster(folder / f"{name}_orthophoto.tif", pixels_of(name, (bands, 64, 64), "uint8", 0, 255), None)
    draft, site = drafted(folder)
    assert names_of(site.sources[0]) == [[f"{name}_orthophoto.tif"] for name in "ace"]
    lines = draft.path.read_text().partition("Fill in each ?")[2].splitlines()[1:]
    filled = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines).replace("?", "0.6")
    draft.path.write_text(f'name = "filled"\n{filled}')
    assert names_of(load_site(draft.path).sources[0]) == [["b_orthophoto.tif"], ["d_orthophoto.tif"]]
