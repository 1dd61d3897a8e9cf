from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsense_core.data.opening import load_site
from fedsense_core.data.raster.datasets import DatasetImages, open_dataset
from fedsense_core.data.raster.formats import Unreadable
from fedsense_core.data.sites.schema import DatasetRef, Images
from fedsense_core.data.sites.sensors import shipped_card
from fedsense_core.errors import SiteError

RGB = shipped_card("rgb", "test")
MODULE = '''
import numpy as np
import torch

class Listed:
    """Items as they are given, by the name of a case."""

    def __init__(self, case, count=2):
        self.case, self.count = case, count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        image = torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4) + i
        if self.case == "broken" and i == 1:
            raise OSError("bad file")
        return {
            "dict": {"image": image, "label": torch.tensor(i + 5)},
            "tuple": (image, i + 5),
            "bare": image,
            "broken": image,
            "numpy": image.numpy(),
            "unit": image / 255,
            "double": image.double() / 255,
            "half": (image / 255).bfloat16(),
            "learnt": torch.nn.Parameter(image / 255),
            "counts": image.short(),
            "long": image.long() + 100_000,
            "bool": image > 3,
            "gap": torch.where(image == 7, torch.nan, image.float()),
            "four": torch.zeros(4, 4, 4),
            "film": torch.zeros(2, 3, 4, 4),
            "flat": image[0],
            "complex": image + 1j,
            "text": "a picture",
            "list": [],
            "no image": {"picture": image, "label": 1},
            "multi label": {"image": image, "label": torch.tensor([1, 0, 1])},
        }[self.case]

class ByPlace:
    def __getitem__(self, where):
        return {}

class Refusing:
    def __init__(self, root, split="train"):
        raise RuntimeError(f"nothing in {root}")

some_number = 3
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_data.py").write_text(MODULE)
    (tmp_path / "needs_more.py").write_text("import there_is_no_such_package.inside\n")
    (tmp_path / "breaks.py").write_text("from own_data import nothing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("own_data", "needs_more", "breaks"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def opened(case: str, **args: Any) -> DatasetImages:
    return open_dataset(DatasetRef("own_data:Listed", {"case": case} | args), RGB, "site.toml: sources[1]")


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        ("dict", "uint8"),
        ("tuple", "uint8"),
        ("bare", "uint8"),
        ("numpy", "uint8"),
        ("unit", "float32"),
        ("double", "float32"),
        ("half", "float32"),
        ("learnt", "float32"),
        ("counts", "int16"),
        ("long", "float32"),
        ("bool", "uint8"),
    ],
)
def test_images_come_as_bands_first_arrays_of_a_chips_type(case: str, dtype: str) -> None:
    images: Images = opened(case)
    values, valid = images.read(1)
    assert (len(images), values.shape, str(values.dtype)) == (2, (3, 4, 4), dtype)
    assert valid.shape == (4, 4)
    assert valid.dtype == bool
    assert valid.all()


def test_values_are_those_of_the_dataset() -> None:
    assert np.array_equal(opened("dict").read(1)[0], np.arange(1, 49, dtype=np.uint8).reshape(3, 4, 4))
    assert opened("long").read(1)[0][0, 0, 0] == 100_001


def test_gaps_are_left_to_the_reader() -> None:
    values, valid = opened("gap").read(0)
    assert np.argwhere(np.isnan(values)).tolist() == [[0, 1, 3]]
    assert valid.all()


def test_a_single_band_may_have_no_band_axis() -> None:
    card = RGB.only(["red"], "test")
    assert open_dataset(DatasetRef("own_data:Listed", {"case": "flat"}), card, "here").read(0)[0].shape == (1, 4, 4)


@pytest.mark.parametrize(("case", "label"), [("dict", 6), ("tuple", 6), ("bare", None), ("multi label", None)])
def test_labels_are_whole_numbers_or_none(case: str, label: int | None) -> None:
    assert opened(case).label(1) == label


def test_keys_differ_between_images_and_arguments() -> None:
    keys = [opened("dict", count=count).key(i) for count in (2, 3) for i in range(2)]
    assert len(set(keys)) == 4
    assert opened("dict", count=2).key(0) == keys[0]
    assert opened("dict").name(1) == "own_data:Listed[1]"


def test_an_image_that_cannot_be_read_is_a_reason_to_skip_it() -> None:
    images = opened("broken")
    images.read(0)
    with pytest.raises(Unreadable, match=r"own_data:Listed \(OSError: bad file\)"):
        images.read(1)


@pytest.mark.parametrize(
    ("target", "args", "words"),
    [
        ("own_data:Listed", {"case": "four"}, ["(4, 4, 4)", "3 bands (red, green, blue)", "`bands`"]),
        ("own_data:Listed", {"case": "film"}, ["(2, 3, 4, 4)", "(bands, height, width)"]),
        ("own_data:Listed", {"case": "flat"}, ["(4, 4)", "3 bands"]),
        ("own_data:Listed", {"case": "complex"}, ["complex64", "real numbers"]),
        ("own_data:Listed", {"case": "text"}, ["of the type str", "tensor (bands, height, width)", "`paths`"]),
        ("own_data:Listed", {"case": "list"}, ["of the type list", "tensor (bands, height, width)"]),
        ("own_data:Listed", {"case": "no image"}, ["no 'image', only picture, label"]),
        ("own_data:Listed", {"case": "dict", "count": 0}, ["is empty"]),
        ("own_data:Listed", {"case": "dict", "cuont": 1}, [".args", "It takes case, count", "Did you mean 'count'?"]),
        ("own_data:Listed", {}, [".args", "TypeError", "case"]),
        ("own_data:Refusing", {"root": "/data"}, [".args", "RuntimeError: nothing in /data"]),
        ("own_data:ByPlace", {}, ["has no length", "RasterDataset", "`paths`"]),
        ("own_data:Lister", {}, ["no class 'Lister'", "Did you mean 'Listed'?"]),
        ("own_data:some_number", {}, ["no class 'some_number'"]),
        ("there_is_no_such_package:A", {}, ["'there_is_no_such_package'", "pip install there_is_no_such_package"]),
        ("needs_more:A", {}, ["'needs_more:A' needs the package 'there_is_no_such_package'"]),
        ("breaks:A", {}, ["'breaks' cannot be imported: ImportError"]),
        ("own_data.more:A", {}, ["'own_data' is installed, but has no such module"]),
    ],
)
def test_a_dataset_that_does_not_fit_is_explained(target: str, args: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SiteError) as error:
        open_dataset(DatasetRef(target, args), RGB, "site.toml: sources[1]")
    for word in ("site.toml: sources[1]", *words):
        assert word in str(error.value)


def test_without_torchgeo_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchgeo", None)
    with pytest.raises(SiteError, match=r'pip install "fedsense\[torchgeo\]"'):
        open_dataset(DatasetRef("torchgeo.datasets:EuroSAT", {}), RGB, "here")


def test_torchgeo_s_eurosat_is_a_source(tmp_path: Path, write_tiff: Callable[..., Path]) -> None:
    torchgeo = pytest.importorskip("torchgeo.datasets")
    names = torchgeo.EuroSAT.all_band_names
    image = np.random.default_rng(0).integers(1, 4000, (len(names), 64, 64)).astype("uint16")
    for kind in ("Forest", "River"):
        write_tiff(f"eurosat/{torchgeo.EuroSAT.base_dir}/{kind}/{kind}_1.tif", image)
    (tmp_path / "eurosat" / "eurosat-train.txt").write_text("Forest_1.jpg\nRiver_1.jpg\n")
    (tmp_path / "site.toml").write_text(
        'name = "here"\n[[sources]]\nsensor = "sentinel2-l1c"\ndataset = "torchgeo.datasets:EuroSAT"\n'
        f'bands = {[*names]}\nargs = {{ root = "eurosat", split = "train" }}\n'
    )
    source = load_site(tmp_path / "site.toml").sources[0]
    assert source.dataset is not None
    images = open_dataset(source.dataset, source.card, "here")
    values, valid = images.read(1)
    assert np.array_equal(values, image.astype(np.float32))
    assert valid.all()
    assert [images.label(i) for i in range(len(images))] == [0, 1]
    assert Path(images.name(1)).name == "River_1.tif"
    before = images.key(1)
    os.utime(images.name(1), ns=(0, 0))
    assert images.key(1) != before
    with pytest.raises(SiteError, match=r"here\.args: .*DatasetNotFoundError"):
        open_dataset(DatasetRef(source.dataset.target, {"root": str(tmp_path / "nowhere")}), source.card, "here")
