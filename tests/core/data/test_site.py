from __future__ import annotations

from pathlib import Path

import pytest

from fedsense_core.data.opening import load_site
from fedsense_core.data.sites.schema import DatasetRef, Site
from fedsense_core.errors import SiteError

SOURCE = '[[sources]]\npaths = ["*.tif"]\nsensor = "rgb"\n'
ALSO = '[[sources.also]]\npaths = ["{scene}_n.tif"]\nbands = ["nir"]\n'
MASK = '[sources.mask]\npaths = ["{scene}_m.tif"]\n'
DATASET = 'name = "a"\n[[sources]]\nsensor = "rgb"\ndataset = "torchgeo.datasets:EuroSAT"\n'


def load(tmp_path: Path, text: str) -> Site:
    (tmp_path / "a.tif").touch()
    path = tmp_path / "site.toml"
    path.write_text(text)
    return load_site(path)


def test_site_lists_sorted_files_of_its_own_folder_only(tmp_path: Path) -> None:
    for name in ("b.tif", "sub/c.tif", "other.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    site = load(tmp_path, f'name = "here"\n{SOURCE}'.replace("*.tif", "**/*.tif"))
    assert [f.name for f in site.sources[0].files] == ["a.tif", "b.tif", "c.tif"]


def test_inline_card_and_overrides_are_taken(tmp_path: Path) -> None:
    text = """
        name = "here"
        [[sources]]
        paths = ["*.tif"]
        gsd_m = 5
        nodata = 0
        [sources.sensor]
        gsd_m = 10
        bands = [{name = "nir", wavelength_um = 0.84}, {name = "red", wavelength_um = 0.66, code = "R"}]
    """
    card = load(tmp_path, text).sources[0].card
    assert (card.names, card.gsd_m, card.nodata) == (["nir", "red"], 5.0, 0.0)
    assert card.positions(["R", "nir"], "test") == (1, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'name = "a"\ncolour = 1\n{SOURCE}', ["unknown key", "'colour'"]),
        (f'name = "a"\ndescripton = "x"\n{SOURCE}', ["'descripton'", "Did you mean 'description'?"]),
        (f'name = "a"\n{SOURCE}gsdm = 3.0', ["sources[1].gsdm", "Did you mean 'gsd_m'?"]),
        (f'name = "a"\n{SOURCE}gsd_m = "ten"', ["sources[1].gsd_m", "'ten'"]),
        (f'name = "a"\n{SOURCE}gsd_m = -1', ["sources[1].gsd_m", "-1", "greater than 0"]),
        (f'name = "a"\n{SOURCE}scale = nan', ["sources[1].scale", "finite"]),
        (SOURCE, ["'name'", "missing"]),
        (f'name = "../up"\n{SOURCE}', ["name = '../up'"]),
        ('name = "a"\n[[sources]]\npaths = ["*.tif"]', ["sources[1].sensor", "missing"]),
        (f'name = "a"\n{SOURCE}'.replace('"rgb"', '"sentinel2-l2c"'), ["sources[1].sensor", "'sentinel2-l2c'", "Did"]),
        (f'name = "a"\n{SOURCE}bands = ["red", "gren"]', ["sources[1].bands", "'gren'", "Did you mean 'green'?"]),
        (f'name = "a"\n{SOURCE}bands = ["red", "red"]', ["'red' appears twice"]),
        (f'name = "a"\n{SOURCE}'.replace("*.tif", "*.tiff"), ["matches no file", "*.tiff"]),
        (f'name = "a"\n{SOURCE}'.replace("*.tif", "/vsicurl/http:/x/*.tif"), ["no plain path"]),
        (f'name = "a"\n{SOURCE}'.replace("*.tif", "zip://a.zip!b.tif"), ["no plain path"]),
        (f'name = "a"\n{SOURCE}'.replace("*.tif", ""), ["sources[1].paths"]),
        (f'name = "a"\n{SOURCE}{SOURCE}', ["a.tif", "two sources"]),
        (f'name = "a"\n{SOURCE}[limits]\nmin_vald = 0.5', ["limits.min_vald", "Did you mean 'min_valid'?"]),
        (f'name = "a"\n{SOURCE}[limits]\nmin_valid = 0.0', ["limits.min_valid = 0.0", "greater than 0"]),
        (f'name = "a"\n{SOURCE}[limits]\nmax_chips = "many"', ["limits.max_chips", "'many'"]),
        (
            f'name = "a"\n{SOURCE}{SOURCE}'.replace("*.tif", "b.tif", 1),
            ["sources[1].paths", "matches no file", "'b.tif'"],
        ),
        (f'name = "a"\n{SOURCE}'.replace("*", "{sceen}"), ["sources[1].paths[1]", "Did you mean 'scene'?"]),
        (f'name = "a"\n{SOURCE}lists = ["a.csv"]', ["sources[1]", "`paths` and `lists`", "a source for each"]),
        ('name = "a"\n[[sources]]\nsensor = "rgb"', ["sources[1]", "one of `paths`, `lists` and `dataset`", "none"]),
        (f'name = "a"\n{SOURCE}column = "href"', ["`column` does not go with `paths`"]),
        (f'name = "a"\n{SOURCE}args = {{}}', ["`args` does not go with `paths`"]),
        (DATASET + 'digests = "SUMS"', ["`digests` does not go with `dataset`"]),
        (DATASET.replace(":", "."), ["sources[1].dataset = 'torchgeo.datasets.EuroSAT'", "torchgeo.datasets:EuroSAT"]),
        (f'name = "a b!"\n{SOURCE}', ["name = 'a b!'", "letters, digits, dots and hyphens"]),
        (f'name = "a\\n"\n{SOURCE}', ["name = 'a\\n'", "letters, digits, dots and hyphens"]),
        (
            f'name = "a"\n{SOURCE}gsd_range_m = [30, 10]',
            ["sources[1]", "gsd_range_m = [30.0, 10.0]", "smaller one first"],
        ),
        (f'name = "a"\n{SOURCE}gsd_range_m = [30]', ["sources[1].gsd_range_m"]),
        (f'name = "a"\n{SOURCE}gsd_range_m = "10 m"', ["sources[1].gsd_range_m = '10 m'", "tuple"]),
        (f'name = "a"\n{SOURCE}[chips]\noverlap = 0.5\nstride = 32', ["chips", "`overlap` and `stride`", "keep one"]),
        (f'name = "a"\n{SOURCE}[chips]\noverlap = 1.0', ["chips.overlap = 1.0", "less than 1"]),
        (f'name = "a"\n{SOURCE}[chips]\nstride = 0', ["chips.stride = 0", "greater than or equal to 1"]),
        (f'name = "a"\n{SOURCE}[chips]\noverlp = 0.5', ["chips.overlp", "Did you mean 'overlap'?"]),
        (f'name = "a"\n{SOURCE}[limits]\ngsd_m = 1.0', ["unknown key 'limits.gsd_m'"]),
        (f'name = "a"\n{SOURCE}{MASK}drops = [1]', ["unknown key 'sources[1].mask.drops'", "Did you mean 'drop'?"]),
        (
            f'name = "a"\n{SOURCE}{MASK}drop = [1]\ngsd_m = 10.0',
            ["'sources[1].mask.gsd_m'", "table around", "[header]"],
        ),
        (f'name = "a"\n{SOURCE}{MASK}', ["sources[1].mask", "drops nothing", "sentinel2-scl"]),
        (
            f'name = "a"\n{SOURCE}{MASK}kind = "sentinel2-slc"',
            ["sources[1].mask.kind = 'sentinel2-slc'", "'sentinel2-scl'"],
        ),
        (
            f'name = "a"\n{SOURCE}{MASK}drop_bits = [64]',
            ["sources[1].mask.drop_bits[1] = 64", "less than or equal to 15"],
        ),
        (f'name = "a"\n{SOURCE}{MASK}drop = [1]', ["sources[1]", "every glob of `paths` needs {scene}"]),
        (
            f'name = "a"\n{SOURCE}{MASK}drop = [1]'.replace("{scene}_m", "*_m"),
            ["sources[1].mask", "'*_m.tif' needs {scene}"],
        ),
        (f'name = "a"\n{SOURCE}{ALSO}', ["sources[1]", "every glob of `paths` needs {scene}"]),
        (f'name = "a"\n{SOURCE}{ALSO}band = []', ["'sources[1].also[1].band'", "Did you mean 'bands'?"]),
        (f'name = "a"\n{SOURCE}{ALSO}column = "b"', ["sources[1].also[1]", "either `paths` or", "`column`"]),
        (
            f'name = "a"\n{SOURCE}{ALSO}'.replace("*", "{scene}").replace('paths = ["{scene}_n.tif"]', 'column = "b"'),
            ["sources[1]", "`also` and `mask`", "with `paths`"],
        ),
        (f'name = "a"\n{SOURCE}[sources.sensr]', ["'sources[1].sensr'", "Did you mean 'sensor'?"]),
        (
            f'name = "a"\n{SOURCE}'.replace('"rgb"', '{gsd_m = 1.0, bands = [{nam = "a"}]}'),
            ["'sources[1].sensor.bands[1].nam'", "Did you mean 'name'?"],
        ),
        ("name = ", ["not valid TOML"]),
        ('name = "a"\nsources = []', ["sources"]),
    ],
)
def test_a_wrong_site_file_is_answered_with_file_key_and_remedy(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(SiteError) as error:
        load(tmp_path, text)
    assert str(tmp_path / "site.toml") in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_limits_of_the_site_file_are_taken(tmp_path: Path) -> None:
    site = load(tmp_path, f'name = "here"\n{SOURCE}[limits]\nmin_valid = 0.5\nmax_chips = 10')
    assert (site.limits.min_valid, site.limits.max_chips) == (0.5, 10)


def test_a_folder_whose_name_begins_like_a_virtual_one_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "vsi").mkdir()
    (tmp_path / "vsi" / "a.tif").touch()
    assert load(tmp_path, f'name = "here"\n{SOURCE}'.replace("*.tif", f"{tmp_path}/vsi/*.tif"))


def test_a_missing_site_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"nowhere\.toml: cannot be read"):
        load_site(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("text", "stride"), [("overlap = 0.5", 32), ("overlap = 0.0", 64), ("stride = 40", 40), ("", 64)]
)
def test_chips_lie_as_the_site_file_says(tmp_path: Path, text: str, stride: int) -> None:
    assert load(tmp_path, f'name = "here"\n{SOURCE}[chips]\n{text}').grid.stride(64) == stride


def test_statistics_stay_unless_the_site_file_lets_them_go(tmp_path: Path) -> None:
    assert not load(tmp_path, f'name = "here"\n{SOURCE}').share_statistics
    assert load(tmp_path, f'name = "here"\nshare_statistics = true\n{SOURCE}').share_statistics


def test_a_radar_card_in_place_is_taken(tmp_path: Path) -> None:
    text = """
        name = "here"
        [[sources]]
        paths = ["*.tif"]
        [sources.sensor]
        kind = "sar"
        gsd_m = 40
        decibels = "power"
        expected = [-50, 10]
        bands = [{name = "HH", polarisation = "HH"}, {name = "HV", polarisation = "HV"}]
    """
    source = load(tmp_path, text).sources[0]
    assert (source.sensor, source.card.kind, source.card.decibels) == ("custom", "sar", "power")
    assert source.card.expected == (-50.0, 10.0)
    assert source.baseline_offset is None


def test_what_the_reader_needs_is_passed_on(tmp_path: Path) -> None:
    source = SOURCE.replace("rgb", "sentinel2-l2a") + "gsd_range_m = [5, 20.5]"
    loaded = load(tmp_path, f'name = "here"\n{source}').sources[0]
    assert (loaded.sensor, loaded.baseline_offset, loaded.gsd_range_m) == ("sentinel2-l2a", 1000.0, (5.0, 20.5))
    assert (loaded.mask, loaded.digests, loaded.dataset) == (None, None, None)


def test_a_dataset_is_named_and_not_imported(tmp_path: Path) -> None:
    text = DATASET.replace("torchgeo.", "there_is_no_such_package.") + 'args = {root = "data", split = "train"}'
    source = load(tmp_path, text).sources[0]
    args = {"root": str(tmp_path / "data"), "split": "train"}
    assert source.dataset == DatasetRef("there_is_no_such_package.datasets:EuroSAT", args)
    assert source.scenes == ()


def test_pictures_are_scenes_in_the_folders_of_their_classes(tmp_path: Path) -> None:
    for name in ("forest/1.png", "forest/2.jpg", "river/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    source = load(tmp_path, f'name = "here"\n{SOURCE}'.replace('"*.tif"', '"*/*.png", "*/*.jpg"')).sources[0]
    assert [scene.path.parent.name for scene in source.scenes] == ["forest", "forest", "river"]
