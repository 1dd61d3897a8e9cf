from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from stored_chips import chips_of_array, pixels_of

from fedsense_core.data.opening import load_site, open_chips, open_sources
from fedsense_core.data.raster.formats import Unreadable
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.schema import DatasetRef, Site, Source
from fedsense_core.data.sites.sensors import shipped_card
from fedsense_core.errors import SiteError

RGB = ("red", "green", "blue")


def test_bands_are_chosen_by_name_in_the_order_asked(write_tiff: Any, write_site: Any, image: Any) -> None:
    picture = image(bands=6, height=64, width=64)
    write_tiff("a.tif", picture)
    chips = open_chips(write_site('sensor = "landsat7-l1"'), ["swir_1", "red", "B1"], 64, None)
    assert np.array_equal(pixels_of(chips)[0], picture[[4, 2, 0]])
    assert chips.bands == ("swir_1", "red", "B1")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_statistics_equal_a_whole_array_computation(dtype: str, write_tiff: Any, write_site: Any, image: Any) -> None:
    pictures = [image(dtype=dtype, seed=seed, height=64 * (seed + 1)) * 100 for seed in range(3)]
    for i, picture in enumerate(pictures):
        write_tiff(f"{i}.tif", picture.astype(dtype))
    chips = open_chips(write_site(), RGB, 64, None, ReadLimits(max_window_bytes=50_000))
    pixels = np.concatenate([p.astype(dtype).reshape(3, -1) for p in pictures], axis=1).astype(np.float64)
    np.testing.assert_allclose(chips.origin_mean[0], pixels.mean(1), rtol=1e-6)
    np.testing.assert_allclose(chips.origin_std[0], pixels.std(1), rtol=1e-6)
    everything = chips.batch(range(len(chips)))
    assert everything.dtype == torch.float32
    np.testing.assert_allclose(everything.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(everything.std((0, 2, 3)), 1, atol=1e-3)


def test_invalid_pixels_are_left_out_of_statistics_and_filled_with_the_chips_mean(
    write_tiff: Any, write_site: Any, image: Any
) -> None:
    picture = image(height=64, width=192)
    picture[:, :3, :64] = 0  # 5 % of the first chip
    picture[0, :8, 64:128] = 0  # 12 % of the second, in one band only
    write_tiff("a.tif", picture, nodata=0)
    chips = open_chips(write_site('sensor = "rgb"\nnodata_bands = "any"'), RGB, 64, None)
    assert len(chips) == 2, "a pixel counts only with all its bands"
    valid = np.concatenate([picture[:, 3:, :64].reshape(3, -1), picture[:, :, 128:].reshape(3, -1)], 1)
    np.testing.assert_allclose(chips.origin_mean[0], valid.mean(1), rtol=1e-6)
    np.testing.assert_allclose(chips.origin_std[0], valid.std(1), rtol=1e-6)
    for band in range(3):
        assert set(pixels_of(chips)[0, band, :3].ravel()) == {round(picture[band, 3:, :64].mean())}


def test_the_site_file_may_ask_for_less_of_a_chip(write_tiff: Any, write_site: Any, image: Any) -> None:
    picture = image(height=64, width=128)
    picture[:, :24, :64] = 0
    write_tiff("a.tif", picture, nodata=0)
    assert len(open_chips(write_site(), RGB, 64, None)) == 1
    assert len(open_chips(write_site('sensor = "rgb"\n[limits]\nmin_valid = 0.6'), RGB, 64, None)) == 2


@pytest.mark.parametrize("how", ["card", "mask", "alpha", "alpha besides nodata", "nan"])
def test_gaps_are_known_from_card_internal_mask_alpha_and_nan(
    how: str, write_tiff: Any, write_site: Any, image: Any
) -> None:
    picture = image(height=64, width=128, dtype="float32" if how == "nan" else "uint8")
    picture[:, :, :64] = np.nan if how == "nan" else 250 if how == "card" else picture[:, :, :64]
    mask = np.full((64, 128), 255, np.uint8)
    mask[:, :64] = 0
    options: dict[str, Any] = {}
    if how.startswith("alpha"):
        picture = np.concatenate([picture, mask[None]])
        options = {"photometric": "RGB", "alpha": "YES", "nodata": 0 if how.endswith("nodata") else None}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write_tiff("a.tif", picture, **options)
        if how == "mask":
            with rasterio.open(path, "r+") as file:
                file.write_mask(mask)
    card = 'sensor = "rgb"' + ("\nnodata = 250" if how == "card" else "")
    chips = open_chips(write_site(card), RGB, 64, None)
    assert np.array_equal(pixels_of(chips), picture[None, :3, :, 64:])


def test_near_infrared_is_no_mask_even_if_the_file_calls_it_alpha(write_tiff: Any, write_site: Any, image: Any) -> None:
    picture = image(bands=4, height=64, width=64)
    picture[3] = 0  # dark water
    write_tiff("a.tif", picture, photometric="RGB", alpha="YES")
    chips = open_chips(write_site('sensor = "aerial-rgbn"'), [*RGB, "nir"], 64, None)
    assert np.array_equal(pixels_of(chips)[0], picture)


def test_each_sensor_of_a_site_is_standardised_by_itself(tmp_path: Path, write_tiff: Any, image: Any) -> None:
    small, large = image(seed=1, height=64), image(seed=2, dtype="uint16", height=64) * 20
    write_tiff("small.tif", small)
    write_tiff("large.tif", large)
    (tmp_path / "site.toml").write_text("""
        name = "two"
        sources = [
            {paths = ["small.tif"], sensor = "rgb", scale = 0.004},
            {paths = ["large.tif"], sensor = "rgb", scale = 0.0002, offset = -0.1},
        ]""")
    chips = open_chips(load_site(tmp_path / "site.toml"), RGB, 64, None)
    assert pixels_of(chips).dtype == np.uint16
    assert chips.origin.tolist() == [0, 0, 0, 1, 1, 1]
    for part in (range(3), range(3, 6)):
        np.testing.assert_allclose(chips.batch(part).mean((0, 2, 3)), 0, atol=1e-4)
        np.testing.assert_allclose(chips.batch(part).std((0, 2, 3)), 1, atol=1e-3)


def test_files_of_unlike_types_meet_in_one_that_holds_both(write_tiff: Any, write_site: Any, image: Any) -> None:
    write_tiff("a.tif", image(dtype="uint16", height=64, width=64) * 200)
    write_tiff("b.tif", -image(dtype="int16", height=64, width=64))
    values = pixels_of(open_chips(write_site(), RGB, 64, None))
    assert values.dtype == np.float32
    assert values[0].min() > 0 > values[1].max()


def test_constant_chips_and_extreme_values_stay_finite(write_tiff: Any, write_site: Any) -> None:
    write_tiff("a.tif", np.full((3, 64, 64), 3.0e38, np.float32))
    batch = open_chips(write_site(), RGB, 64, None).batch([0])
    assert torch.isfinite(batch).all()
    assert batch.abs().max() <= 6


def test_batch_takes_tensor_and_list_alike_and_clamps() -> None:
    values = np.zeros((3, 1, 64, 64), np.uint8)
    values[2, 0, 0, 0] = 255
    chips = chips_of_array(values, ["red"])
    assert torch.equal(chips.batch([2, 0]), chips.batch(torch.tensor([2, 0])))
    assert chips.batch([2]).max() == 6


def test_raw_chips_are_the_stored_numbers_from_every_segment(write_tiff: Any, write_site: Any, image: Any) -> None:
    pictures = [image(dtype="uint16", height=64, seed=0) * 200, image(dtype="uint8", height=64, seed=1)]
    for i, picture in enumerate(pictures):
        write_tiff(f"{i}.tif", picture)
    chips = open_chips(write_site(), RGB, 64, None)
    whole = np.stack([p[:, :, x : x + 64].astype(np.uint16) for p in pictures for x in (0, 64, 128)])
    assert len(chips.segments) == 2
    index = torch.tensor([5, 0, 3, 3, 1])
    raw = chips.read(index)
    assert raw.dtype == torch.uint16
    assert np.array_equal(raw.numpy(), whole[index])
    out = torch.empty_like(raw)
    assert chips.read(index.tolist(), out) is out
    assert torch.equal(out.view(torch.int16), raw.view(torch.int16))
    assert torch.equal(chips.standardise(raw, index), chips.batch(index))
    assert np.array_equal(raw.numpy(), whole[index]), "standardising leaves what was read alone"
    with pytest.raises(IndexError):
        chips.read([6])


def test_a_subset_has_the_same_pixels_places_and_statistics(write_tiff: Any, write_site: Any, image: Any) -> None:
    for seed in range(2):
        write_tiff(f"{seed}.tif", image(seed=seed))
    chips = open_chips(write_site(), RGB, 64, None)
    index = [7, 2, 11]
    part = chips.subset(index)
    assert len(part) == 3
    assert np.array_equal(pixels_of(part), pixels_of(chips)[index])
    assert torch.equal(part.batch([2, 0]), chips.batch([11, 7]))
    assert part.statistics is chips.statistics
    assert [field[0] for field in (part.scene, part.row, part.col, part.valid)] == [1, 0, 64, 1]
    assert all(np.shares_memory(a, b) for a, b in zip(part.segments, chips.segments, strict=True))
    assert len(pixels_of(part.subset(torch.tensor([1])))) == 1


def test_places_say_where_each_chip_was_cut(write_tiff: Any, write_site: Any, image: Any) -> None:
    pictures = [image(seed=seed) for seed in range(2)]
    for i, picture in enumerate(pictures):
        write_tiff(f"{i}.tif", picture)
    chips = open_chips(write_site(), RGB, 64, None)
    for chip, scene, row, col in zip(pixels_of(chips), chips.scene, chips.row, chips.col, strict=True):
        assert np.array_equal(chip, pictures[scene][:, row : row + 64, col : col + 64])
    assert [Path(path).name for path in chips.scene_paths] == ["0.tif", "1.tif"]


TWO = """
    name = "two"
    sources = [
        {paths = ["a*.tif"], sensor = "rgb"},
        {paths = ["b*.tif"], sensor = "landsat8-l2"},
    ]"""


@pytest.fixture
def two(tmp_path: Path, write_tiff: Any, image: Any) -> Path:
    write_tiff("a.tif", image(height=64))
    write_tiff("b.tif", image(7, dtype="uint16", height=64, seed=1))
    (tmp_path / "two.toml").write_text(TWO)
    return tmp_path / "two.toml"


@pytest.mark.parametrize("cached", [False, True])
def test_each_source_may_be_opened_apart_with_all_its_bands(cached: bool, two: Path, image: Any) -> None:
    cache = two.parent / "cache" if cached else None
    small, large = open_sources(load_site(two), "all", 64, cache)
    assert (small.sensor, large.sensor) == (("rgb",), ("landsat8-l2",))
    assert small.bands == RGB
    assert [band.name for band in large.spectrum] == list(large.bands)
    assert large.bands[0] == "coastal"
    assert large.spectrum[0].wavelength_um == 0.443
    assert np.array_equal(pixels_of(large)[1], image(7, dtype="uint16", height=64, seed=1)[:, :, 64:128])
    named = open_sources(load_site(two), ["green"], 64, cache)
    assert [chips.spectrum[0].name for chips in named] == ["green", "green"]
    assert named[0].spectrum != named[1].spectrum


def test_all_bands_of_unlike_sources_together_are_refused(two: Path) -> None:
    with pytest.raises(SiteError, match="one source"):
        open_chips(load_site(two), "all", 64, None)


def test_a_source_with_nothing_usable_is_left_out_and_named_unless_all_are(two: Path) -> None:
    (two.parent / "a.tif").write_text("broken")
    site = load_site(two)
    (chips,) = open_sources(site, "all", 64, None)
    assert chips.sensor == ("landsat8-l2",)
    assert [Path(item.path).name for item in chips.skipped] == ["a.tif"]
    (two.parent / "b.tif").write_text("broken")
    with pytest.raises(SiteError, match=r"no usable chip\. 2 of 2 files"):
        open_sources(site, "all", 64, None)


def test_a_band_that_one_source_lacks_is_refused_in_both_ways(two: Path) -> None:
    for opening in (open_chips, open_sources):
        with pytest.raises(SiteError, match=r"sources\[1\]: there is no band 'nir'"):
            opening(load_site(two), ["nir"], 64, None)


def test_the_limit_of_chips_is_one_for_the_whole_site(two: Path) -> None:
    limits = ReadLimits(max_chips=4)
    assert [len(chips) for chips in open_sources(load_site(two), RGB, 64, None, limits)] == [2, 2]


class OwnImages:
    """Stands for a dataset of images."""

    def __init__(self, images: list[np.ndarray[Any, Any]]) -> None:
        self.images = images
        self.reads: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def key(self, i: int) -> str:
        return f"{i}-{self.images[i].sum()}"

    def name(self, i: int) -> str:
        return f"own[{i}]"

    def read(self, i: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        self.reads.append(i)
        if not self.images[i].any():
            raise Unreadable("is empty")
        return self.images[i], self.images[i][0] != 1


def test_images_of_a_dataset_are_cut_and_cached_like_scenes(
    tmp_path: Path, image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [image(height=64, width=128, seed=seed) + 1 for seed in range(3)]
    pictures[1][:] = 0
    pictures[2][0, :32] = 1
    pictures.append(image(height=40, width=64))
    images = OwnImages(pictures)
    monkeypatch.setattr("fedsense_core.data.opening.open_dataset", lambda *_: images)
    source = Source("rgb", shipped_card("rgb", ""), (), dataset=DatasetRef("own:Images"))
    site = Site("here", "", Path("/site.toml"), (source,), ReadLimits(min_valid=0.4))
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        chips = open_chips(site, ["blue", "red"], 64, cache)
        assert chips.scene_paths == ("own[0]", "own[2]")
        assert [item.reason for item in chips.skipped] == [
            "is empty",
            "is 64 x 40 pixels, smaller than one chip of 64",
        ]
        assert np.array_equal(pixels_of(chips)[0], pictures[0][[2, 0], :, :64])
        assert chips.valid.round(1).tolist() == [np.float32(v) for v in (1, 1, 0.5, 0.5)]
    assert sorted(images.reads) == [0, 0, 1, 1, 2, 2, 3, 3]
    pictures.append(image(height=64, width=64, seed=5) + 1)
    assert len(open_chips(site, ["blue", "red"], 64, tmp_path / "cache")) == 5
    assert images.reads[8:] == [4]


@pytest.mark.parametrize(("bands", "size"), [((), 64), (("red", "red"), 64), (RGB, 4), (RGB, 100_000)])
def test_an_impossible_request_is_refused(bands: Any, size: int, write_tiff: Any, write_site: Any, image: Any) -> None:
    write_tiff("a.tif", image())
    with pytest.raises(SiteError):
        open_chips(write_site(), bands, size, None)


def test_a_mask_is_not_taken_for_positions() -> None:
    chips = chips_of_array(np.ones((3, 1, 8, 8), np.uint8), ["grey"])
    with pytest.raises(TypeError, match="flatnonzero"):
        chips.subset(np.array([True, False, True]))
    with pytest.raises(TypeError, match="flatnonzero"):
        chips.read([True, False])
    assert len(chips.subset([])) == 0
