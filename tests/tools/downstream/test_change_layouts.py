"""LEVIR-CD and OSCD folders, made of pieces of real imagery, are read as they are; damaged ones are
named."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from labelled_toys import write_image
from rasterio.errors import NotGeoreferencedWarning

from fedsense_core.data.sites.locations import sample_folder
from fedsense_core.errors import SiteError
from fedsense_core.tools.downstream.change_layouts import OSCD
from fedsense_core.tools.downstream.reading import Described
from fedsense_core.tools.downstream.samples import IGNORED, TaskData
from fedsense_core.tools.downstream.tasks import load_task, shipped_example

Array = np.ndarray[Any, Any]
CITIES = {"train": ("paris", "rennes"), "test": ("milano",)}
BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture(scope="module")
def scene() -> Array:
    """Return 4 bands of 100 x 300 real pixels of Sentinel-2."""
    with warnings.catch_warnings(), rasterio.open(sample_folder() / "sentinel2-virginia" / "eastern-shore.tif") as file:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        values: Array = file.read()[:, :100, :300]
        return values


def load(folder: Path, described: Described | None = None) -> TaskData[Any]:
    return load_task("change", folder, described or Described())


@pytest.fixture
def levir(tmp_path: Path, scene: Array) -> Path:
    rgb = (scene[:3] // 64).clip(0, 255).astype(np.uint8)
    for part in ("train", "val", "test"):
        truth = np.zeros((1, 100, 300), np.uint8)
        truth[:, 20:40, 250:] = 255
        write_image(tmp_path / part / "A" / "x.png", rgb)
        write_image(tmp_path / part / "B" / "x.png", rgb[:, ::-1])
        write_image(tmp_path / part / "label" / "x.png", truth)
    return tmp_path


@pytest.fixture
def oscd(tmp_path: Path, scene: Array) -> Path:
    for part, cities in CITIES.items():
        images, labels = tmp_path / f"{OSCD}Images", tmp_path / f"{OSCD}{part.capitalize()} Labels"
        images.mkdir(exist_ok=True)
        (images / f"{part}.txt").write_text(",".join(cities) + "\n")
        for city in cities:
            for number, values in enumerate((scene, scene + 7), start=1):
                for code, band in zip(BANDS, values, strict=True):
                    write_image(images / city / f"imgs_{number}_rect" / f"{code}.tif", band[None, :70, :80])
            truth = np.ones((1, 70, 80), np.uint8)
            truth[:, :10, 30:] = 2
            write_image(labels / city / "cm" / f"{city}-cm.tif", truth)
            write_image(labels / city / "cm" / "cm.png", np.where(truth == 2, 255, 0).astype(np.uint8))
    return tmp_path


def test_levir_is_read_in_blocks_that_fit_together(levir: Path, scene: Array) -> None:
    data = load(levir)
    rgb = (scene[:3] // 64).clip(0, 255).astype(np.uint8)
    assert data.bands == ("red", "green", "blue")
    assert len(data.test) == 2 * 5
    assert len({sample.group for sample in data.test}) == 10, "blocks of one image are groups of their own"
    upper = data.test[:5]
    assert np.array_equal(np.concatenate([one.image() for one in upper], 2), rgb[:, :50])
    assert np.array_equal(np.concatenate([one.after() for one in upper if one.after], 2), rgb[:, ::-1][:, :50])
    truth = np.concatenate([one.target() for one in upper], 1)
    assert truth.dtype == np.int64
    assert truth[20:40, 250:].all()
    assert truth.sum() == 20 * 50


def test_images_of_many_places_are_groups(levir: Path) -> None:
    for kind in ("A", "B", "label"):
        for number in range(7):
            (levir / "test" / kind / f"y{number}.png").write_bytes((levir / "test" / kind / "x.png").read_bytes())
    data = load(levir)
    assert len({sample.group for sample in data.test}) == 8
    assert len(data.test) == 8 * 2


def test_without_a_test_part_the_validation_part_is_scored(levir: Path) -> None:
    (levir / "test").rename(levir / "unused")
    assert load(levir).test[0].name.startswith("val/x")


def test_pixels_of_unknown_truth_are_ignored(levir: Path) -> None:
    truth = np.full((1, 100, 300), 128, np.uint8)
    truth[:, :5] = 1
    write_image(levir / "test" / "label" / "x.png", truth)
    masks = [sample.target() for sample in load(levir).test]
    assert set(np.unique(masks)) == {1, IGNORED}


def test_oscd_is_read_by_city_and_band(oscd: Path, scene: Array) -> None:
    data = load(oscd)
    assert data.bands == ("blue", "green", "red", "nir")
    assert {sample.name.split()[0] for sample in data.train} == {"paris", "rennes"}
    first = data.test[0]
    assert first.after is not None
    height, width = first.target().shape
    assert np.array_equal(first.image(), scene[:, :height, :width])
    assert np.array_equal(first.after(), first.image() + 7)
    assert first.target()[:10, 30:].all()
    assert first.target().sum() == 10 * (width - 30)
    by_file = [sample.target() for sample in data.test]
    (oscd / f"{OSCD}Test Labels" / "milano" / "cm" / "milano-cm.tif").unlink()
    assert all(np.array_equal(a, b.target()) for a, b in zip(by_file, load(oscd).test, strict=True))


def test_oscd_gives_the_bands_that_are_asked_for(oscd: Path, scene: Array) -> None:
    data = load(oscd, Described(bands=("red", "blue")))
    assert data.bands == ("red", "blue")
    image = data.test[0].image()
    assert np.array_equal(image, scene[[2, 0], : image.shape[1], : image.shape[2]])


def test_the_shipped_fields_say_that_no_human_marked_them() -> None:
    folder = shipped_example("change")
    data = load(folder)
    assert data.note.startswith("PROXY labels")
    assert len({sample.group for sample in data.test}) >= 8
    known = np.concatenate([sample.target().ravel() for sample in data.test])
    share = (known == 1).sum() / (known != IGNORED).sum()
    assert f"F1 of {2 * share / (1 + share):.2f}" in data.note
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 500_000


def other_size(folder: Path) -> None:
    write_image(folder / "train" / "B" / "x.png", np.zeros((3, 100, 299), np.uint8))


def no_label(folder: Path) -> None:
    (folder / "train" / "label" / "x.png").unlink()


def empty(folder: Path) -> None:
    (folder / "train" / "A").rename(folder / "train" / "before")
    (folder / "test" / "A").rename(folder / "test" / "before")
    (folder / "val" / "A").rename(folder / "val" / "before")


def no_test(folder: Path) -> None:
    for part in ("test", "val"):
        (folder / part).rename(folder / f"no-{part}")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (other_size, r"B.x\.png: has 299 x 100 pixels, x\.png has 300 x 100"),
        (no_label, r"there is no label/x\.png beside"),
        (empty, "Looked for: LEVIR-CD.*OSCD"),
        (no_test, "1 training and 0 test pairs"),
    ],
)
def test_a_folder_that_lacks_something_is_told_what(levir: Path, damage: Any, words: str) -> None:
    damage(levir)
    with pytest.raises(SiteError, match=words):
        load(levir)


def test_a_mask_with_other_numbers_is_named(levir: Path) -> None:
    write_image(levir / "test" / "label" / "x.png", np.full((1, 100, 300), 7, np.uint8))
    with pytest.raises(SiteError, match=r"label.x\.png: .*0 \(unchanged\).* and this one 7"):
        load(levir).test[0].target()


def test_cities_must_be_plain_names_and_have_every_band(oscd: Path) -> None:
    images = oscd / f"{OSCD}Images"
    (images / "rennes" / "imgs_2_rect" / "B08.tif").unlink()
    with pytest.raises(SiteError, match=r"rennes.imgs_2_rect: has no band B08"):
        load(oscd)
    (images / "train.txt").write_text("paris,../../secret\n")
    with pytest.raises(SiteError, match=r"train\.txt, line 1: '\.\./\.\./secret'"):
        load(oscd)
