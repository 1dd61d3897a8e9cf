"""Scenes of several files: every band and every mask on the finest file's grid, or the scene is
named and left out."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform as reproject_points
from rasterio.windows import Window
from stored_chips import pixels_of

from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.opening import open_chips
from fedsense_core.data.raster.grids import Grid, GridMapping, bilinear, surrounding
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.schema import ChipGrid, Layer, MaskRule, Scene, Site, Source
from fedsense_core.data.sites.sensors import shipped_card
from fedsense_core.errors import SiteError

UTM = CRS.from_epsg(32633)
CARD = shipped_card("rgb", "test")
NAMES = ("red", "green", "blue")
Options = dict[str, Any]


def utm(pixel: float, left: float = 500_000.0, top: float = 5_000_000.0) -> Options:
    return {"crs": UTM, "transform": from_origin(left, top, pixel, pixel)}


@pytest.fixture
def write(write_tiff: Any) -> Callable[..., Path]:
    def write_band(name: str, band: np.ndarray[Any, Any], **profile: Any) -> Path:
        return write_tiff(name, band[None] if band.ndim == 2 else band, **profile)  # type: ignore[no-any-return]

    return write_band


def site_of(*scenes: Scene, limits: ReadLimits | None = None, overlap: float = 0.0, **source: Any) -> Site:
    one = Source(**({"sensor": "rgb", "card": CARD, "scenes": scenes} | source))
    return Site("here", "", Path("/site.toml"), (one,), limits or ReadLimits(), ChipGrid(overlap))


def layers(*paths: Path, mask: Path | None = None) -> Scene:
    """Red, green and blue, one file each."""
    return Scene(tuple(Layer(path, (i,)) for i, path in enumerate(paths)), mask)


def image_of(chips: Chips, height: int, width: int) -> np.ndarray[Any, Any]:
    """Put chips back where they were cut; where there was none is 0."""
    values = pixels_of(chips)
    out = np.zeros((values.shape[1], height, width), values.dtype)
    for chip, row, col in zip(values, chips.row, chips.col, strict=True):
        out[:, row : row + chip.shape[1], col : col + chip.shape[2]] = chip
    return out


def reasons(site: Site, bands: Sequence[str] = NAMES, size: int = 64) -> str:
    with pytest.raises(SiteError) as error:
        open_chips(site, bands, size, None)
    return str(error.value)


def test_files_on_one_grid_give_the_chips_of_one_file_with_all_bands(write: Any, image: Any) -> None:
    picture = image()
    one = write("all.tif", picture)
    three = [write(f"{i}.tif", band) for i, band in enumerate(picture)]
    expected = open_chips(site_of(Scene((Layer(one, (0, 1, 2)),))), NAMES, 64, None)
    got = open_chips(site_of(layers(*three)), NAMES, 64, None)
    assert np.array_equal(pixels_of(got), pixels_of(expected))
    mixed = Scene((Layer(write("bg.tif", picture[[2, 1]]), (2, 1)), Layer(three[0], (0,))))
    assert np.array_equal(
        pixels_of(open_chips(site_of(mixed), ["blue", "red"], 64, None)), pixels_of(expected)[:, [2, 0]]
    )


def test_only_files_with_requested_bands_are_opened_and_set_the_grid(write: Any, image: Any, tmp_path: Path) -> None:
    fine, coarse = write("fine.tif", image(1)[0], **utm(10)), write("coarse.tif", image(1, 64, 96)[0], **utm(20))
    (tmp_path / "broken.tif").write_text("broken")
    site = site_of(layers(fine, coarse, tmp_path / "broken.tif"))
    assert pixels_of(open_chips(site, ["red", "green"], 64, None)).shape == (6, 2, 64, 64)
    assert pixels_of(open_chips(site, ["green"], 32, None)).shape == (6, 1, 32, 32)
    assert "broken.tif is no readable GeoTIFF" in reasons(site)


@pytest.mark.parametrize("georeferenced", [True, False])
@pytest.mark.parametrize("ratio", [2, 3, 6])
def test_a_coarser_band_is_interpolated_at_pixel_centres(
    georeferenced: bool, ratio: int, write: Any, image: Any
) -> None:
    height, width = 144, 192
    small = image(1, height // ratio, width // ratio, "uint16")[0] * 100
    fine = write("fine.tif", image(1, height, width, "uint16")[0], **(utm(10) if georeferenced else {}))
    coarse = write("coarse.tif", small, **(utm(10 * ratio) if georeferenced else {}))
    chips = open_chips(site_of(layers(fine, coarse)), ["red", "green"], 48, None)
    y, x = ((np.arange(n) + 0.5) / ratio - 0.5 for n in (height, width))
    rows = np.stack([np.interp(y, np.arange(len(small)), column) for column in small.T.astype(float)], axis=1)
    expected = np.stack([np.interp(x, np.arange(small.shape[1]), row) for row in rows])
    got = image_of(chips, height, width)[1]
    assert got.dtype == np.uint16
    np.testing.assert_allclose(got, expected, atol=0.51)


@pytest.mark.parametrize("other", [UTM, CRS.from_epsg(32634), CRS.from_epsg(4326)])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_resampling_does_not_depend_on_windows(other: CRS, dtype: str, write: Any, image: Any) -> None:
    height, width = 150, 210
    fine = write("fine.tif", image(1, height, width, dtype)[0], **utm(10))
    (left, right), (top, bottom) = reproject_points(UTM, other, [499_900, 502_300], [5_000_100, 4_998_300])
    size = (right - left) / 71
    options = {"crs": other, "transform": from_origin(left, top, size, (top - bottom) / 59)}
    small = image(1, 59, 71, dtype)[0]
    small[20:24, 30:40] = 0
    coarse = write("coarse.tif", small, nodata=0, **options)
    scene = layers(fine, coarse)
    results = []
    for most in (1, 30_000, 1 << 26):
        site = site_of(scene, limits=ReadLimits(max_window_bytes=most, min_valid=0.01))
        results.append(image_of(open_chips(site, ["red", "green"], 30, None), height, width))
    assert np.array_equal(results[0], results[2])
    assert np.array_equal(results[1], results[2])
    assert len(np.unique(results[0][1])) > 100


def test_another_coordinate_system_is_transformed_exactly(write: Any) -> None:
    """A band that holds its own ground's coordinates must show the finer file's coordinates after
    resampling."""
    height, width = 120, 180
    other = CRS.from_epsg(32634)
    (left,), (top,) = reproject_points(UTM, other, [500_000], [5_000_000])
    west, north = left - 1500, top + 1500
    across, down = np.meshgrid((np.arange(260) + 0.5) * 20, (np.arange(260) + 0.5) * 20)
    fine = write("fine.tif", np.ones((height, width), np.float32), **utm(10))
    grid = {"crs": other, "transform": from_origin(west, north, 20, 20)}
    x_file, y_file = (write(f"{i}.tif", part.astype(np.float32), **grid) for i, part in enumerate((across, down)))
    got = image_of(open_chips(site_of(layers(fine, x_file, y_file)), NAMES, 60, None), height, width)
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    xs, ys = reproject_points(UTM, other, (500_000 + 10 * columns).ravel(), (5_000_000 - 10 * rows).ravel())
    np.testing.assert_allclose(got[1], np.reshape(xs, (height, width)) - west, atol=0.01)
    np.testing.assert_allclose(got[2], north - np.reshape(ys, (height, width)), atol=0.01)


@pytest.mark.parametrize("missing", ["file", "card", "nan"])
def test_nodata_of_a_coarser_band_bleeds_into_no_valid_pixel(missing: str, write: Any) -> None:
    small = np.full((48, 48), 100, np.float32 if missing == "nan" else np.uint16)
    small[10:14, 20:30] = np.nan if missing == "nan" else 60_000
    fine = write("fine.tif", np.full((96, 96), 7, small.dtype), **utm(10))
    coarse = write("coarse.tif", small, **utm(20), **({"nodata": 60_000} if missing == "file" else {}))
    card = CARD.model_copy(update={"nodata_bands": "any", "nodata": 60_000.0 if missing == "card" else None})
    chips = open_chips(site_of(layers(fine, coarse), card=card), ["red", "green"], 96, None)
    assert chips.statistics[0].minimum.tolist() == [7, 100]
    assert chips.statistics[0].maximum.tolist() == [7, 100]
    assert chips.valid.tolist() == [np.float32(1 - 8 * 20 / 96**2)]
    assert (pixels_of(chips)[0, 1] == 100).all()


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
def test_nodata_of_a_coarser_band_alone_is_a_number_that_bleeds_into_no_other_pixel(dtype: str, write: Any) -> None:
    small = np.full((48, 48), 100, dtype)
    small[10:14, 20:30] = 0  # such as water in the infrared
    picture = np.full((96, 96), 7, dtype)
    picture[20:24, 40:50] = 0
    fine, coarse = write("fine.tif", picture, nodata=0, **utm(10)), write("coarse.tif", small, nodata=0, **utm(20))
    chips = open_chips(site_of(layers(fine, coarse)), ["red", "green"], 96, None)
    missing, dark = np.zeros((2, 96, 96), dtype=bool)
    missing[20:24, 40:50] = True
    dark[20:28, 40:60] = True
    assert chips.valid.tolist() == [np.float32(1 - 4 * 10 / 96**2)], "nodata is where both files hold it"
    assert (pixels_of(chips)[0, 0][~missing] == 7).all()
    assert np.array_equal(pixels_of(chips)[0, 1][~missing], np.where(dark, 0, 100)[~missing])


def test_what_one_file_lacks_is_missing_in_the_scene(write: Any, image: Any) -> None:
    """A mask, a hole of a sparse file and not-a-number are no measurement, whatever the others
    say."""
    whole = write("whole.tif", image(1, 64, 192, "float32")[0], nodata=0)
    holes = image(1, 64, 192, "float32")[0]
    holes[:32, :64] = np.nan
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        other = write("other.tif", holes)
        with rasterio.open(other, "r+") as file:
            file.write_mask(np.repeat([True, False, True], 64)[None].repeat(64, axis=0))
    chips = open_chips(site_of(layers(whole, other), limits=ReadLimits(min_valid=0.1)), ["red", "green"], 64, None)
    assert dict(zip(chips.col.tolist(), chips.valid.tolist(), strict=True)) == {0: 0.5, 128: 1.0}


def test_outside_a_smaller_file_there_is_no_measurement(write: Any, image: Any) -> None:
    fine = write("fine.tif", image(1, 128, 128)[0], **utm(10))
    half = write("half.tif", image(1, 64, 32)[0], **utm(20))  # covers the left half
    assert open_chips(site_of(layers(fine, half)), ["red", "green"], 64, None).col.tolist() == [0, 0]


def test_files_that_do_not_belong_together_are_named_with_what_was_expected(write: Any, image: Any) -> None:
    fine = write("fine.tif", image(1)[0], **utm(10))
    elsewhere = write("elsewhere.tif", image(1, 64, 96)[0], **utm(20, left=900_000))
    assert "elsewhere.tif has no ground in common" in reasons(site_of(layers(fine, elsewhere)), ["red", "green"])
    plain, odd = write("plain.tif", image(1)[0]), write("odd.tif", image(1, 64, 90)[0])
    words = reasons(site_of(layers(plain, odd)), ["red", "green"])
    assert "odd.tif has 90 x 64 pixels, not of the same shape as the finest file's 192 x 128" in words
    local = CRS.from_wkt('LOCAL_CS["mine",UNIT["metre",1]]')
    stray = write("stray.tif", image(1, 64, 96)[0], crs=local, transform=from_origin(0, 0, 20, 20))
    assert "stray.tif has coordinates" in reasons(site_of(layers(fine, stray)), ["red", "green"])


def test_a_band_without_a_file_is_named(write: Any, image: Any) -> None:
    words = reasons(site_of(layers(write("a.tif", image(1)[0]))), ["red", "blue"])
    assert "has no file with the band blue" in words


def test_a_file_with_other_bands_than_the_scene_says_stops_the_site(write: Any, image: Any) -> None:
    site = site_of(layers(write("a.tif", image(2)), write("b.tif", image(1)[0])))
    assert "a.tif: holds 2 bands, but the site file says that it has 1 (red)" in reasons(site, ["red", "green"])


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_a_scene_classification_drops_pixels_by_class_and_flags_by_bit(ratio: int, write: Any, image: Any) -> None:
    picture = image(height=96, width=192)
    fine = write("a.tif", picture, **utm(10))
    classes = np.full((96 // ratio, 192 // ratio), 4, np.uint16)
    classes[: 24 // ratio, : 48 // ratio] = 9
    flags = np.where(classes == 9, 0b1010, 0b0101).astype(np.uint16)
    scene = Scene((Layer(fine, (0, 1, 2)),), write("scl.tif", classes, **utm(10 * ratio)))
    qa = Scene((Layer(fine, (0, 1, 2)),), write("qa.tif", flags, **utm(10 * ratio)))
    for one, rule in (
        (scene, MaskRule(drop=(3, 9))),
        (qa, MaskRule(drop_bits=(3,))),
        (qa, MaskRule(drop=(10,), drop_bits=(5,))),
    ):
        chips = open_chips(site_of(one, mask=rule, limits=ReadLimits(min_valid=0.5)), NAMES, 96, None)
        assert chips.valid.tolist() == [np.float32(1 - 24 * 48 / 96**2), 1]
        used = np.ones((96, 192), dtype=bool)
        used[:24, :48] = False
        np.testing.assert_allclose(chips.origin_mean[0], picture[:, used].mean(1), rtol=1e-6)
        assert len(open_chips(site_of(one, mask=rule), NAMES, 96, None)) == 1
    kept = MaskRule(keep=(4,))
    assert open_chips(site_of(scene, mask=kept), NAMES, 96, None).col.tolist() == [96]
    (tmp := fine.parent / "broken.tif").write_text("")
    assert len(open_chips(site_of(Scene(scene.layers, tmp)), NAMES, 96, None)) == 2, "no rule, no mask"
    assert "broken.tif is no readable" in reasons(site_of(Scene(scene.layers, tmp), mask=MaskRule((9,))))


@pytest.mark.parametrize(
    ("grid", "gsd_m"),
    [
        (utm(10), 10),
        ({"crs": CRS.from_epsg(2263), "transform": from_origin(9e5, 2e5, 30, 30)}, 9.144),
        ({"crs": CRS.from_epsg(4326), "transform": from_origin(10, 60, 1e-4, 1e-4)}, 7.8626),
        ({}, 1),
    ],
)
def test_pixel_sizes_outside_the_range_are_skipped(grid: Options, gsd_m: float, write: Any, image: Any) -> None:
    scene = Scene((Layer(write("a.tif", image(), **grid), (0, 1, 2)),))
    for low, high in ((gsd_m, gsd_m + 1), (gsd_m - 0.5, gsd_m)):
        assert len(open_chips(site_of(scene, gsd_range_m=(low, high)), NAMES, 64, None)) == 6
    for low, high in ((gsd_m * 1.01, 99.0), (0.1, gsd_m * 0.99)):
        words = reasons(site_of(scene, gsd_range_m=(low, high)))
        assert f"has pixels of {gsd_m:.4g} m" in words
        assert "gsd_range_m" in words


@pytest.mark.parametrize(("overlap", "stride"), [(0.5, 32), (0.75, 16), (0.3, 45)])
@pytest.mark.parametrize("block", [(16, 16), (64, 64), (128, 256)])
@pytest.mark.parametrize("window_bytes", [1, 100_000, 1 << 26])
def test_overlapping_chips_are_those_of_a_sliding_window(
    overlap: float, stride: int, block: tuple[int, int], window_bytes: int, write: Any, image: Any
) -> None:
    picture = image(height=200, width=250)
    path = write("a.tif", picture, blockysize=block[0], blockxsize=block[1])
    site = site_of(Scene((Layer(path, (0, 1, 2)),)), overlap=overlap, limits=ReadLimits(max_window_bytes=window_bytes))
    chips = open_chips(site, NAMES, 64, None)
    corners = sorted(zip(chips.row.tolist(), chips.col.tolist(), strict=True))
    assert corners == [(y, x) for y in range(0, 137, stride) for x in range(0, 187, stride)]
    for chip, y, x in zip(pixels_of(chips), chips.row, chips.col, strict=True):
        assert np.array_equal(chip, picture[:, y : y + 64, x : x + 64])


def test_a_digest_list_finds_a_flipped_bit_and_a_stranger(write: Any, image: Any) -> None:
    paths = [write(f"{name}.tif", image(seed=i), compress=None) for i, name in enumerate("abc")]
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths[:2]}
    data = bytearray(paths[1].read_bytes())
    data[-1000] ^= 1
    paths[1].write_bytes(bytes(data))
    scenes = [Scene((Layer(path, (0, 1, 2)),)) for path in paths]
    assert open_chips(site_of(*scenes), NAMES, 64, None).skipped == (), "GDAL reads it without complaint"
    chips = open_chips(site_of(*scenes, digests=digests), NAMES, 64, None)
    assert chips.scene_paths == (str(paths[0]),)
    assert "SHA-256" in chips.skipped[0].reason
    assert "not in the list of digests" in chips.skipped[1].reason


@pytest.mark.parametrize(("suffix", "driver"), [("png", "PNG"), ("jpg", "JPEG")])
def test_plain_pictures_are_read_and_nothing_else_under_their_names(
    suffix: str, driver: str, tmp_path: Path, write_tiff: Any, image: Any
) -> None:
    path = tmp_path / f"a.{suffix}"
    with rasterio.open(path, "w", driver=driver, count=3, width=192, height=128, dtype="uint8") as file:
        file.write(image())
    with rasterio.open(path) as file:
        expected = file.read()
    scene = Scene((Layer(path, (0, 1, 2)),))
    chips = open_chips(site_of(scene, limits=ReadLimits(max_window_bytes=50_000)), NAMES, 64, None)
    assert np.array_equal(image_of(chips, 128, 192), expected)
    write_tiff("b.tif", image()).rename(path)
    assert f"is no readable {driver}" in reasons(site_of(scene))


def test_rasters_that_only_turn_into_each_other_are_placed_by_their_transforms() -> None:
    fine = Grid(40, 40, from_origin(0, 40, 1, 1), UTM)
    turned = Grid(30, 30, rasterio.Affine(1.4, 1.4, 10, -1.4, 1.4, 20), UTM)
    mapping = GridMapping.of(fine, turned)
    rows, columns = mapping.positions(Window(5, 7, 20, 10))
    values = np.random.default_rng(0).normal(size=(1, 30, 30)).astype(np.float32)
    part = surrounding(rows, columns, turned)
    assert part is not None
    whole_rows, whole_columns = mapping.positions(Window(0, 0, 40, 40))
    whole, _ = bilinear(values, None, whole_rows, whole_columns, Window(0, 0, 30, 30))
    cut = values[:, part.row_off : part.row_off + part.height, part.col_off : part.col_off + part.width]
    assert np.array_equal(bilinear(cut, None, rows, columns, part)[0], whole[:, 7:17, 5:25])


def test_pixels_without_coordinates_are_not_taken_for_the_finest(write: Any, image: Any) -> None:
    fine = write("fine.tif", image(1)[0], **utm(10))
    coarse = write("coarse.tif", image(1, 64, 96)[0], transform=from_origin(500_000.0, 5_000_000.0, 20, 20))
    chips = open_chips(site_of(layers(coarse, fine)), ["red", "green"], 64, None)
    assert np.array_equal(image_of(chips, 128, 192)[1], image(1)[0]), "the finest file's pixels are not interpolated"


def peak_bytes(site: Site, bands: Sequence[str], size: int) -> int:
    tracemalloc.start()
    try:
        open_chips(site, bands, size, None)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_overlap(write: Any, image: Any) -> None:
    path = write("a.tif", image(height=512, width=512))
    limits = ReadLimits(max_chips=100, max_window_bytes=4 << 20)
    site = site_of(Scene((Layer(path, (0, 1, 2)),)), limits=limits, overlap=0.97)
    # A hundred chips and their statistics; all those of one window would have 500 MB.
    assert peak_bytes(site, NAMES, 128) < 48 << 20


def test_overlapping_chips_that_are_cut_part_by_part_are_all_there_in_order(write: Any, image: Any) -> None:
    picture = image(height=70, width=90)
    picture[:, :9, :9] = 0
    path = write("a.tif", picture, nodata=0)
    scene = Scene((Layer(path, (0, 1, 2)),))
    corners = [(y, x) for y in range(0, 70 - 32 + 1, 8) for x in range(0, 90 - 32 + 1, 8)]
    for chips_at_once in (1, 3, 8, 9, 17, 1000):
        limits = ReadLimits(min_valid=0.5, max_window_bytes=max(70 * 90 * 6, chips_at_once * 3 * 32 * 32))
        chips = open_chips(site_of(scene, limits=limits, overlap=0.75), NAMES, 32, None)
        assert list(zip(chips.row.tolist(), chips.col.tolist(), strict=True)) == corners
        for chip, (y, x) in zip(pixels_of(chips), corners, strict=True):
            expected = picture[:, y : y + 32, x : x + 32]
            assert np.array_equal(chip[expected > 0], expected[expected > 0])


@pytest.mark.parametrize("turned", [True, False])
def test_memory_does_not_grow_with_turned_or_other_coordinates(turned: bool, write: Any, image: Any) -> None:
    fine = write("fine.tif", image(1, 1024, 1024)[0], **utm(10))
    (left, _), (bottom, top) = reproject_points(
        UTM, CRS.from_epsg(32634), [500_000.0, 510_240.0], [4_989_760.0, 5_000_000.0]
    )
    other = (
        {"crs": UTM, "transform": Affine(40, 2, 495_000, 2, -40, 5_005_000)}
        if turned
        else {"crs": CRS.from_epsg(32634), "transform": from_origin(left, max(top, bottom), 20, 20)}
    )
    classes = write("scl.tif", image(1, 512, 512)[0], **other)
    scene = Scene((Layer(fine, (0,)),), classes)
    site = site_of(scene, mask=MaskRule((3,)), limits=ReadLimits(min_valid=0.01))
    # One MB of pixels: all their positions at once would have 16 MB, and several copies.
    assert peak_bytes(site, ["red"], 128) < 32 << 20


def test_a_position_on_the_upper_edge_of_the_first_pixel_lies_in_it() -> None:
    # As `nearest` has it: a window that reaches just so far is no other than a larger one.
    grid, first = Grid(4, 4, None, None), np.array([[0.0]])
    edge = np.array([[-0.5]])
    assert surrounding(edge, first, grid) == surrounding(first, edge, grid) == Window(0, 0, 1, 1)
    assert surrounding(edge - 1e-6, first, grid) is None
    assert surrounding(edge + 4, first, grid) is None
