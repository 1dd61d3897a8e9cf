from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedsense_core.data.chips.labelled import load_labelled
from fedsense_core.data.sites.locations import sample_labelled
from fedsense_core.errors import SiteError

RGB = ("red", "green", "blue")
HEAD = 'name = "task"\nsensor = "rgb"\nchip_size = 32\n'
ROWS = """file,row,col,class,split,group
a.tif,1,2,water,train,5
a.tif,0,0,forest,train,5
b.tif,0,1,water,test,6
a.tif,0,3,ice,train,7
"""


@pytest.fixture
def folder(tmp_path: Path, write_tiff: Any, image: Any) -> Path:
    for seed, name in enumerate(("a.tif", "b.tif")):
        write_tiff(name, image(height=64, width=128, seed=seed))
    (tmp_path / "labelled.toml").write_text(HEAD)
    (tmp_path / "labels.csv").write_text(ROWS)
    return tmp_path


def test_chips_labels_and_groups_follow_the_table(folder: Path, image: Any) -> None:
    task = load_labelled(folder, RGB)
    assert (task.name, task.classes, task.bands) == ("task", ("forest", "ice", "water"), RGB)
    assert task.train.labels.tolist() == [2, 0, 1]
    assert task.train.groups.tolist() == [5, 5, 7]
    assert (task.test.labels.tolist(), task.test.groups.tolist()) == ([2], [6])
    a, b = image(height=64, width=128, seed=0), image(height=64, width=128, seed=1)
    train = np.stack([a[:, 32:, 64:96], a[:, :32, :32], a[:, :32, 96:]]).astype(np.float64)
    mean, std = train.mean((0, 2, 3))[:, None, None], train.std((0, 2, 3))[:, None, None]
    np.testing.assert_allclose(task.train.values, (train - mean) / std, atol=1e-5)
    np.testing.assert_allclose(task.test.values[0], (b[:, :32, 32:64] - mean) / std, atol=1e-5)
    assert task.train.values.dtype == torch.float32


def test_bands_are_chosen_by_name(folder: Path) -> None:
    whole, two = load_labelled(folder, RGB), load_labelled(folder, ["blue", "red"])
    torch.testing.assert_close(two.train.values, whole.train.values[:, [2, 0]])


def test_all_bands_and_what_they_are_come_from_the_card(folder: Path) -> None:
    task, named = load_labelled(folder, "all"), load_labelled(folder, RGB)
    assert torch.equal(task.train.values, named.train.values)
    assert (task.bands, task.sensor) == (RGB, "rgb")
    assert [band.name for band in load_labelled(folder, ["blue", "red"]).spectrum] == ["blue", "red"]


def test_gaps_of_a_labelled_chip_are_filled_and_an_empty_one_is_named(
    folder: Path, write_tiff: Any, image: Any
) -> None:
    picture = image(height=64, width=128, seed=1)
    picture[:, :20, 32:64] = 0
    write_tiff("b.tif", picture, nodata=0)
    values = load_labelled(folder, RGB).test.values[0]
    assert len(values[:, :20].unique()) == 3, "the mean of what is there"
    picture[:, :32, 32:64] = 0
    write_tiff("b.tif", picture, nodata=0)
    with pytest.raises(SiteError, match=r"b\.tif: has 2 x 4 chips with valid pixels.*row 0, column 1"):
        load_labelled(folder, RGB)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("b.tif,0,1", "c.tif,0,1", ["c.tif", "no readable GeoTIFF"]),
        ("b.tif,0,1", "b.tif,2,1", ["b.tif", "2 x 4 chips", "row 2, column 1"]),
        ("b.tif,0,1", "../b.tif,0,1", ["'../b.tif'", "outside"]),
        ("water,test", "water,dev", ["line 4", "'dev'", "train, test"]),
        ("water,test,6", "water,test,six", ["line 4", "whole numbers"]),
        ("water,test", "water,train", ["both splits"]),
        ("group", "block", ["labels.csv", "file,row,col,class,split,group"]),
        (ROWS.split("\n", 1)[1], "", ["no labelled chip"]),
    ],
)
def test_a_wrong_table_is_answered_with_file_line_and_remedy(
    folder: Path, old: str, new: str, words: list[str]
) -> None:
    assert old in ROWS
    (folder / "labels.csv").write_text(ROWS.replace(old, new))
    with pytest.raises(SiteError) as error:
        load_labelled(folder, RGB)
    for word in words:
        assert word in str(error.value)


def test_a_wrong_head_is_answered_with_the_nearest_key(folder: Path) -> None:
    (folder / "labelled.toml").write_text(HEAD.replace("chip_size", "chips_size"))
    with pytest.raises(SiteError, match=r"labelled\.toml: unknown key 'chips_size'.*Did you mean 'chip_size'"):
        load_labelled(folder, RGB)


def test_chips_standardised_by_themselves_keep_no_colour() -> None:
    by_set, by_chip = (load_labelled(sample_labelled(), ("red", "green", "blue"), kind) for kind in ("set", "chip"))
    x = by_chip.test.values
    assert torch.allclose(x.mean((2, 3)), torch.zeros(len(x), 3), atol=0.05)
    assert by_set.test.values.mean((2, 3)).std() > 0.5
    assert torch.equal(by_set.test.labels, by_chip.test.labels)
