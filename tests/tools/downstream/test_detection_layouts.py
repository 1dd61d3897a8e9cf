"""DOTA and DIOR folders, made of pieces of real imagery, are read as they are; damaged and hostile
ones are named."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from labelled_toys import write_image
from rasterio.errors import NotGeoreferencedWarning

from fedsense_core.data.sites.locations import sample_folder
from fedsense_core.errors import SiteError
from fedsense_core.tools.downstream.reading import Described
from fedsense_core.tools.downstream.samples import TaskData
from fedsense_core.tools.downstream.tasks import load_task, shipped_example
from fedsense_core.tools.downstream.tiling import FoldedData, splits

DOTA = "imagesource:GoogleEarth\ngsd:0.2\n10 10 30 10 30 40 10 40 tree 0\n60.5 20 80 30 70 50 50.5 40 small-tree 1\n"
VOC = "<object><name>{name}</name><difficult>{d}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>\
<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"


@pytest.fixture(scope="module")
def scene() -> np.ndarray[Any, Any]:
    """Return 256 x 320 real pixels of trees."""
    with warnings.catch_warnings(), rasterio.open(sample_folder() / "neon-aerial" / "yellowstone-2019.tif") as file:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        values: np.ndarray[Any, Any] = file.read()[:, :256, :320]
        return values


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def load(folder: Path) -> TaskData[Any]:
    return load_task("detection", folder, Described())


@pytest.fixture
def dota(tmp_path: Path, scene: np.ndarray[Any, Any]) -> Path:
    for part, names in (("train", ("P0001", "P0002")), ("val", ("P0003",))):
        for name in names:
            write_image(tmp_path / part / "images" / f"{name}.png", scene[:, :100, :120])
            write(tmp_path / part / "labelTxt" / f"{name}.txt", DOTA)
    return tmp_path


@pytest.fixture
def dior(tmp_path: Path, scene: np.ndarray[Any, Any]) -> Path:
    for number, part in enumerate(("train", "val", "test"), start=1):
        name = f"0000{number}"
        place = "JPEGImages-test" if part == "test" else "JPEGImages-trainval"
        write_image(tmp_path / place / f"{name}.jpg", scene[:, :100, :100])
        objects = VOC.format(name="ship", d=0, box=(5, 6, 25, 36)) + VOC.format(name="dam", d=1, box=(50, 50, 90, 95))
        boxes = tmp_path / "Annotations" / "Horizontal Bounding Boxes" / f"{name}.xml"
        write(boxes, f'<?xml version="1.0" encoding="utf-8"?><annotation>{objects}</annotation>')
        write(tmp_path / "ImageSets" / "Main" / f"{part}.txt", f"{name}\n")
    return tmp_path


def test_dota_is_read_with_upright_boxes_and_its_validation_part_for_a_test(
    dota: Path, scene: np.ndarray[Any, Any]
) -> None:
    data = load(dota)
    assert data.classes == ("small-tree", "tree")
    assert [len(data.train), len(data.test)] == [2, 1]
    (sample,) = data.test
    assert np.array_equal(sample.image(), scene[:, :100, :120])
    boxes = sample.target()
    assert boxes.xyxy_n4.tolist() == [[10, 10, 30, 40], [50.5, 20, 80, 50]]
    assert boxes.classes_n.tolist() == [1, 0]
    assert boxes.difficult_n.tolist() == [False, True]
    assert "upright" in data.note


def test_a_test_part_with_truth_takes_the_place_of_the_validation_part(dota: Path, scene: np.ndarray[Any, Any]) -> None:
    write_image(dota / "test" / "images" / "P0004.png", scene[:, :64, :64])
    write(dota / "test" / "labelTxt" / "P0004.txt", "imagesource:GoogleEarth\n1 1 9 1 9 9 1 9 tree\n")
    assert [sample.name for sample in load(dota).test] == ["P0004"]


def test_dior_trains_on_both_its_parts(dior: Path) -> None:
    data = load(dior)
    assert data.classes == ("dam", "ship")
    assert [sample.name for sample in data.train] == ["00001", "00002"]
    assert [sample.name for sample in data.test] == ["00003"]
    boxes = data.test[0].target()
    assert boxes.xyxy_n4.tolist() == [[5, 6, 25, 36], [50, 50, 90, 95]]
    assert boxes.difficult_n.tolist() == [False, True]
    assert data.note == ""


def test_an_image_without_a_split_is_cross_validated_in_strips_of_blocks(
    tmp_path: Path, scene: np.ndarray[Any, Any]
) -> None:
    write_image(tmp_path / "images" / "a.tif", np.tile(scene, (1, 3, 1)))
    # on the seam of two blocks (row 192 of 768): three quarters of it in the upper one
    write(
        tmp_path / "labelTxt" / "a.txt", "10 180 30 180 30 196 10 196 tree 0\n200 700 220 700 220 720 200 720 tree 0\n"
    )
    data = load(tmp_path)
    assert isinstance(data, FoldedData)
    assert data.folds == 3
    assert "cross-validated" in data.note
    assert len(data.train) == 4 * 2
    assert len({sample.group for sample in data.test}) == 8
    joined = [one.image() for one in data.train]
    assert np.array_equal(np.concatenate(joined[:2], 2), np.tile(scene, (1, 3, 1))[:, :192])
    upper, lower = data.train[0].target(), data.train[2].target()
    assert (upper.xyxy_n4.tolist(), upper.difficult_n.tolist()) == ([[10, 180, 30, 192]], [False])
    assert (lower.xyxy_n4.tolist(), lower.difficult_n.tolist()) == ([[10, 0, 30, 4]], [True])
    tested = [sample.name for _, test in splits(data) for sample in test]
    assert tested == [sample.name for sample in data.test]
    for train, test in splits(data):
        assert not {sample.name for sample in train} & {sample.name for sample in test}


def test_the_shipped_trees_are_as_many_as_their_file_says() -> None:
    folder = shipped_example("detection")
    data = load(folder)
    lines = (folder / "labelTxt" / "east.txt").read_text().splitlines()
    corners = [[float(word) for word in line.split()[:8]] for line in lines[2:]]
    centres = np.array([((c[0] + c[2]) / 2, (c[1] + c[5]) / 2) for c in corners])
    assert len(centres) == 346
    assert (centres > 0).all()
    assert data.classes == ("tree",)
    easy = sum(int((~sample.target().difficult_n).sum()) for sample in data.test)
    assert len(centres) <= easy <= 1.2 * len(centres), "a tree on a seam is asked for on both sides, where enough shows"
    assert "NEON chips" in data.note
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 500_000


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("10 10 nan 10 30 40 10 40 tree 0", ["finite"]),
        ("10 10 30 10 30 inf 10 40 tree 0", ["finite"]),
        ("10 10 10 10 10 40 10 40 tree 0", ["width and a height above 0"]),
        ("10 10 30 ten 30 40 10 40 tree 0", ["'ten'", "coordinate"]),
        ("10 10 30 10 tree 0", ["6 words"]),
        ("10 10 30 10 30 40 10 40 tree maybe", ["'maybe'"]),
        ("500 10 530 10 530 40 500 40 tree 0", ["outside its image P0001.png", "120 x 100"]),
    ],
)
def test_a_bad_line_of_dota_is_named(dota: Path, line: str, words: list[str]) -> None:
    write(dota / "train" / "labelTxt" / "P0001.txt", DOTA + line + "\n")
    with pytest.raises(SiteError) as error:
        load(dota)
    for word in ["P0001.txt, line 5", *words]:
        assert word in str(error.value)


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>'
FOREIGN = '<!doctype a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, ["document type"]),
        (FOREIGN, ["document type"]),
        ("<annotation>", ["no XML"]),
        (f"<a>{VOC.format(name='ship', d=0, box=(5, 6, 4, 36))}</a>", ["object 1", "width and a height above 0"]),
        (f"<a>{VOC.format(name='ship', d=0, box=('nan', 6, 9, 36))}</a>", ["object 1", "finite"]),
        (f"<a>{VOC.format(name='ship', d='x', box=(5, 6, 9, 36))}</a>", ["object 1", "'x'"]),
        ("<a><object><name>ship</name></object></a>", ["object 1", "'nothing'", "coordinate"]),
        (f"<a>{VOC.format(name=' ', d=0, box=(5, 6, 9, 36))}</a>", ["object 1", "name of a class"]),
    ],
)
def test_bad_xml_is_named_and_expands_nothing(dior: Path, text: str, words: list[str]) -> None:
    write(dior / "Annotations" / "Horizontal Bounding Boxes" / "00002.xml", text)
    with pytest.raises(SiteError) as error:
        load(dior)
    for word in ["00002.xml", *words]:
        assert word in str(error.value)


def test_xml_in_a_coding_that_hides_its_document_type_is_refused(dior: Path) -> None:
    path = dior / "Annotations" / "Horizontal Bounding Boxes" / "00002.xml"
    path.write_bytes(BOMB.replace("<?xml", '<?xml encoding="utf-16"').encode("utf-16"))
    with pytest.raises(SiteError, match=r"00002\.xml: cannot be read"):
        load(dior)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "..", "a/b", "C:\\x"])
def test_a_list_leads_to_no_other_folder(dior: Path, name: str) -> None:
    write(dior / "ImageSets" / "Main" / "train.txt", f"00001\n{name}\n")
    with pytest.raises(SiteError, match=r"train\.txt, line 2: .* must not lead"):
        load(dior)


def no_labels(folder: Path) -> None:
    (folder / "train" / "labelTxt" / "P0002.txt").unlink()


def no_test(folder: Path) -> None:
    (folder / "val" / "labelTxt").rename(folder / "val" / "labels")


def nothing(folder: Path) -> None:
    (folder / "train").rename(folder / "learn")


def no_objects(folder: Path) -> None:
    for path in folder.rglob("*.txt"):
        path.write_text("imagesource:GoogleEarth\ngsd:null\n")


def too_long(folder: Path) -> None:
    (folder / "train" / "labelTxt" / "P0001.txt").write_bytes(b" " * ((16 << 20) + 1))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (no_labels, "P0002.txt: cannot be read"),
        (no_test, "has a train part only"),
        (nothing, "Looked for: DOTA.*DIOR"),
        (no_objects, "no image has an object"),
        (too_long, "P0001.txt: is larger than"),
    ],
)
def test_a_folder_that_lacks_something_is_told_what(dota: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(dota)
    with pytest.raises(SiteError, match=words):
        load(dota)
