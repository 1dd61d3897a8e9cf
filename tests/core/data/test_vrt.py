"""VRT mosaics and stacks as gdalbuildvrt writes them are read; whatever leads elsewhere or computes
is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from stored_chips import pixels_of

from fedsense_core.data.opening import open_chips
from fedsense_core.data.raster.files import open_raster
from fedsense_core.data.raster.formats import GDAL_OPTIONS, Unreadable
from fedsense_core.errors import SiteError

RGB = ("red", "green", "blue")
Build = Callable[..., Path]


def source(name: str, band: int = 1, x: float = 0, side: int = 128, kind: str = "SimpleSource", more: str = "") -> str:
    """Return one source in the words of gdalbuildvrt 3.10."""
    return (
        f'<{kind}><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>{band}</SourceBand>'
        f'<SourceProperties RasterXSize="{side}" RasterYSize="{side}" DataType="Byte" BlockXSize="64" BlockYSize="64"/>'
        f'<SrcRect xOff="0" yOff="0" xSize="{side}" ySize="{side}" />'
        f'<DstRect xOff="{x}" yOff="0" xSize="128" ySize="128" />{more}</{kind}>'
    )


def bands(*contents: str, head: str = 'dataType="Byte"', nodata: str = "") -> str:
    parts = (f'<VRTRasterBand {head} band="{i}">{nodata}{text}</VRTRasterBand>' for i, text in enumerate(contents, 1))
    return "".join(parts)


def mosaic(inside: str, width: int = 256, head: str = "") -> str:
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="128"{head}>'
        '<SRS dataAxisToSRSAxisMapping="1,2">EPSG:32632</SRS>'
        f"<GeoTransform>5.0e+05, 1.0e+01, 0, 5.0e+06, 0, -1.0e+01</GeoTransform>{inside}"
        "<OverviewList>2 4</OverviewList></VRTDataset>"
    )


TWO = bands(*(source("a.tif", i) + source("b.tif", i, 128) for i in (1, 2, 3)))


@pytest.fixture
def tiles(write_tiff: Any, image: Any) -> list[np.ndarray[Any, Any]]:
    """Write a.tif, and b.tif east of it."""
    pictures = [image(width=128, seed=seed) for seed in (1, 2)]
    for name, picture, x in zip("ab", pictures, (5e5, 501280), strict=True):
        write_tiff(f"{name}.tif", picture, crs="EPSG:32632", transform=from_origin(x, 5e6, 10, 10))
    return pictures


def refusal(path: Path) -> str:
    with rasterio.Env(**GDAL_OPTIONS), pytest.raises(Unreadable) as error, open_raster(path):
        pass
    return str(error.value)


def test_a_mosaic_has_the_pixels_of_its_files(tiles: Any, tmp_path: Path, write_site: Any) -> None:
    (tmp_path / "m.vrt").write_text(mosaic(TWO))
    values = pixels_of(open_chips(write_site(paths="*.vrt"), RGB, 128, None))
    assert np.array_equal(values, tiles)


def test_a_stack_has_a_band_of_each_file(write_tiff: Any, image: Any, tmp_path: Path, write_site: Any) -> None:
    picture = image(width=128)
    for name, band in zip(RGB, picture, strict=True):
        write_tiff(f"x/{name}.tif", band[None])
    (tmp_path / "m.vrt").write_text(mosaic(bands(*(source(f"x/{name}.tif") for name in RGB)), width=128))
    assert np.array_equal(pixels_of(open_chips(write_site(paths="*.vrt"), RGB, 128, None))[0], picture)


def test_what_no_file_covers_is_no_measurement(tiles: Any, tmp_path: Path, write_site: Any) -> None:
    hole = [source("a.tif", i) for i in (1, 2, 3)]
    (tmp_path / "m.vrt").write_text(mosaic(bands(*hole)))
    assert "is a VRT with pixels that none of its files covers, and no nodata value" in refusal(tmp_path / "m.vrt")
    (tmp_path / "m.vrt").write_text(mosaic(bands(*hole, nodata="<NoDataValue>0</NoDataValue>")))
    assert np.array_equal(pixels_of(open_chips(write_site(paths="*.vrt"), RGB, 128, None)), tiles[:1])


def test_chips_are_cut_anew_when_a_source_changes(
    tiles: Any, write_tiff: Any, image: Any, tmp_path: Path, write_site: Any
) -> None:
    (tmp_path / "m.vrt").write_text(mosaic(TWO))
    open_chips(write_site(paths="*.vrt"), RGB, 128, tmp_path / "cache")
    other = image(width=128, seed=9)
    write_tiff("b.tif", other, crs="EPSG:32632", transform=from_origin(501280, 5e6, 10, 10))
    values = pixels_of(open_chips(write_site(paths="*.vrt"), RGB, 128, tmp_path / "cache"))
    assert np.array_equal(values, [tiles[0], other])


PIXEL_FUNCTION = (
    "<PixelFunctionType>mul</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
    "<PixelFunctionCode><![CDATA[import os]]></PixelFunctionCode>"
)
DERIVED = 'dataType="Byte" subClass="VRTDerivedRasterBand"'
RAW = 'dataType="Byte" subClass="VRTRawRasterBand"'
ELSEWHERE = "which is not below its folder"
REFUSED: dict[str, tuple[str, str]] = {
    "a derived band": (mosaic(bands(source("a.tif"), head=DERIVED)), "subClass"),
    "a pixel function": (mosaic(bands(source("a.tif") + PIXEL_FUNCTION)), "document type or raw text"),
    "a raw band": (mosaic(bands("<SourceFilename>/etc/passwd</SourceFilename>", head=RAW)), "subClass"),
    "a warped VRT": (mosaic(TWO, head=' subClass="VRTWarpedDataset"'), "subClass"),
    "a pansharpened VRT": (mosaic("<PansharpeningOptions/>" + TWO), "<PansharpeningOptions>"),
    "a nested VRT": (mosaic(bands(source("inner.vrt"))), "its files may end in .tif"),
    "an address": (mosaic(bands(source("/vsicurl/http://127.0.0.1:9/x.tif"))), "which is no plain path"),
    "a connection string": (mosaic(bands(source("NETCDF:a.nc:x"))), "which is no plain path"),
    "a VRT as a name": (mosaic(bands(source("&lt;VRTDataset&gt;&lt;/VRTDataset&gt;.tif"))), "which is no plain path"),
    "an absolute path": (mosaic(bands(source("/etc/passwd.tif"))), ELSEWHERE),
    "a path upwards": (mosaic(bands(source("../x.tif"))), ELSEWHERE),
    "a link that leads out": (mosaic(bands(source("link.tif"))), ELSEWHERE),
    "a mask band": (mosaic(TWO + "<MaskBand></MaskBand>"), "<MaskBand>"),
    "an overview elsewhere": (mosaic(bands("<Overview></Overview>")), "<Overview>"),
    "a look-up table": (mosaic(bands(source("a.tif", kind="ComplexSource", more="<LUT>0:0,9:1</LUT>"))), "<LUT>"),
    "scaled numbers": (
        mosaic(bands(source("a.tif", kind="ComplexSource", more="<ScaleRatio>2</ScaleRatio>"))),
        "<ScaleRatio>",
    ),
    "a filtered source": (mosaic(bands(source("a.tif", kind="KernelFilteredSource"))), "<KernelFilteredSource>"),
    "open options": (mosaic(bands(source("a.tif", more="<OpenOptions/>"))), "<OpenOptions>"),
    "a billion laughs": ('<!DOCTYPE x [<!ENTITY a "aaaa">]>' + mosaic(TWO), "document type"),
    "another type": (mosaic(bands(source("a.tif"), head='dataType="UInt16"'), 128), "of type uint16 over a.tif"),
    "pixels of another size": (mosaic(bands(source("a.tif", side=1))), "times as large or small"),
    "a file that is gone": (mosaic(bands(source("gone.tif"))), "no such file"),
    "a file of another format": (mosaic(bands(source("text.tif"))), "is no readable GeoTIFF"),
    "a band that is not there": (mosaic(bands(source("a.tif", 7))), "band 7 of a.tif, which has 3"),
    "no number": (mosaic(bands(source("a.tif", "x"))), "the band 'x'"),  # type: ignore[arg-type]
    "impossible sides": (mosaic(TWO, width=-5), "rasterXSize"),
    "no bands": (mosaic(""), "without bands"),
    "no VRT": ("<Other/>", "it is <Other>"),
    "no XML": ("II*\0", "document type or raw text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_leads_elsewhere_or_computes_is_refused_by_name(case: str, tiles: Any, tmp_path: Path) -> None:
    text, says = REFUSED[case]
    (tmp_path / "text.tif").write_text("no image")
    (tmp_path / "inner.vrt").write_text(mosaic(TWO))
    (tmp_path / "link.tif").symlink_to("/etc/hostname")
    (tmp_path / "m.vrt").write_text(text)
    reason = refusal(tmp_path / "m.vrt")
    assert says in reason
    assert len(reason) < 400


def test_a_nodata_value_of_a_source_that_the_mosaic_forgets_is_refused(
    write_tiff: Any, image: Any, tmp_path: Path
) -> None:
    write_tiff("a.tif", image(width=128), nodata=7)
    path = tmp_path / "m.vrt"
    for inside in (
        bands(source("a.tif")),
        bands(source("a.tif"), nodata="<NoDataValue>0</NoDataValue>"),
        bands(source("a.tif", kind="ComplexSource", more="<NODATA>0</NODATA>"), nodata="<NoDataValue>0</NoDataValue>"),
    ):
        path.write_text(mosaic(inside, 128))
        assert "in which the nodata value of a.tif, 7, is a measurement" in refusal(path)
    # As gdalbuildvrt writes it.
    tile = source("a.tif", kind="ComplexSource", more="<NODATA>7</NODATA>")
    path.write_text(mosaic(bands(tile, nodata="<NoDataValue>7</NoDataValue>"), 128))
    with open_raster(path) as file:
        assert file.nodata == 7


def test_a_mask_of_a_source_that_the_mosaic_forgets_is_refused(write_tiff: Any, image: Any, tmp_path: Path) -> None:
    path = write_tiff("a.tif", image(width=128))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(np.zeros((128, 128), "uint8"))
    (tmp_path / "m.vrt").write_text(mosaic(bands(source("a.tif")), 128))
    assert "leaves out the mask of a.tif" in refusal(tmp_path / "m.vrt")


def test_sources_are_held_to_the_limits(tmp_path: Path, write_site: Any, write_tiff: Any, image: Any) -> None:
    profile = {"driver": "GTiff", "count": 3, "width": 32768, "height": 32768, "dtype": "uint8"}
    with rasterio.open(
        tmp_path / "a.tif", "w", tiled=True, blockxsize=32768, blockysize=32768, SPARSE_OK=True, **profile
    ):
        pass
    write_tiff("z.tif", image())
    (tmp_path / "m.vrt").write_text(mosaic(bands(*(source("a.tif", i) for i in (1, 2, 3))), 128))
    (skipped,) = open_chips(write_site(paths="[mz].*"), RGB, 64, None).skipped
    assert "has blocks of 32768 x 32768 pixels" in skipped.reason


@pytest.mark.parametrize("named", [True, False])
def test_the_offset_of_sentinel_2_is_that_of_the_files(
    named: bool, tmp_path: Path, write_tiff: Any, write_site: Any, image: Any
) -> None:
    stored = image(1, width=128, dtype="uint16") + 3000
    product = "S2B_MSIL2A_20230605T101559_N0509_R065_T32TQM_20230605T134210" if named else "one"
    write_tiff(f"{product}/a.tif", stored, tags=None if named else {"PROCESSING_BASELINE": "05.09"})
    text = mosaic(bands(source(f"{product}/a.tif"), head='dataType="UInt16"'), 128)
    (tmp_path / "m.vrt").write_text(text)
    site = write_site('sensor = "sentinel2-l2a"\nbands = ["red"]', "*.vrt")
    assert np.array_equal(pixels_of(open_chips(site, ["red"], 128, None))[0], stored - 1000)
    # Beside a file without the offset no one number fits both.
    write_tiff("old/b.tif", stored)
    both = source(f"{product}/a.tif") + source("old/b.tif", x=128)
    (tmp_path / "m.vrt").write_text(mosaic(bands(both, head='dataType="UInt16"')))
    with pytest.raises(SiteError, match=r"different offsets|differ in a tag"):
        open_chips(write_site('sensor = "sentinel2-l2a"\nbands = ["red"]', "*.vrt"), ["red"], 128, None)
