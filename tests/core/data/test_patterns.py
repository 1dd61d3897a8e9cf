from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fedsense_core.data.sites.patterns import Match, Pattern, band_labels, find_files
from fedsense_core.data.sites.sensors import SensorCard, shipped_card
from fedsense_core.errors import SiteError

CARD = shipped_card("sentinel2-l2a", "test")
LABELS = band_labels(CARD, range(len(CARD.bands)), "test")
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
BANDS = st.sampled_from(range(len(CARD.bands)))
CASES = st.sampled_from([str.lower, str.upper, str])
FOLDERS = ["{scene}/{band}.tif", "**/{scene}/*_{band}_10m.tif", "{scene}/{scene}_{band}.tif"]


def written(glob: str, scene: str, label: str) -> str:
    return glob.replace("**", "some/where").replace("*", "any").format(scene=scene, band=label)


@pytest.mark.parametrize("glob", FOLDERS)
@given(scene=NAMES, band=BANDS, case=CASES)
@example(scene="a_red_edge", band=0, case=str)
@example(scene="{band}", band=3, case=str.lower)
@example(scene="a\nb", band=3, case=str.lower)
def test_scene_and_band_come_back_from_folders(glob: str, scene: str, band: int, case: object) -> None:
    for label in (CARD.bands[band].name, CARD.bands[band].code):
        assert Pattern(glob).match(written(glob, scene, case(label)), LABELS) == Match(scene, band)  # type: ignore[operator]


@given(scene=NAMES, band=BANDS)
@example(scene="LC08_L2SP_192028_20200101", band=2)
def test_scene_and_band_come_back_from_one_name(scene: str, band: int) -> None:
    name = f"{scene}_{CARD.bands[band].name}.tif"
    # "x_nir" + "narrow" and "x" + "nir_narrow" are the same file: the longer band is taken.
    assume(not any(name.lower().endswith(f"_{label}.tif") and LABELS[label] != band for label in LABELS))
    assert Pattern("{scene}_{band}.tif").match(name, LABELS) == Match(scene, band)


@pytest.mark.parametrize(
    ("glob", "path", "scene"),
    [
        ("{scene}.tif", "a.tif", "a"),
        ("{scene}.tif", "b/a.tif", None),
        ("*/{scene}.tif", "b/a.tif", "a"),
        ("**/{scene}.tif", "a.tif", "a"),
        ("**/{scene}.tif", "x/y/a.tif", "a"),
        ("{scene}_*.tif", "a_2020_x.tif", "a_2020"),
        ("{scene}_v?.tif", "a_v2.tif", "a"),
        ("{scene}_v[0-9].tif", "a_v2.tif", "a"),
        ("{scene}_v[!0-9].tif", "a_v2.tif", None),
        ("{scene}_v[!0-9].tif", "a_v/.tif", None),
        ("[{]x}_{scene}.tif", "{x}_a.tif", "a"),
        ("{scene}+(1).tif", "a+(1).tif", "a"),
        ("{scene}/{scene}.tif", "a/a.tif", "a"),
        ("{scene}/{scene}.tif", "a/b.tif", None),
        ("{scene}.tif", "a.TIF", None),
        ("{scene:**}/x.tif", "a/b/x.tif", "a/b"),
        ("{scene:**}/x.tif", "a/x.tif", "a"),
        ("{scene:**}/x.tif", "x.tif", None),
        ("in/{scene:**}/10m/*_x.tif", "in/a/b/10m/q_x.tif", "a/b"),
        ("in/{scene:**}_x.tif", "in/2020/a_x.tif", "2020/a"),
        ("in/{scene:**}_x.tif", "in/a_x.tif", "a"),
    ],
)
def test_globs_mean_what_shells_mean(glob: str, path: str, scene: str | None) -> None:
    match = Pattern(glob).match(path, {})
    assert (match.scene if match else None) == scene


def test_a_band_that_the_card_lacks_is_no_match() -> None:
    assert Pattern("{scene}_{band}.TIF").match("LC08_QA_PIXEL.TIF", LABELS) is None


@pytest.mark.parametrize("names", [["nir", "far_nir"], ["far_nir", "nir"]])
def test_the_longest_band_is_meant(names: list[str]) -> None:
    labels = {name: i for i, name in enumerate(names)}
    assert Pattern("{scene}_{band}.tif").match("a_far_nir.tif", labels) == Match("a", labels["far_nir"])
    assert Pattern("{scene}_{band}.tif").match("far_nir.tif", labels) == Match("far", labels["nir"])


@pytest.mark.parametrize(
    ("glob", "words"),
    [
        ("{sceen}.tif", r"unknown placeholder \{sceen\}. Did you mean 'scene'"),
        ("{}.tif", "unknown placeholder"),
        ("*_{band}.tif", r"has \{band\} but no \{scene\}"),
        ("{band:**}/{scene}.tif", r"unknown placeholder \{band:\*\*\}"),
        ("{scene:*}.tif", r"unknown placeholder \{scene:\*\}"),
        ("a_{scene:**}.tif", "must follow a slash"),
        ("{scene}[z-a].tif", "is no glob"),
    ],
)
def test_a_wrong_pattern_is_explained(glob: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Pattern(glob)


def test_bands_that_differ_in_case_only_are_refused() -> None:
    bands = [{"name": "A", "wavelength_um": 0.5}, {"name": "a", "wavelength_um": 0.6}]
    with pytest.raises(SiteError, match="here: the card has two bands"):
        band_labels(SensorCard.model_validate({"gsd_m": 1.0, "bands": bands}), [0, 1], "here")


def test_files_are_found_from_the_folder_upwards_and_absolutely(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "a_B02.tif"
    file.touch()
    (tmp_path / "data" / "a_QA.tif").touch()
    for glob in (
        "../data/{scene}_{band}.tif",
        f"{tmp_path}/data/{{scene}}_{{band}}.tif",
        "./../data/{scene}_{band}.tif",
    ):
        found = list(find_files(tmp_path / "site", Pattern(glob), LABELS, "test"))
        assert found == [(file.resolve(), Match("a", CARD.position("blue")))], glob


@pytest.mark.parametrize("glob", ["{scene:**}/{band}.tif", "{scene:**}_{band}.tif"])
@given(folders=st.lists(NAMES, min_size=1, max_size=3), band=BANDS, case=CASES)
def test_scenes_over_folders_come_back(glob: str, folders: list[str], band: int, case: object) -> None:
    scene, label = "/".join(folders), case(CARD.bands[band].code)  # type: ignore[operator]
    path = glob.replace("{band}", label).replace("{scene:**}", scene)
    assert Pattern(glob).match(path, LABELS) == Match(scene, band)


def test_scenes_over_folders_are_found_on_disk(tmp_path: Path) -> None:
    for folder in ("a/1", "a/2", "b/1"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "B02.tif").touch()
        (tmp_path / folder / "x_B02.tif").touch()
    for glob, scenes in [
        ("{scene:**}/{band}.tif", {"a/1", "a/2", "b/1"}),
        ("{scene:**}_{band}.tif", {"a/1/x", "a/2/x", "b/1/x"}),
        ("a/{scene:**}/{band}.tif", {"1", "2"}),
    ]:
        found = {match.scene for _, match in find_files(tmp_path, Pattern(glob), LABELS, "test")}
        assert found == scenes, glob


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("*.tif", {"a.tif"}),
        ("**/*.tif", {"a.tif"}),
        ("{scene}.tif", {"a.tif"}),
        (".*.tif", {"._a.tif"}),
        (".old/*.tif", {"b.tif"}),
        (".old/.?b.tif", {"._b.tif"}),
    ],
)
def test_hidden_names_are_found_only_where_the_glob_writes_their_dot(
    tmp_path: Path, glob: str, names: set[str]
) -> None:
    (tmp_path / ".old").mkdir()
    for name in ("a.tif", "._a.tif", ".old/b.tif", ".old/._b.tif"):
        (tmp_path / name).touch()
    for folder in (tmp_path, Path("/")):
        whole = glob if folder == tmp_path else f"{tmp_path}/{glob}"
        assert {path.name for path, _ in find_files(tmp_path, Pattern(whole), {}, "test")} == names
