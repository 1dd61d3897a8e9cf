"""Folders as users have them: found, split as they say, read safely, and refused with what was
looked for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from labelled_toys import real_chips, write_image

from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.errors import SiteError
from fedsense_core.tools.downstream import segmentation_layouts
from fedsense_core.tools.downstream.names import TaskName
from fedsense_core.tools.downstream.reading import Described
from fedsense_core.tools.downstream.segmentation_layouts import POTSDAM_TEST
from fedsense_core.tools.downstream.tasks import load_task, shipped_example

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
POTSDAM_COLOURS = [[255, 255, 255], [0, 0, 255], [0, 255, 255], [0, 255, 0], [255, 255, 0], [255, 0, 0]]


def write_scenes(folder: Path, suffix: str = ".jpg", each: int = 4, inside: str = "") -> Path:
    """Write NWPU-RESISC45's layout: a folder a class, images called CLASS_NUMBER."""
    chips = real_chips(2 * each)
    for i, chip in enumerate(chips):
        label = ("airport", "beach")[i % 2]
        write_image(folder / inside / label / f"{label}_{i // 2 + 1:03}{suffix}", chip)
    return folder


def write_fields(folder: Path, names: list[str], inside: str = "") -> Path:
    for i, (name, chip) in enumerate(zip(names, real_chips(len(names)), strict=True)):
        write_image(folder / "images" / inside / f"{name}.tif", chip)
        mask = np.full((1, 32, 32), i % 2, np.uint8)
        mask[:, 0] = 255
        write_image(folder / "masks" / inside / f"{name}.png", mask)
    return folder


def everything(task: TaskName, folder: Path) -> None:
    """Read every image and every truth of a folder."""
    data = load_task(task, folder)
    for sample in (*data.train, *data.test):
        sample.image()
        sample.target()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_a_folder_a_class_is_halved_by_class_and_says_so(tmp_path: Path, suffix: str) -> None:
    data = load_task("classification", write_scenes(tmp_path / "nwpu", suffix))
    assert data.name == "nwpu"
    assert data.classes == ("airport", "beach")
    assert data.bands == ("red", "green", "blue")
    for part in (data.train, data.test):
        assert Counter(sample.target() for sample in part) == {0: 2, 1: 2}
    assert "random half of each class trains" in data.note
    again = load_task("classification", tmp_path / "nwpu")
    assert [sample.name for sample in data.train] == [sample.name for sample in again.train]
    if suffix != ".jpg":
        read = {sample.name: sample.image() for sample in (*data.train, *data.test)}
        assert all(np.array_equal(read[f"airport/airport_{i + 1:03}{suffix}"], real_chips(8)[2 * i]) for i in range(4))


def test_split_lists_decide_and_what_they_leave_out_stays_out(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    (tmp_path / "resisc45-train.txt").write_text("airport_001.jpg\nbeach/beach_001.jpg\n")
    (tmp_path / "resisc45-test.txt").write_text("airport_002\nbeach_003.jpg\n")
    data = load_task("classification", tmp_path)
    assert [sample.name for sample in data.train] == ["airport/airport_001.jpg", "beach/beach_001.jpg"]
    assert [sample.name for sample in data.test] == ["airport/airport_002.jpg", "beach/beach_003.jpg"]
    assert data.note == ""
    (tmp_path / "resisc45-test.txt").write_text("airport_001.jpg\n")
    with pytest.raises(SiteError, match="'airport_001' stands in both lists"):
        load_task("classification", tmp_path)
    (tmp_path / "resisc45-test.txt").write_text("airport_099.jpg\n")
    with pytest.raises(SiteError, match="1 of the 3 images that the lists name are not there"):
        load_task("classification", tmp_path)
    (tmp_path / "resisc45-test.txt").unlink()
    with pytest.raises(SiteError, match="exactly one list of test images"):
        load_task("classification", tmp_path)


def test_files_of_two_classes_may_have_one_name(tmp_path: Path) -> None:
    for i, chip in enumerate(real_chips(4)):
        write_image(tmp_path / ("river", "forest")[i % 2] / f"{i // 2}.png", chip)
    (tmp_path / "train.txt").write_text("river/0.png\nforest/1.png\n")
    (tmp_path / "test.txt").write_text("mine/forest/0.png\nriver\\1\n")
    data = load_task("classification", tmp_path)
    assert [sample.name for sample in data.train] == ["forest/1.png", "river/0.png"]
    assert [sample.name for sample in data.test] == ["forest/0.png", "river/1.png"]
    (tmp_path / "test.txt").write_text("river/1.png\n")
    assert [sample.name for sample in load_task("classification", tmp_path).test] == ["river/1.png"]


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_statistics_are_those_of_the_training_part_alone(tmp_path: Path, task: TaskName) -> None:
    if task == "classification":
        write_scenes(tmp_path, ".png")
    else:
        write_fields(tmp_path, ["one", "two", "three", "four"])
    data = load_task(task, tmp_path)
    pixels_NCHW = np.stack([sample.image() for sample in data.train]).astype(float)
    assert data.mean.numpy() == pytest.approx(pixels_NCHW.mean((0, 2, 3)), rel=1e-6)
    assert data.std.numpy() == pytest.approx(pixels_NCHW.std((0, 2, 3)), rel=1e-6)


def test_split_folders_decide(tmp_path: Path) -> None:
    write_scenes(tmp_path, inside="train")
    with pytest.raises(SiteError, match="none called test/"):
        load_task("classification", tmp_path)
    write_scenes(tmp_path, each=1, inside="test")
    data = load_task("classification", tmp_path)
    assert (len(data.train), len(data.test)) == (8, 2)


def test_more_than_three_bands_need_a_sensor_card(tmp_path: Path) -> None:
    for i, chip in enumerate(real_chips(4)):
        write_image(tmp_path / ("river", "forest")[i % 2] / f"{i}.tif", np.tile(chip, (5, 1, 1))[:13])
    with pytest.raises(SiteError, match=r"holds 13 bands and does not say which.*--sensor"):
        load_task("classification", tmp_path)
    data = load_task("classification", tmp_path, Described(sensor="sentinel2-l1c"))
    assert len(data.bands) == 13
    (tmp_path / "task.toml").write_text('name = "eurosat"\nnote = "by hand"\nsensor = "sentinel2-l1c"\n')
    data = load_task("classification", tmp_path)
    assert (data.name, len(data.bands)) == ("eurosat", 13)
    assert data.note.startswith("by hand; ")
    picked = data.only(("red", "blue"))
    assert np.array_equal(picked.train[0].image(), data.train[0].image()[[3, 1]])
    assert picked.mean.tolist() == data.mean[[3, 1]].tolist()


def test_bands_can_be_named_in_the_files_order(tmp_path: Path) -> None:
    for i, chip in enumerate(real_chips(4)):
        write_image(tmp_path / ("river", "forest")[i % 2] / f"{i}.tif", chip)
    described = Described(sensor="sentinel2-l2a", bands=("nir", "red", "green"))
    assert load_task("classification", tmp_path, described).bands == ("nir", "red", "green")


def test_an_image_of_other_bands_is_named_with_what_to_do(tmp_path: Path) -> None:
    write_scenes(tmp_path, ".png")
    write_image(tmp_path / "beach" / "beach_002.png", real_chips(1)[0][:1])
    with pytest.raises(
        SiteError, match=r"beach_002\.png: holds 1 band, but .* red, green, blue\. Convert the file.*--sensor"
    ):
        everything("classification", tmp_path)


def test_transparency_is_no_band_of_a_png_and_asked_about_elsewhere(tmp_path: Path) -> None:
    for i, chip in enumerate(real_chips(4)):
        clear = np.concatenate([chip, np.full_like(chip[:1], 255)])
        write_image(tmp_path / "png" / "ab"[i % 2] / f"{i}.png", clear)
        write_image(tmp_path / "tif" / "ab"[i % 2] / f"{i}.tif", clear, photometric="RGB", alpha="yes")
    png = load_task("classification", tmp_path / "png")
    with pytest.raises(SiteError, match=r"holds 4 bands and does not say which.* transparency, --sensor rgb"):
        load_task("classification", tmp_path / "tif")
    tif = load_task("classification", tmp_path / "tif", Described(sensor="rgb"))
    for data in (png, tif):
        assert data.train[0].image().shape == (3, 32, 32)
    assert np.array_equal(png.train[0].image(), tif.train[0].image())


def test_every_shipped_example_whose_labels_no_person_made_says_so() -> None:
    notes = {task: load_task(task, shipped_example(task)).note for task in ("classification", "change")}
    assert "not of people" in notes["classification"]
    assert "PROXY" in notes["change"]


def test_a_labelled_set_says_itself_what_its_files_hold() -> None:
    with pytest.raises(SiteError, match=r"labelled\.toml: says what the files hold; leave --sensor"):
        load_task("classification", shipped_example("classification"), Described(sensor="rgb"))


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_another_folder_is_refused_with_what_was_looked_for(tmp_path: Path, task: TaskName) -> None:
    with pytest.raises(SiteError, match="Looked for: "):
        load_task(task, tmp_path)
    with pytest.raises(SiteError, match="Looked for: "):
        load_task(task, tmp_path / "nowhere")


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    write_scenes(tmp_path, ".tif")
    victim = tmp_path / "beach" / "beach_002.tif"
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(SiteError, match=r"beach_002\.tif"):
        everything("classification", tmp_path)


def test_images_with_masks_are_halved_or_split_by_folder(tmp_path: Path) -> None:
    halves = load_task("segmentation", write_fields(tmp_path / "a", ["one", "two", "three", "four"]))
    assert (len(halves.train), len(halves.test)) == (2, 2)
    assert "random half of the images trains" in halves.note
    assert halves.classes == ("class 0", "class 1")
    for part in ("train", "test"):
        write_fields(tmp_path / "b", ["x", "y"], part)
    (tmp_path / "b" / "classes.txt").write_text("water\nland\n")
    data = load_task("segmentation", tmp_path / "b")
    assert [sample.name for sample in data.test] == ["test/x", "test/y"]
    assert data.classes == ("water", "land")
    mask = data.test[1].target()
    assert (mask.dtype, mask.shape) == (np.dtype(np.int64), (32, 32))
    assert np.unique(mask[1:]).tolist() == [1]
    assert np.unique(mask[0]).tolist() == [255]


def test_masks_that_contradict_their_images_or_classes_are_refused(tmp_path: Path) -> None:
    write_fields(tmp_path, ["one", "two", "three"])
    (tmp_path / "classes.txt").write_text("water\nland\n")
    write_image(tmp_path / "masks" / "one.png", np.full((1, 32, 32), 7, np.uint8))
    with pytest.raises(SiteError, match=r"one\.png: holds the class 7, but there are 2 classes"):
        everything("segmentation", tmp_path)
    write_image(tmp_path / "masks" / "one.png", np.zeros((1, 16, 32), np.uint8))
    with pytest.raises(SiteError, match=r"has 32 x 16 pixels, its image 32 x 32"):
        load_task("segmentation", tmp_path)
    (tmp_path / "masks" / "one.png").unlink()
    with pytest.raises(SiteError, match=r"one\.tif: has no mask"):
        load_task("segmentation", tmp_path)


def test_large_images_are_cut_into_blocks_that_show_each_pixel_once(tmp_path: Path) -> None:
    large = np.arange(3 * 600 * 700, dtype=np.uint32).reshape(3, 600, 700).astype(np.uint8)
    for name in ("a", "b"):
        write_image(tmp_path / "images" / f"{name}.tif", large, tiled=True)
        write_image(tmp_path / "masks" / f"{name}.tif", (large[:1] // 64).astype(np.uint8), tiled=True)
    data = load_task("segmentation", tmp_path)
    assert len(data.train) == len(data.test) == 4
    # one test image: its blocks are the groups
    assert len({sample.group for sample in data.test}) == 4
    assert sum(sample.image()[0].size for sample in data.test) == 600 * 700
    first = data.test[0]
    height, width = first.target().shape
    assert np.array_equal(first.image(), large[:, :height, :width])
    assert np.array_equal(first.target(), large[0, :height, :width] // 64)


def test_classes_are_counted_in_masks_too_large_to_be_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fields(tmp_path, ["one", "two"])
    large = np.zeros((1, 600, 600), np.uint8)
    large[0, 550, 20] = 4
    write_image(tmp_path / "images" / "two.tif", np.tile(large, (3, 1, 1)), tiled=True)
    write_image(tmp_path / "masks" / "two.png", large)
    read = segmentation_layouts.read_mask
    limits = ReadLimits(max_window_bytes=300 * 300)
    monkeypatch.setattr(segmentation_layouts, "read_mask", lambda path, window=None: read(path, window, limits))
    assert len(load_task("segmentation", tmp_path).classes) == 5


def test_potsdam_is_read_as_it_is_downloaded(tmp_path: Path) -> None:
    tiles = ["2_10", "7_12", "2_13", "7_13"]
    colours = np.array([*POTSDAM_COLOURS, [0, 0, 0], [252, 255, 3]], np.uint8)
    label = colours[np.arange(32 * 32).reshape(32, 32) % 8].transpose(2, 0, 1)
    for tile, chip in zip(tiles, real_chips(4), strict=True):
        write_image(tmp_path / "2_Ortho_RGB" / f"top_potsdam_{tile}_RGB.tif", chip)
        write_image(tmp_path / "5_Labels_all" / f"top_potsdam_{tile}_label.tif", label)
    data = load_task("segmentation", tmp_path)
    assert [sample.name for sample in data.train] == ["2_10", "7_12"]
    assert [sample.name for sample in data.test] == ["2_13", "7_13"]
    assert data.classes[1:3] == ("building", "low vegetation")
    assert data.test[0].target()[0, :8].tolist() == [0, 1, 2, 3, 4, 5, 255, 4]  # a car that is a little off


def test_the_official_test_part_of_potsdam_has_14_tiles() -> None:
    assert sum(map(len, POTSDAM_TEST.values())) == 14


def test_the_shipped_examples_are_what_their_page_says() -> None:
    scene = load_task("segmentation", shipped_example("segmentation"))
    assert (scene.name, len(scene.train), len(scene.test)) == ("north-carolina", 31, 21)
    assert scene.bands == ("blue", "green", "red", "nir", "swir_1", "swir_2")
    assert all(sample.image().shape == (6, 40, 40) for sample in (*scene.train, *scene.test))
    assert len({sample.group for sample in scene.test}) == 21
    truth = np.stack([sample.target() for sample in scene.train])
    counts = np.bincount(truth.ravel(), minlength=256)
    assert counts[:7].tolist() == [9712, 143, 7897, 2786, 16914, 441, 73]
    assert counts[255] == truth.size - counts[:7].sum()
    chips = load_task("classification", shipped_example("classification"))
    assert (len(chips.train), len(chips.test), len(chips.classes)) == (963, 714, 10)
    folder = shipped_example("segmentation")
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 400_000
