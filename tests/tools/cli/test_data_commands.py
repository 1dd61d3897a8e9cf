"""What an institution's engineer types first, on small real GeoTIFFs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from federation import write_raster, write_site
from rasterio.transform import from_origin
from typer.testing import CliRunner, Result

from fedsense_core.config import resolve
from fedsense_core.data.opening import load_site, open_site
from fedsense_core.tools.cli import app
from fedsense_core.tools.onboarding.guessing import guess
from fedsense_core.tools.onboarding.scene_groups import MOST_LISTED
from fedsense_core.tools.onboarding.survey import Look

runner = CliRunner()
LANDSAT = "LC08_L2SP_229077_20200518_20200820_02_T1"


def write(path: Path, bands: int, dtype: str = "uint8", low: int = 1, high: int = 250, **profile: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    side, gsd_m = profile.pop("side", 64), profile.pop("gsd_m", 10.0)
    names = profile.pop("names", ())
    rng, shape = np.random.default_rng(list(path.name.encode())), (bands, side, side)
    pixels = (rng.uniform(low, high, shape) if dtype == "float32" else rng.integers(low, high, shape)).astype(dtype)
    options = {"driver": "GTiff", "count": bands, "width": side, "height": side, "dtype": dtype, "crs": "EPSG:32631"}
    options |= {"transform": from_origin(5e5, 5e6, gsd_m, gsd_m)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **(options | profile)) as file:
            file.write(pixels)
            for i, name in enumerate(names, start=1):
                file.set_band_description(i, name)


def data(*arguments: str | Path) -> Result:
    return runner.invoke(app, ["data", *map(str, arguments)])


def site_of(folder: Path, text: str) -> Path:
    path = folder / "site.toml"
    path.write_text(f'name = "here"\n[[sources]]\npaths = ["*.tif"]\n{text}\n')
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    folder = tmp_path / "mixed"
    write(folder / "S2A_MSIL1C_20200101T105441_N0209_R051_T31UFT_20200101T120000.tif", 13, "uint16", 100, 4000)
    write(folder / "S2A_MSIL1C_20200111T105441_N0209_R051_T31UFT_20200111T120000.tif", 13, "uint16", 100, 4000)
    write(folder / "flight_1.tif", 3, gsd_m=0.2)
    write(folder / "flight_2.tif", 3, gsd_m=0.2)
    for band in range(1, 8):
        write(folder / f"{LANDSAT}_SR_B{band}.TIF", 1, "uint16", 8000, 20000, gsd_m=30.0)
    write(folder / f"{LANDSAT}_QA_PIXEL.TIF", 1, "uint16", 21824, 21825, gsd_m=30.0)
    write(folder / f"{LANDSAT}_ST_B10.TIF", 1, "uint16", gsd_m=30.0)
    write(folder / "mystery.tif", 5, "uint16", gsd_m=3.7)
    (folder / "broken.tif").write_bytes(b"II*\0 not an image")
    (folder / "granule.ecw").write_bytes(b"")
    return folder


def test_draft_of_a_mixed_folder_loads_and_check_accepts_it(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "draft.toml"
    result = data("init", mixed, "--out", out, "--name", "alps")
    assert result.exit_code == 0, result.output
    site = load_site(out)
    assert site.name == "alps"
    found = {source.sensor: source for source in site.sources}
    assert set(found) == {"sentinel2-l1c", "rgb", "landsat8-l2"}
    assert [len(found[name].scenes) for name in ("sentinel2-l1c", "rgb", "landsat8-l2")] == [2, 2, 1]
    scene = found["landsat8-l2"].scenes[0]
    assert [layer.bands for layer in scene.layers] == [(i,) for i in range(7)]
    assert scene.mask is not None
    assert scene.mask.name.endswith("QA_PIXEL.TIF")
    assert found["rgb"].card.gsd_m == 0.2
    checked = data("check", out)
    assert checked.exit_code == 0, checked.output
    assert "5 chips of 64 x 64 pixels from 3 sources" in checked.stdout
    assert "warning" not in checked.stdout


def test_draft_says_what_is_missing_and_what_is_left_out(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "draft.toml"
    said = data("init", mixed, "--out", out).stdout
    text = out.read_text()
    for words in ("central wavelengths of these 5 bands", "broken.tif", "ST_B10", "1 .ecw"):
        assert words in said
        assert words in text.replace("\n#   ", " ")
    assert f"fedsense data check {out}" in said
    assert "the name is that of a Landsat Collection 2 product" in text.replace("\n#   ", " ")
    lines = [line.removeprefix("#").removeprefix(" ") for line in text.partition("Fill in each ?")[2].splitlines()[1:]]
    for i in range(5):
        lines[lines.index(f'    {{ name = "band_{i + 1}", wavelength_um = ? }},')] = (
            f'    {{ name = "band_{i + 1}", wavelength_um = 0.{i + 4} }},'
        )
    out.write_text("\n".join(['name = "x"', *lines[: lines.index("]") + 1]]))
    assert len(load_site(out).sources[0].card.bands) == 5, "filled in and uncommented, it is a source"


def test_draft_of_a_folder_elsewhere_has_absolute_globs(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "site.toml"
    out.parent.mkdir()
    assert data("init", mixed, "--out", out).exit_code == 0
    assert len(load_site(out).sources) == 3


def test_granules_take_each_band_at_its_finest(tmp_path: Path) -> None:
    product = tmp_path / "S2B_MSIL2A_20200107T105441_N0500_R051_T31UFT_20200107T120000.SAFE"
    for band, metres in [("B02", 10), ("B03", 10), ("B04", 10), ("B02", 20), ("B8A", 20), ("SCL", 20), ("TCI", 10)]:
        bands, dtype = {"TCI": (3, "uint8"), "SCL": (1, "uint8")}.get(band, (1, "uint16"))
        name = f"R{metres}m/T31UFT_20200107T105441_{band}_{metres}m.tif"
        write(product / name, bands, dtype, 4, 5 if band == "SCL" else 200, gsd_m=metres, side=1280 // metres)
    assert data("init", tmp_path, "--out", tmp_path / "site.toml").exit_code == 0
    (source,) = load_site(tmp_path / "site.toml").sources
    (scene,) = source.scenes
    assert source.card.names == ["blue", "green", "red", "nir_narrow"]
    assert sorted(layer.path.name[-11:] for layer in scene.layers) == [
        "B02_10m.tif",
        "B03_10m.tif",
        "B04_10m.tif",
        "B8A_20m.tif",
    ]
    assert scene.mask is not None


def test_radar_is_told_apart_by_its_numbers(tmp_path: Path) -> None:
    write(tmp_path / "S1A_IW_GRDH_1SDV_a.tif", 2, "uint16", 20, 600)
    write(tmp_path / "db" / "S1A_IW_GRDH_1SDV_b.tif", 2, "float32", -25, -2)
    result = data("init", tmp_path, "--out", tmp_path / "site.toml")
    assert sorted(source.sensor for source in load_site(tmp_path / "site.toml").sources) == [
        "sentinel1-grd",
        "sentinel1-grd-db",
    ]
    assert "--bands all" in result.stdout
    refused = data("check", tmp_path / "site.toml")
    assert refused.exit_code == 2
    assert "--bands all" in refused.stderr
    accepted = data("check", tmp_path / "site.toml", "--bands", "all")
    assert accepted.exit_code == 0, accepted.output


def test_masks_beside_whole_images_are_found_by_the_name_of_the_scene(tmp_path: Path) -> None:
    for scene in ("1", "2", "10"):
        write(tmp_path / "a" / f"area_{scene}.tif", 3)
    for scene in ("1", "10"):
        write(tmp_path / "a" / f"area_{scene}_SCL.tif", 1, low=4, high=6)
    write(tmp_path / "a" / "field_red.tif", 1)
    assert data("init", tmp_path / "a", "--out", tmp_path / "site.toml").exit_code == 0
    (source,) = load_site(tmp_path / "site.toml").sources
    masks = {scene.path.name: scene.mask.name if scene.mask else None for scene in source.scenes}
    assert masks == {"area_1.tif": "area_1_SCL.tif", "area_10.tif": "area_10_SCL.tif", "area_2.tif": None}


def test_folders_that_no_single_glob_describes_are_sources_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for number in range(MOST_LISTED):
        write(folder / "scans" / "deep" / f"page_{number}.tif", 3, side=8)
    for number in range(30):
        write(folder / "classes" / str(number) / "flight.tif", 3, side=8)
        write(folder / "classes" / str(number) / "grey.tif", 1, side=8)
    result = data("init", folder, "--out", tmp_path / "site.toml")
    assert "no pattern tells them" not in result.output
    site = load_site(tmp_path / "site.toml")
    found = {one.files[0].relative_to(folder).parts[0]: len(one.scenes) for one in site.sources}
    assert (len(site.sources), found) == (2, {"scans": MOST_LISTED, "classes": 30})


def test_init_never_overwrites(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "site.toml"
    out.write_text("precious")
    result = data("init", mixed, "--out", out)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "--out" in result.stderr
    assert out.read_text() == "precious"


@pytest.mark.parametrize(
    ("folder", "options", "words"),
    [("none", [], "is no folder"), ("empty", [], "no raster"), ("mixed", ["--name", "a b"], "Try 'a-b'")],
)
def test_wrong_input_of_init_ends_with_2_and_one_line(
    mixed: Path, tmp_path: Path, folder: str, options: list[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    result = data("init", tmp_path / folder, "--out", tmp_path / "site.toml", *options)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr
    assert not (tmp_path / "site.toml").exists()


@pytest.mark.parametrize(
    ("path", "look", "sensor"),
    [
        ("a.tif", {"bands": 13, "dtype": "uint16"}, "sentinel2-l1c"),
        ("a.tif", {"bands": 12, "dtype": "uint16", "gsd_m": 10.0}, "sentinel2-l2a"),
        ("a.tif", {"bands": 4, "dtype": "uint8"}, "aerial-rgbn"),
        ("a.tif", {"bands": 7, "dtype": "uint16"}, ""),
        ("a.tif", {"texts": ("red", "green", "blue"), "dtype": "uint16"}, ""),
        ("a.tif", {"texts": ("B2", "B3", "B4", "B8"), "dtype": "uint16", "gsd_m": 10.0}, "sentinel2-l2a"),
        ("a.tif", {"texts": ("SR_B2", "SR_B3", "SR_B4"), "dtype": "uint16", "gsd_m": 30.0}, "landsat8-l2"),
        ("landsat7/a.tif", {"texts": ("blue", "green", "red"), "dtype": "uint8"}, "landsat7-l1"),
        ("LE07_L1TP_016036_20020101_20200917_02_T1.tif", {"bands": 6, "dtype": "uint8"}, "landsat7-l1"),
        ("LC09_L2SP_016036_20220101_20220917_02_T1.tif", {"bands": 5, "dtype": "uint16"}, "landsat9-l2"),
    ],
)
def test_card_is_guessed_by_name_bands_and_type(path: str, look: dict[str, Any], sensor: str) -> None:
    texts = look.get("texts", ("",) * look.get("bands", 0))
    bands = len(texts)
    given = {"gsd_m": None, "width": 64, "height": 64, "is_rgb": False, "has_alpha": False} | look
    found = guess(path, Look(**(given | {"bands": bands, "texts": texts, "wavelengths_um": (None,) * bands})))
    assert found.sensor == sensor
    assert bool(found.missing) == (bands in (5, 7)), "what a name does not settle is left to the user"


def test_check_counts_chips_and_names_broken_files(tmp_path: Path) -> None:
    site = write_site(tmp_path, "alpha", 1)
    write_raster(tmp_path / "alpha" / "scene.tif", 1, side=160)
    (tmp_path / "alpha" / "broken.tif").write_bytes(b"II*\0 not an image")
    result = data("check", site)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].startswith(
        "usable: training will see 4 chips of 64 x 64 pixels from 1 source"
    )
    assert "with red, green, blue" in result.stdout
    assert "skipped" in result.stdout
    assert "broken.tif" in result.stdout


def test_training_finds_the_chips_that_check_has_cut(tmp_path: Path) -> None:
    site, state = write_site(tmp_path, "alpha", 1), tmp_path / "state"
    for bands in ("red,green,blue", "all"):
        assert data("check", site, "--state", state, "--chip-size", "48", "--bands", bands).exit_code == 0
        before = {path: path.stat().st_mtime_ns for path in state.rglob("*")}
        assert any(path.suffix == ".npy" for path in before)
        config = resolve({"data.chip_size": 48, "data.bands": bands})
        (chips,) = open_site(site, config, state / "alpha" / "chips")
        assert len(chips) == 1
        assert {path: path.stat().st_mtime_ns for path in state.rglob("*")} == before


def test_check_of_a_site_without_usable_imagery_ends_with_2(tmp_path: Path) -> None:
    result = data("check", write_site(tmp_path, "small", 1))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "small" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bands", "red,nir"], "has no band 'nir'"),
        (["--chip-size", "4"], "data.chip_size"),
        (["--bands", ""], "bands"),
    ],
)
def test_check_of_what_no_run_may_ask_ends_with_2(tmp_path: Path, options: list[str], words: str) -> None:
    result = data("check", write_site(tmp_path, "alpha", 1), *options)
    assert result.exit_code == 2
    assert words in result.stderr


def test_check_of_a_missing_file_ends_with_2(tmp_path: Path) -> None:
    result = data("check", tmp_path / "none.toml")
    assert result.exit_code == 2
    assert "none.toml" in result.stderr


def test_check_goes_on_with_a_source_of_which_nothing_is_usable(tmp_path: Path) -> None:
    write(tmp_path / "good.tif", 3)
    (tmp_path / "bad.png").write_bytes(b"nothing")
    site = site_of(tmp_path, 'sensor = "rgb"\ngsd_m = 10.0\n[[sources]]\npaths = ["*.png"]\nsensor = "aerial-rgb"')
    result = data("check", site)
    assert result.exit_code == 0, result.output
    bad = result.stdout.partition("source 2")[2]
    assert "bad.png" in bad
    assert "nothing of this source is usable" in " ".join(bad.split())
    assert "from 1 source," in bad


@pytest.mark.parametrize(
    ("pixels", "site", "words"),
    [
        (("uint16", 0, 250), 'sensor = "sentinel2-l1c"\nbands = ["red", "green", "blue"]', "8-bit values under a card"),
        (("uint16", 0, 4000), 'sensor = "aerial-rgb"\ngsd_m = 10.0', "16-bit values under a card"),
        (("float32", 0, 1), 'sensor = "sentinel2-l1c"\nbands = ["red", "green", "blue"]', "reflectance already"),
        (
            ("int16", 200, 4000),
            'sensor = "landsat5-l2"\nbands = ["red", "green", "blue"]\ngsd_m = 10.0',
            "Collection 2",
        ),
        (("uint16", 0, 40000), 'sensor = "sentinel2-l1c"\nbands = ["red", "green", "blue"]', "beyond what the card"),
        (("uint8", 0, 250), 'sensor = "aerial-rgb"', "set `gsd_m`"),
        (("uint8", 7, 8), 'sensor = "rgb"\ngsd_m = 10.0', "band red is constant: every pixel is 7"),
    ],
)
def test_check_says_in_words_what_contradicts_the_card(
    tmp_path: Path, pixels: tuple[str, int, int], site: str, words: str
) -> None:
    write(tmp_path / "a.tif", 3, *pixels)
    result = data("check", site_of(tmp_path, site))
    assert result.exit_code == 0, "a warning does not change the status"
    assert words in " ".join(result.stdout.split())
    assert "warning" in result.stdout.splitlines()[-1]


def test_check_finds_a_band_that_is_there_twice(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", 3)
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.write(file.read(1), 3)
    result = data("check", site_of(tmp_path, 'sensor = "rgb"\ngsd_m = 10.0'))
    assert "bands red, blue have exactly the same values" in result.stdout


def test_check_is_silent_where_nothing_is_wrong_and_plain_where_it_is_piped(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", 3)
    result = data("check", site_of(tmp_path, 'sensor = "rgb"\ngsd_m = 10.0'))
    assert "warning" not in result.stdout
    assert "\x1b" not in result.output
    assert result.stderr == "", "no progress bar in a pipe"
    assert max(map(len, result.stdout.splitlines()[1:-1])) <= 80


def png(path: Path) -> tuple[tuple[int, int], bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, driver="PNG") as file:
            return (file.width, file.height), file.read().tobytes()


def test_preview_is_a_picture_that_only_the_seed_changes(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", 3, side=320)
    site = site_of(tmp_path, 'sensor = "rgb"')
    pictures = []
    for name, seed in [("a.png", 0), ("b.png", 0), ("c.png", 1)]:
        result = data("preview", site, "--out", tmp_path / name, "--seed", str(seed), "--chips", "3")
        assert result.exit_code == 0, result.output
        assert result.stdout.strip() == str(tmp_path / name)
        pictures.append(png(tmp_path / name))
    assert pictures[0] == pictures[1] != pictures[2]
    width, height = pictures[0][0]
    assert 300 <= width <= 1500
    assert 100 <= height <= 600


def test_preview_shows_what_bands_there_are(tmp_path: Path) -> None:
    write(tmp_path / "s1.tif", 2, "uint16", 20, 600)
    write(tmp_path / "pan.tiff", 1)
    site = tmp_path / "site.toml"
    site.write_text(
        'name = "odd"\n[[sources]]\npaths = ["s1.tif"]\nsensor = "sentinel1-grd"\n[[sources]]\npaths = ["pan.tiff"]\n'
        '[sources.sensor]\ngsd_m = 10.0\nbands = [{ name = "pan", wavelength_um = 0.6 }]\n'
    )
    assert data("preview", site, "--out", tmp_path / "odd.png").exit_code == 0
    assert png(tmp_path / "odd.png")[0][1] > 200


@pytest.mark.parametrize("out", ["nowhere/a.png", "a.jpg"])
def test_preview_that_cannot_be_written_ends_with_2(tmp_path: Path, out: str) -> None:
    write(tmp_path / "a.tif", 3)
    result = data("preview", site_of(tmp_path, 'sensor = "rgb"'), "--out", tmp_path / out)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


def test_init_hints_at_files_that_hold_further_bands_of_the_same_scenes(tmp_path: Path) -> None:
    colours, edges = ("blue", "green", "red", "nir"), ("red_edge_1", "red_edge_2")
    for date in ("20230601", "20230701"):
        write(tmp_path / "s2" / f"S2_T31UFT_{date}_10m.tif", 4, "uint16", 100, 4000, side=128, names=colours)
        write(tmp_path / "s2" / f"S2_T31UFT_{date}_20m.tif", 2, "uint16", 100, 4000, gsd_m=20.0, names=edges)
    out = tmp_path / "site.toml"
    assert data("init", tmp_path / "s2", "--out", out).exit_code == 0
    text = " ".join(out.read_text().replace("#", " ").split())
    assert "further bands of the scenes of source 1" in text
    first, second = "s2/{scene}_10m.tif", "s2/{scene}_20m.tif"
    assert f'["{first}"]' in text
    assert f'["{second}"]' in text
    # As advised:
    also = f'[[sources.also]]\npaths = ["{second}"]\nbands = ["red_edge_1", "red_edge_2"]\n'
    own = f'paths = ["{first}"]\nsensor = "sentinel2-l2a"\nbands = ["blue", "green", "red", "nir"]\n'
    out.write_text(f'name = "here"\n[[sources]]\n{own}{also}')
    assert [len(scene.layers) for scene in load_site(out).sources[0].scenes] == [2, 2]
