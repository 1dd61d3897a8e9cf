from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsense_core.data import Chips, ReadLimits, load_site, open_chips
from fedsense_core.data.statistics import Moments, merge_all
from fedsense_core.errors import SiteError

RGB = ("red", "green", "blue")


def test_bands_are_chosen_by_name_in_the_order_asked(write_tiff: Any, write_site: Any, image: Any) -> None:
    picture = image(bands=6, height=64, width=64)
    write_tiff("a.tif", picture)
    chips = open_chips(write_site('sensor = "landsat7-l1"'), ["swir_1", "red", "B1"], 64, None)
    assert np.array_equal(chips.values[0], picture[[4, 2, 0]])
    assert chips.bands == ("swir_1", "red", "B1")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_statistics_equal_a_whole_array_computation(dtype: str, write_tiff: Any, write_site: Any, image: Any) -> None:
    pictures = [image(dtype=dtype, seed=seed, height=64 * (seed + 1)) * 100 for seed in range(3)]
    for i, picture in enumerate(pictures):
        write_tiff(f"{i}.tif", picture.astype(dtype))
    chips = open_chips(write_site(), RGB, 64, None, ReadLimits(max_window_bytes=50_000))
    pixels = np.concatenate([p.astype(dtype).reshape(3, -1) for p in pictures], axis=1).astype(np.float64)
    np.testing.assert_allclose(chips.mean, pixels.mean(1), rtol=1e-6)
    np.testing.assert_allclose(chips.std, pixels.std(1), rtol=1e-6)
    everything = chips.batch(range(len(chips)))
    assert everything.dtype == torch.float32
    np.testing.assert_allclose(everything.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(everything.std((0, 2, 3)), 1, atol=1e-3)


@given(st.lists(st.lists(st.integers(0, 65535), min_size=1, max_size=30), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_merged_moments_equal_those_of_all_pixels(parts: list[list[int]]) -> None:
    def moments(pixels: list[int]) -> Moments:
        chips = np.array(pixels, np.uint16).reshape(1, 1, 1, -1)
        return Moments.of(chips, np.ones((1, 1, len(pixels)), dtype=bool))

    merged, whole = merge_all([moments(part) for part in parts]), moments([x for part in parts for x in part])
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.squares, whole.squares, rtol=1e-9, atol=1e-6)


def test_invalid_pixels_are_left_out_of_statistics_and_filled_with_the_chips_mean(
    write_tiff: Any, write_site: Any, image: Any
) -> None:
    picture = image(height=64, width=192)
    picture[:, :3, :64] = 0  # 5 % of the first chip
    picture[0, :8, 64:128] = 0  # 12 % of the second, in one band only
    write_tiff("a.tif", picture, nodata=0)
    chips = open_chips(write_site(), RGB, 64, None)
    assert len(chips) == 2, "a pixel counts only with all its bands"
    valid = np.concatenate([picture[:, 3:, :64].reshape(3, -1), picture[:, :, 128:].reshape(3, -1)], 1)
    np.testing.assert_allclose(chips.mean, valid.mean(1), rtol=1e-6)
    np.testing.assert_allclose(chips.std, valid.std(1), rtol=1e-6)
    for band in range(3):
        assert set(chips.values[0, band, :3].ravel()) == {round(picture[band, 3:, :64].mean())}


def test_the_site_file_may_ask_for_less_of_a_chip(write_tiff: Any, write_site: Any, image: Any) -> None:
    picture = image(height=64, width=128)
    picture[:, :24, :64] = 0
    write_tiff("a.tif", picture, nodata=0)
    assert len(open_chips(write_site(), RGB, 64, None)) == 1
    assert len(open_chips(write_site('sensor = "rgb"\n[limits]\nmin_valid = 0.6'), RGB, 64, None)) == 2


@pytest.mark.parametrize("how", ["card", "mask", "alpha", "nan"])
def test_gaps_are_known_from_card_internal_mask_alpha_and_nan(
    how: str, write_tiff: Any, write_site: Any, image: Any
) -> None:
    picture = image(height=64, width=128, dtype="float32" if how == "nan" else "uint8")
    picture[:, :, :64] = np.nan if how == "nan" else 250 if how == "card" else picture[:, :, :64]
    mask = np.full((64, 128), 255, np.uint8)
    mask[:, :64] = 0
    if how == "alpha":
        picture = np.concatenate([picture, mask[None]])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write_tiff("a.tif", picture, **({"photometric": "RGB", "alpha": "YES"} if how == "alpha" else {}))
        if how == "mask":
            with rasterio.open(path, "r+") as file:
                file.write_mask(mask)
    card = 'sensor = "rgb"' + ("\nnodata = 250" if how == "card" else "")
    chips = open_chips(write_site(card), RGB, 64, None)
    assert np.array_equal(chips.values, picture[None, :3, :, 64:])


def test_near_infrared_is_no_mask_even_if_the_file_calls_it_alpha(write_tiff: Any, write_site: Any, image: Any) -> None:
    picture = image(bands=4, height=64, width=64)
    picture[3] = 0  # dark water
    write_tiff("a.tif", picture, photometric="RGB", alpha="YES")
    chips = open_chips(write_site('sensor = "aerial-rgbn"'), [*RGB, "nir"], 64, None)
    assert np.array_equal(chips.values[0], picture)


def test_each_sensor_of_a_site_is_standardised_by_itself_and_pooled_in_physical_units(
    tmp_path: Path, write_tiff: Any, image: Any
) -> None:
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
    assert chips.values.dtype == np.uint16
    assert chips.origin.tolist() == [0, 0, 0, 1, 1, 1]
    for part in (range(3), range(3, 6)):
        np.testing.assert_allclose(chips.batch(part).mean((0, 2, 3)), 0, atol=1e-4)
        np.testing.assert_allclose(chips.batch(part).std((0, 2, 3)), 1, atol=1e-3)
    physical = np.concatenate([small * 0.004, large * 0.0002 - 0.1], axis=1).reshape(3, -1)
    np.testing.assert_allclose(chips.mean, physical.mean(1), rtol=1e-5)
    np.testing.assert_allclose(chips.std, physical.std(1), rtol=1e-5)


def test_files_of_unlike_types_meet_in_one_that_holds_both(write_tiff: Any, write_site: Any, image: Any) -> None:
    write_tiff("a.tif", image(dtype="uint16", height=64, width=64) * 200)
    write_tiff("b.tif", -image(dtype="int16", height=64, width=64))
    values = open_chips(write_site(), RGB, 64, None).values
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
    chips = Chips.of(values, ["red"])
    assert torch.equal(chips.batch([2, 0]), chips.batch(torch.tensor([2, 0])))
    assert chips.batch([2]).max() == 6


@pytest.mark.parametrize(("bands", "size"), [((), 64), (("red", "red"), 64), (RGB, 4), (RGB, 100_000)])
def test_an_impossible_request_is_refused(bands: Any, size: int, write_tiff: Any, write_site: Any, image: Any) -> None:
    write_tiff("a.tif", image())
    with pytest.raises(SiteError):
        open_chips(write_site(), bands, size, None)
