"""JPEG 2000 as Sentinel-2 has it: the pixels of a GeoTIFF of the same image, and no lie costs
memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from jpeg2000_files import SIZ, jpeg2000, lying, tile_parts, write_jpeg2000
from stored_chips import pixels_of

from fedsense_core.data.opening import open_chips
from fedsense_core.data.raster.files import open_raster
from fedsense_core.data.raster.formats import GDAL_OPTIONS, Unreadable
from fedsense_core.data.raster.grids import Grid
from fedsense_core.data.raster.jpeg2000 import check_blocks, check_codestream, read_claims
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.errors import SiteError

RGB = ("red", "green", "blue")
BAND = ('sensor = "sentinel2-l2a"\nbands = ["B04"]', "*.jp2")


@pytest.fixture
def counts() -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(1, 1 << 15, (1, 150, 210)).astype("uint16")


@pytest.mark.parametrize("tile", [64, 48, 1024])
@pytest.mark.parametrize("window_bytes", [1, 1 << 26])
def test_pixels_are_those_that_were_written_whatever_the_tiles_and_windows(
    tile: int, window_bytes: int, counts: Any, tmp_path: Path, write_site: Any
) -> None:
    write_jpeg2000(tmp_path / "T32TQM_20230605T101559_B04_10m.jp2", counts, tile=tile)
    chips = open_chips(write_site(*BAND), ["red"], 64, None, ReadLimits(max_window_bytes=window_bytes))
    expected = {counts[:, y : y + 64, x : x + 64].tobytes() for y in (0, 64) for x in (0, 64, 128)}
    assert {chip.tobytes() for chip in pixels_of(chips)} == expected
    assert len(chips) == 6


def test_bands_of_two_pixel_sizes_meet_by_the_georeference_inside(tmp_path: Path, write_site: Any) -> None:
    fine = np.random.default_rng(0).integers(1, 9000, (1, 128, 128)).astype("uint16")
    coarse = np.random.default_rng(1).integers(1, 9000, (1, 64, 64)).astype("uint16")
    write_jpeg2000(tmp_path / "a_B04.jp2", fine)
    write_jpeg2000(tmp_path / "a_B11.jp2", coarse, metres=20)
    site = write_site('sensor = "sentinel2-l2a"', "{scene}_{band}.jp2")
    values = pixels_of(open_chips(site, ["red", "swir_1"], 128, None))[0]
    assert np.array_equal(values[0], fine[0])
    # Half-way between centres of 20 m and 10 m a quarter of the weight is the other pixel's.
    row = coarse[0, 0].astype(float)
    assert values[1, 0, 2] == round(float(np.float32(0.25 * row[0] + 0.75 * row[1])))


def test_a_raw_codestream_is_read_as_well(tmp_path: Path, write_site: Any) -> None:
    image = np.random.default_rng(0).integers(1, 250, (3, 64, 64)).astype("uint8")
    data = jpeg2000(image)
    (tmp_path / "a.j2k").write_bytes(data[data.index(SIZ) :])
    assert np.array_equal(pixels_of(open_chips(write_site(paths="*.j2k"), RGB, 64, None))[0], image)


def test_files_beside_a_picture_are_not_followed(counts: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.j2k"
    data = jpeg2000(counts)
    path.write_bytes(data[data.index(SIZ) :])
    for suffix in (".j2w", ".wld"):
        path.with_suffix(suffix).write_text("7.0\n0\n0\n-7.0\n1000\n2000\n")
    (tmp_path / "a.j2k.aux.xml").write_text("<PAMDataset><GeoTransform>9,7,0,9,0,-7</GeoTransform></PAMDataset>")
    with rasterio.Env(**GDAL_OPTIONS), open_raster(path) as file:
        assert Grid.of(file).transform is None


def test_claims_are_those_of_the_header(counts: Any) -> None:
    claims = read_claims(io.BytesIO(jpeg2000(counts)))
    assert (claims.width, claims.height, claims.tile_width, claims.tile_height) == (210, 150, 64, 64)
    assert (claims.tiles, claims.bands, claims.same_size) == (12, 1, True)
    check_blocks(claims, (64, 64), 1 << 30, ReadLimits(max_block_bytes=64 * 64 * 4))


def test_without_tiles_all_compressed_data_counts() -> None:
    claims = read_claims(io.BytesIO(jpeg2000(np.ones((1, 100, 100), "uint8"), tile=128)))
    assert claims.tiles == 1
    check_blocks(claims, (100, 100), 5000, ReadLimits(max_block_bytes=45_000))
    with pytest.raises(Unreadable, match="has no tiles, and decoding takes 45000 bytes, more than 44999"):
        check_blocks(claims, (100, 100), 5000, ReadLimits(max_block_bytes=44_999))


LIES = {
    "a giant picture in tiny tiles, memory for each of which is set aside at opening": {
        "tile_width": 1,
        "tile_height": 1,
    },
    "terapixels": {"x1": 1 << 31, "y1": 1 << 31, "tile_width": 1 << 31, "tile_height": 1 << 31},
    "one tile of 16 GB": {"x1": 1 << 16, "y1": 1 << 16, "tile_width": 1 << 16, "tile_height": 1 << 16},
    "a corner behind the end": {"x0": 5000},
    "tiles without a side": {"tile_width": 0},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header_is_skipped_and_named(lie: str, counts: Any, tmp_path: Path, write_site: Any) -> None:
    write_jpeg2000(tmp_path / "a.jp2", counts)
    (tmp_path / "b.jp2").write_bytes(lying(jpeg2000(counts), **LIES[lie]))
    chips = open_chips(write_site(*BAND), ["red"], 64, None)
    assert [Path(item.path).name for item in chips.skipped] == ["b.jp2"]
    assert len(chips) == 6


def test_memory_for_tiles_is_refused_before_the_library_sets_it_aside(counts: Any) -> None:
    with pytest.raises(Unreadable, match=r"claims 31500 tiles of 1 bands, for which \d+ bytes would be set aside"):
        check_codestream(io.BytesIO(lying(jpeg2000(counts), tile_width=1, tile_height=1)), ReadLimits())


def test_the_size_of_tiles_is_limited_as_they_are_decoded(counts: Any, tmp_path: Path, write_site: Any) -> None:
    write_jpeg2000(tmp_path / "a.jp2", np.tile(counts, (1, 2, 2)), tile=256)
    with pytest.raises(
        SiteError, match="has tiles of 256 x 256 pixels, and decoding takes 262144 bytes, more than 100000"
    ):
        open_chips(write_site(*BAND), ["red"], 64, None, ReadLimits(max_block_bytes=100_000))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.95, 0.999])
def test_a_file_that_ends_early_is_never_read_as_other_pixels(
    share: float, counts: Any, tmp_path: Path, write_site: Any
) -> None:
    path = write_jpeg2000(tmp_path / "a.jp2", counts[:, :128, :192])
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(SiteError, match=r"1 of 1 files, such as .*a\.jp2"):
        open_chips(write_site(*BAND), ["red"], 64, None)


@pytest.mark.parametrize(("tile", "lost"), [(64, 0), (64, 3), (64, 5), (32, 7)])
def test_a_file_that_lost_a_tile_is_never_read_as_other_pixels(
    tile: int, lost: int, counts: Any, tmp_path: Path, write_site: Any
) -> None:
    data = jpeg2000(counts[:, :128, :192], tile=tile)
    starts, end = tile_parts(data)
    starts.append(end)
    (tmp_path / "a.jp2").write_bytes(data[: starts[lost]] + data[starts[lost + 1] :])
    with pytest.raises(SiteError, match="cannot be decoded"):
        open_chips(write_site(*BAND), ["red"], 64, None)


@pytest.mark.parametrize("side", [1, 8, 24, 31])
def test_tiles_that_are_not_there_are_no_zeros(side: int, counts: Any, tmp_path: Path, write_site: Any) -> None:
    data = jpeg2000(counts[:, :64, :64], tile=32)
    (tmp_path / "a.jp2").write_bytes(lying(data, tile_width=side, tile_height=side))
    with pytest.raises(SiteError, match=f"has tiles of {side} x {side} pixels, too small"):
        open_chips(write_site(*BAND), ["red"], 64, None)


def test_what_follows_the_picture_does_not_matter(counts: Any, tmp_path: Path, write_site: Any) -> None:
    path = write_jpeg2000(tmp_path / "a.jp2", counts)
    right = pixels_of(open_chips(write_site(*BAND), ["red"], 64, None))
    path.write_bytes(path.read_bytes() + b"garbage" * 100)
    assert np.array_equal(pixels_of(open_chips(write_site(*BAND), ["red"], 64, None)), right)


def test_a_tiff_by_the_name_of_a_jp2_is_named(write_tiff: Any, write_site: Any, image: Any) -> None:
    write_tiff("a.tif", image())
    write_tiff("b.jp2", image())
    (skipped,) = open_chips(write_site(paths="*.*[f2]"), RGB, 64, None).skipped
    assert skipped.reason == "is no readable JPEG 2000 (it does not begin as one)"
