"""Whatever lies in a folder, the draft is TOML, loads, and accounts for every file once."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from layouts import raster

from fedsense_core.data.opening import load_site
from fedsense_core.errors import SiteError
from fedsense_core.tools.onboarding.drafting import Draft, draft_site

FOLDERS = st.lists(
    st.sampled_from(["2020", "2021", "R10m", "R20m", "tile_1", "imgs [1]", "{scene}", "s1", "a*b", "B04", "masks"]),
    max_size=3,
)
STEMS = st.sampled_from(
    [
        *("B02", "B04", "SCL", "red", "x_red", "x_red_10m", "x_nir_20m", "VV", "t_VH", "t_dem", "T31UFT_B02"),
        *("T31UFT_B8A", "T31UFT_SCL", "day 1_red_edge_1", "q_QA_PIXEL", "q_SR_B4", "{band}", "ä_red", "a", "1", "2"),
    ]
)
KINDS = st.sampled_from([(1, "uint16", ".tif"), (1, "uint8", ".tif"), (3, "uint8", ".tif"), (3, "uint8", ".png")])
TREES = st.dictionaries(
    st.tuples(FOLDERS.map(tuple), STEMS), st.tuples(KINDS, st.sampled_from([10.0, 20.0, None])), min_size=1, max_size=24
)
Tree = dict[tuple[tuple[str, ...], str], tuple[tuple[int, str, str], float | None]]
BAND: tuple[tuple[int, str, str], float | None] = ((1, "uint16", ".tif"), 10.0)


def write(folder: Path, tree: Tree, made: Path) -> set[str]:
    """Write files as links to those in ``made``, which is faster."""
    names = set()
    for (folders, stem), ((bands, dtype, suffix), gsd_m) in tree.items():
        path = folder.joinpath(*folders, f"{stem}{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        like = made / f"{bands}-{dtype}-{gsd_m}{suffix}"
        if not like.exists():
            raster(like, np.full((bands, 16, 16), 7, dtype), None if suffix == ".png" else gsd_m)
        os.link(like, path)
        names.add(path.relative_to(folder).as_posix())
    return names


def uses(draft: Draft) -> list[str]:
    """Every file by its path, as often as the draft mentions it; two sources may have one mask."""
    found = [image.path for one in draft.grouping.groups for image in one.images]
    found += {path for one in draft.grouping.groups if one.mask for path in one.mask.paths}
    return found + [path for paths in draft.grouping.left_out.values() for path in paths]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@settings(max_examples=60, deadline=None)
@given(tree=TREES)
@example(tree={(("2020",), "x_red"): BAND, (("2020",), "x_nir"): BAND, (("2021",), "x_red"): BAND})
@example(tree={((), "x_red"): BAND, (("2020",), "x_red"): BAND, (("2020", "2020"), "x_nir_20m"): BAND})
@example(tree={(("R10m",), "x_red"): BAND, (("R10m",), "x_nir"): BAND, ((), "SCL"): BAND})
def test_every_draft_loads_and_accounts_for_each_file_once(tree: Tree, made: Path) -> None:
    with TemporaryDirectory(dir=made) as temporary:
        folder = Path(temporary) / "archive"
        names = write(folder, tree, made)
        try:
            draft = draft_site(folder, Path(temporary) / "site.toml", None, lambda done, total: None)
        except SiteError as error:
            assert "nothing to train on" in str(error)  # noqa: PT017
            return
        text = draft.path.read_text()
        tomllib.loads(text)
        assert sorted(uses(draft)) == sorted(names)
        complete = [entry for entry in draft.entries if not entry.guess.missing]
        if not complete:
            assert draft.fault == "no source is complete yet"
            return
        assert draft.fault == "", text
        site = load_site(draft.path)
        for entry, source in zip(complete, site.sources, strict=True):
            own = {(folder / image.path).resolve() for image in entry.group.images}
            found = {layer.path for scene in source.scenes for layer in scene.layers}
            assert own <= found, text
            assert len(source.scenes) >= entry.group.scenes, text
            masks = {(folder / path).resolve() for path in entry.group.mask.paths} if entry.group.mask else set()
            assert masks == {scene.mask for scene in source.scenes if scene.mask}, text
