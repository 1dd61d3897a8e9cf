from __future__ import annotations

from pathlib import Path

import pytest

from fedsense_core.data.opening import load_site
from fedsense_core.data.sites.schema import MaskRule, Scene, Site
from fedsense_core.errors import SiteError

LANDSAT = '[[sources]]\nsensor = "landsat8-l2"\npaths = ["**/{scene}_SR_{band}.TIF"]\n'
TWO_GRIDS = """
[[sources]]
sensor = "sentinel2-l2a"
paths = ["{scene}_10m.tif"]
bands = ["blue", "green", "red", "nir"]
[[sources.also]]
paths = ["{scene}_20m.tif"]
bands = ["B11", "B12"]
"""
MASKED = '[[sources]]\nsensor = "rgb"\npaths = ["{scene}.tif"]\n[sources.mask]\npaths = ["{scene}_SCL.tif"]\n'


def load(folder: Path, text: str, *files: str) -> Site:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "site.toml").write_text(f'name = "here"\n{text}')
    return load_site(folder / "site.toml")


def names(site: Site, scene: Scene) -> list[tuple[str, list[str]]]:
    bands = site.sources[0].card.names
    return [(layer.path.name, [bands[i] for i in layer.bands]) for layer in scene.layers]


def test_single_band_files_of_one_scene_meet_in_the_order_of_the_card(tmp_path: Path) -> None:
    files = [f"{folder}/{s}_SR_{b}.TIF" for s, folder in (("b", "y"), ("a", "z")) for b in ("B4", "b2", "B3", "B10")]
    site = load(tmp_path, LANDSAT, *files, "z/a_QA_PIXEL.TIF", "z/a_SR_QA_AEROSOL.TIF")
    assert [names(site, scene) for scene in site.sources[0].scenes] == [
        [("b_SR_b2.TIF", ["blue"]), ("b_SR_B3.TIF", ["green"]), ("b_SR_B4.TIF", ["red"])],
        [("a_SR_b2.TIF", ["blue"]), ("a_SR_B3.TIF", ["green"]), ("a_SR_B4.TIF", ["red"])],
    ]


def test_bands_choose_among_single_band_files(tmp_path: Path) -> None:
    files = [f"a_SR_B{i}.TIF" for i in range(1, 8)]
    site = load(tmp_path, LANDSAT + 'bands = ["red", "B5"]', *files)
    assert site.sources[0].card.names == ["red", "nir"]
    assert names(site, site.sources[0].scenes[0]) == [("a_SR_B4.TIF", ["red"]), ("a_SR_B5.TIF", ["nir"])]


def test_a_scene_that_lacks_a_band_keeps_the_others(tmp_path: Path) -> None:
    site = load(tmp_path, LANDSAT, "a_SR_B2.TIF", "a_SR_B3.TIF", "b_SR_B3.TIF")
    assert [len(scene.layers) for scene in site.sources[0].scenes] == [2, 1]


def test_bands_of_another_grid_join_their_scene(tmp_path: Path) -> None:
    site = load(tmp_path, TWO_GRIDS, "a_10m.tif", "a_20m.tif", "b_10m.tif", "c_20m.tif")
    assert site.sources[0].card.names == ["blue", "green", "red", "nir", "swir_1", "swir_2"]
    assert [names(site, scene) for scene in site.sources[0].scenes] == [
        [("a_10m.tif", ["blue", "green", "red", "nir"]), ("a_20m.tif", ["swir_1", "swir_2"])],
        [("b_10m.tif", ["blue", "green", "red", "nir"])],
    ]


def test_single_band_files_on_two_grids_are_told_apart_by_their_bands(tmp_path: Path) -> None:
    text = TWO_GRIDS.replace("{scene}_10m", "R10m/{scene}_{band}").replace("{scene}_20m", "R20m/{scene}_{band}")
    files = [f"R10m/a_B0{i}.tif" for i in (2, 3, 4, 8)] + [f"R20m/a_B{i}.tif" for i in ("02", "8A", "11", "12")]
    site = load(tmp_path, text, *files)
    assert [layer.path.relative_to(tmp_path).as_posix() for layer in site.sources[0].scenes[0].layers] == [
        *(f"R10m/a_B0{i}.tif" for i in (2, 3, 4, 8)),
        "R20m/a_B11.tif",
        "R20m/a_B12.tif",
    ]


def test_masks_join_their_scenes_and_are_no_images(tmp_path: Path) -> None:
    site = load(
        tmp_path, MASKED + 'kind = "sentinel2-scl"\ndrop = [7]', "a.tif", "a_SCL.tif", "b.tif", "b_SCL.tif", "c_SCL.tif"
    )
    scenes = site.sources[0].scenes
    assert [(scene.path.name, scene.mask.name if scene.mask else "") for scene in scenes] == [
        ("a.tif", "a_SCL.tif"),
        ("b.tif", "b_SCL.tif"),
    ]
    assert site.sources[0].mask == MaskRule(drop=(0, 1, 3, 7, 8, 9, 10))
    assert len(site.sources[0].files) == 4


def test_scenes_without_a_mask_stop_the_site_unless_they_may(tmp_path: Path) -> None:
    files = [f"{name}.tif" for name in "abcde"]
    text = MASKED + "drop_bits = [3]\n"
    with pytest.raises(
        SiteError, match=r"sources\[1\]\.mask: 4 scenes have no mask.*'b.tif', 'c.tif', 'd.tif', \.\.\."
    ):
        load(tmp_path, text, *files, "a_SCL.tif")
    scenes = load(tmp_path, text + "required = false").sources[0].scenes
    assert [scene.mask is None for scene in scenes] == [False, True, True, True, True]


def test_overlapping_globs_count_a_file_once(tmp_path: Path) -> None:
    site = load(tmp_path, '[[sources]]\nsensor = "rgb"\npaths = ["*.tif", "a.*", "./a.tif"]\n', "a.tif", "b.tif")
    assert [scene.path.name for scene in site.sources[0].scenes] == ["a.tif", "b.tif"]


def test_scenes_come_in_the_same_order_whatever_the_disk_says(tmp_path: Path) -> None:
    load(tmp_path / "1", LANDSAT, "z/a_SR_B2.TIF", "y/b_SR_B2.TIF", "z/a_SR_B3.TIF")
    load(tmp_path / "2", LANDSAT, "z/a_SR_B3.TIF", "z/a_SR_B2.TIF", "y/b_SR_B2.TIF")
    first, second = (
        [
            [layer.path.relative_to(folder) for layer in scene.layers]
            for scene in load_site(folder / "site.toml").sources[0].scenes
        ]
        for folder in (tmp_path / "1", tmp_path / "2")
    )
    assert first == second


@pytest.mark.parametrize(
    ("text", "files", "words"),
    [
        (LANDSAT, ["x/a_SR_B2.TIF", "y/a_SR_B2.TIF"], ["scene 'a' has two files of band 'blue'", "Let {scene} stand"]),
        (LANDSAT, ["a_SR_QA.TIF"], ["sources[1].paths", "in which {band} is one of B1 (coastal)", "or the sensor"]),
        (LANDSAT.replace("{band}", "B?"), ["a_SR_B2.TIF", "a_SR_B3.TIF"], ["scene 'a' has two files of band"]),
        (TWO_GRIDS, ["a_10m.tif"], ["sources[1].also[1].paths matches no file", "'{scene}_20m.tif'"]),
        (TWO_GRIDS, ["a_10m.tif", "b_20m.tif"], ["also[1].paths: the scenes are 'b', those", "'a': none is both"]),
        (TWO_GRIDS.replace("B12", "B02"), [], ["also[1].bands: band 'B02' appears twice, first in bands"]),
        (TWO_GRIDS.replace("B12", "B11"), [], ["also[1].bands: band 'B11' appears twice, first in also[1].bands"]),
        (TWO_GRIDS.replace("B12", "swir2"), [], ["also[1].bands: there is no band 'swir2'", "Did you mean 'swir_2'?"]),
        (
            TWO_GRIDS.replace('bands = ["blue", "green", "red", "nir"]\n', ""),
            [],
            ["band 'B11' appears twice", "those of `paths`"],
        ),
        (MASKED + "drop = [0]", ["a.tif"], ["sources[1].mask.paths matches no file"]),
        (
            MASKED + "drop = [0]",
            ["a_SCL.tif"],
            ["sources[1].paths matches no file", "`also` or `mask` names do not count"],
        ),
        (MASKED + "drop = [0]", ["b.tif", "a_SCL.tif"], ["mask.paths: the scenes are 'a'", "Let {scene}"]),
        (
            MASKED.replace('"{scene}_SCL.tif"', '"{scene}_SCL.tif", "x/{scene}_SCL.tif"') + "drop = [0]",
            ["a.tif", "a_SCL.tif", "x/a_SCL.tif"],
            ["mask.paths: scene 'a' has two masks", "disjoint"],
        ),
        (
            '[[sources]]\nsensor = "rgb"\npaths = ["{scene}.tif", "*.tiff"]\n',
            [],
            ["every glob of `paths` needs {scene}"],
        ),
        (MASKED.replace("_SCL", "_{band}") + "drop = [0]", [], ["sources[1].mask", "a mask has no {band}"]),
    ],
)
def test_scenes_that_do_not_come_together_are_explained(
    tmp_path: Path, text: str, files: list[str], words: list[str]
) -> None:
    with pytest.raises(SiteError) as error:
        load(tmp_path, text, *files)
    for word in (str(tmp_path / "site.toml"), *words):
        assert word in str(error.value)
