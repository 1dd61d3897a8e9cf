from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
import rasterio
from stored_chips import pixels_of

import fedsense_core
from fedsense_core.data.chips.labelled import load_labelled
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.data.sites.locations import (
    SAMPLE_VARIABLE,
    sample_folder,
    sample_labelled,
    sample_public,
    sample_sites,
)
from fedsense_core.errors import SiteError
from fedsense_core.tools.sample.make_sample import LABELLED, MOSAICS

RGB = ("red", "green", "blue")
TASKS = sample_folder() / "tasks"
CHIPS = {
    "landsat7-saltlake": 130,
    "landsat8-parana": 160,
    "modis-global": 240,
    "neon-aerial": 200,
    "sentinel2-virginia": 120,
}


@pytest.fixture(scope="module")
def rasters() -> list[Path]:
    """Return those of the federation; examples of tasks are files of their own kinds."""
    return sorted(path for path in sample_folder().glob("**/*.tif") if TASKS not in path.parents)


def test_the_sample_is_complete_and_at_most_12_megabytes(rasters: list[Path]) -> None:
    made = {mosaic.path for mosaic in MOSAICS} | {f"{LABELLED.folder}/{split}.tif" for split, _ in LABELLED.collections}
    assert {path.relative_to(sample_folder()).as_posix() for path in rasters} == made
    assert sum(path.stat().st_size for path in rasters) <= 12_000_000


def test_every_raster_decodes_is_tiled_and_says_what_it_is(rasters: list[Path]) -> None:
    for path in rasters:
        with rasterio.open(path, driver="GTiff") as file:
            assert file.read().std() > 0
            assert set(file.block_shapes) == {(64, 64)}
            assert all(file.descriptions)
            tags = file.tags()
            assert "unrelated chips" in tags["TIFFTAG_IMAGEDESCRIPTION"]
            assert tags["SOURCE"] in tags["TIFFTAG_IMAGEDESCRIPTION"]
            assert tags["LICENCE"]
            assert path.with_suffix("").name.replace("-", "").isalnum()


def test_every_raster_has_its_line_of_attribution(rasters: list[Path]) -> None:
    text = (sample_folder() / "ATTRIBUTION.md").read_text()
    for path in rasters:
        assert f"`{path.relative_to(sample_folder()).as_posix()}`" in text


def test_every_file_of_a_tasks_example_is_small_real_and_has_its_line_of_attribution() -> None:
    text = (sample_folder() / "ATTRIBUTION.md").read_text()
    patterns = re.findall(r"`(tasks/[^`]*\.tif)`", text)
    examples = sorted(TASKS.glob("**/*.tif"))
    assert len(examples) >= 11
    for path in examples:
        name = path.relative_to(sample_folder()).as_posix()
        assert any(fnmatchcase(name, pattern) for pattern in patterns), name
        with rasterio.open(path, driver="GTiff") as file:
            assert file.read().std() > 0
    assert sum(path.stat().st_size for path in examples) <= 1_000_000


def test_five_institutions_read_only_their_own_folder() -> None:
    sites = [load_site(path) for path in sample_sites()]
    assert [site.name for site in sites] == sorted(CHIPS)
    for site in sites:
        folders = {file.parent for source in site.sources for file in source.files}
        assert folders == {sample_folder() / site.name}
        assert site.description


def test_institutions_differ_in_sensor_and_resolution() -> None:
    cards = [load_site(path).sources[0].card for path in sample_sites()]
    assert len({tuple(card.names) for card in cards}) >= 3
    assert sorted(card.gsd_m for card in cards) == [0.2, 10, 30, 30, 7400]


@pytest.mark.parametrize("path", [*sample_sites(), sample_public()], ids=lambda path: path.stem)
def test_every_chip_of_every_site_is_usable(path: Path) -> None:
    chips = open_chips(load_site(path), RGB, 64, None)
    assert chips.skipped == ()
    assert len(chips) == CHIPS.get(chips.name, 205)
    assert pixels_of(chips).std(axis=(2, 3)).mean(axis=1).min() > 0, "no empty chip"
    assert (chips.origin_std > 0).all()
    # No chip twice: a copy would leak between views and inflate the count.
    assert len({chip.tobytes() for chip in np.asarray(pixels_of(chips))}) == len(chips)


def test_all_bands_of_an_institution_can_be_read() -> None:
    for path in sample_sites():
        site = load_site(path)
        assert pixels_of(open_chips(site, site.common_bands, 64, None)).shape[1] == len(site.common_bands)


def test_the_labelled_set_has_ten_classes_in_both_splits_and_no_shared_block() -> None:
    task = load_labelled(sample_labelled(), RGB)
    assert len(task.classes) == 10
    assert (len(task.train), len(task.test)) == (963, 714)
    assert set(task.train.labels.tolist()) == set(task.test.labels.tolist()) == set(range(10))
    assert not set(task.train.groups.tolist()) & set(task.test.groups.tolist())
    assert len(task.test.groups.unique()) > 100


def test_the_sample_is_found_from_a_bundle_that_has_no_rasters(tmp_path: Path) -> None:
    package = Path(fedsense_core.__file__).parent
    shutil.copytree(
        package,
        tmp_path / "bundle" / "fedsense_core",
        ignore=shutil.ignore_patterns("*.tif", "*.toml", "*.csv", "*.md"),
    )
    program = (
        "import fedsense_core as f; from fedsense_core.data.sites.locations import sample_folder\n"
        "print(f.__file__, sample_folder())"
    )
    environment = {k: v for k, v in os.environ.items() if k not in (SAMPLE_VARIABLE, "PYTHONPATH")}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "bundle"), str(package.parent)])
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    imported, found = done.stdout.split()
    assert Path(imported).is_relative_to(tmp_path)
    assert Path(found) == sample_folder()


def test_the_variable_wins_and_a_wrong_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sample_folder()
    monkeypatch.setenv(SAMPLE_VARIABLE, str(tmp_path))
    with pytest.raises(SiteError, match=SAMPLE_VARIABLE):
        sample_folder()
    copy = tmp_path / "copy"
    shutil.copytree(real, copy)
    monkeypatch.setenv(SAMPLE_VARIABLE, str(copy))
    assert sample_folder() == copy
