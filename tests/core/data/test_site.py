from __future__ import annotations

from pathlib import Path

import pytest

from fedsense_core.data import SensorCard, load_site, shipped_card
from fedsense_core.data.cards import CARDS
from fedsense_core.errors import SiteError

SOURCE = '[[sources]]\npaths = ["*.tif"]\nsensor = "rgb"\n'


def load(tmp_path: Path, text: str) -> object:
    (tmp_path / "a.tif").touch()
    path = tmp_path / "site.toml"
    path.write_text(text)
    return load_site(path)


@pytest.mark.parametrize("name", sorted(CARDS))
def test_every_shipped_card_is_valid_and_names_red(name: str) -> None:
    card = shipped_card(name, "test")
    assert {"red", "green", "blue"} <= set(card.names)
    assert all(0.4 < band.wavelength_um < 2.5 for band in card.bands)


def test_red_is_longer_than_green_than_blue_on_every_card() -> None:
    for name in CARDS:
        waves = {band.name: band.wavelength_um for band in shipped_card(name, "test").bands}
        assert waves["red"] > waves["green"] > waves["blue"], name


def test_site_lists_sorted_files_of_its_own_folder_only(tmp_path: Path) -> None:
    for name in ("b.tif", "sub/c.tif", "other.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    site = load(tmp_path, f'name = "here"\n{SOURCE}'.replace("*.tif", "**/*.tif"))
    assert [f.name for f in site.sources[0].files] == ["a.tif", "b.tif", "c.tif"]  # type: ignore[attr-defined]


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
    card = load(tmp_path, text).sources[0].card  # type: ignore[attr-defined]
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
    assert (site.limits.min_valid, site.limits.max_chips) == (0.5, 10)  # type: ignore[attr-defined]


def test_a_folder_whose_name_begins_like_a_virtual_one_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "vsi").mkdir()
    (tmp_path / "vsi" / "a.tif").touch()
    assert load(tmp_path, f'name = "here"\n{SOURCE}'.replace("*.tif", f"{tmp_path}/vsi/*.tif"))


def test_a_missing_site_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"nowhere\.toml: cannot be read"):
        load_site(tmp_path / "nowhere.toml")


def test_an_unknown_band_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(SiteError, match=r"no band 'swir1'.*Did you mean 'swir_1'"):
        shipped_card("landsat8-l1", "test").positions(["red", "swir1"], "here")


def test_a_card_may_not_use_one_name_for_two_bands() -> None:
    with pytest.raises(ValueError, match="appears twice"):
        SensorCard.model_validate(
            {
                "gsd_m": 1.0,
                "bands": [{"name": "a", "wavelength_um": 0.5}, {"name": "b", "wavelength_um": 0.6, "code": "a"}],
            }
        )
