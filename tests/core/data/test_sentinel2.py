"""Sentinel-2's offset: what states it is believed, the nearest first, and nothing else is.

Names and metadata are those of real products: the compact naming convention and the metadata of
the Sentinel-2 Products Specification Document; baselines as ESA lists them; BigEarthNet v2 (arXiv
2407.03653) names its patches after products made with the toolbox, N9999.
"""

from __future__ import annotations

import hashlib
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rich.console import Console
from stored_chips import pixels_of

from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.data.sites.sentinel2 import (
    BANDS,
    Baseline,
    added_offset,
    baseline_in,
    metadata_file,
    parse_metadata,
    read_metadata,
)
from fedsense_core.errors import SiteError
from fedsense_core.tools.onboarding.checking import check_site

NEW = "S2B_MSIL2A_20230605T101559_N0509_R065_T32TQM_20230605T134210"
OLD = "S2A_MSIL2A_20170613T101031_N0205_R022_T33UUP_20170613T101608"
TOOLBOX = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_20200930T215312"
BANDS_NAMED = ["red", "green", "blue"]


def metadata(baseline: str, offsets: dict[str, float] | None, level: str = "2A") -> str:
    """Write what a product's metadata have around the two facts that are read of them."""
    element, around = (
        ("BOA_ADD_OFFSET", "BOA_ADD_OFFSET_VALUES_LIST")
        if level == "2A"
        else ("RADIO_ADD_OFFSET", "Radiometric_Offset_List")
    )
    listed = "".join(
        f'<{element} band_id="{BANDS.index(band)}">{value:g}</{element}>' for band, value in (offsets or {}).items()
    )
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level}.xsd">
  <n1:General_Info>
    <Product_Info><PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL>
      <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></Product_Info>
    <Product_Image_Characteristics>
      <Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
      {f"<{around}>{listed}</{around}>" if offsets else ""}
    </Product_Image_Characteristics>
  </n1:General_Info>
</n1:Level-{level}_User_Product>
"""


ALL = dict.fromkeys(BANDS, -1000.0)


@pytest.fixture
def counts() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(200, 12_000, (3, 64, 64)).astype(np.uint16)


def chips_of(folder: Path, more: str = "", cache: Path | None = None) -> Chips:
    site = folder / "site.toml"
    site.write_text(
        'name = "here"\n[[sources]]\npaths = ["**/*.tif"]\nsensor = "sentinel2-l2a"\n'
        f'bands = ["red", "green", "blue"]\n{more}\n'
    )
    return open_chips(load_site(site), BANDS_NAMED, 64, cache)


@pytest.mark.parametrize(
    ("path", "baseline"),
    [
        (f"{NEW}.SAFE", "05.09"),
        (f"{NEW}.SAFE.zip", "05.09"),
        (f"{OLD}_B04_10m.tif", "02.05"),
        (f"clip_{NEW}.tif", "05.09"),
        (NEW.lower(), "05.09"),
        ("S2C_MSIL1C_20260814T141711_N0512_R010_T21MTQ_20260814T191310", "05.12"),
        ("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57", "99.99"),
        ("composite_N4530_E0090", None),
        ("plain_N0509", None),
        ("S2A_MSIL2A_20230101T000000_N0509_R001.tif", None),
        (f"X{NEW}", None),
        ("S2A_OPER_MSI_L1C_TL_SGS__20160905T073438_A006291_T53HMA_N02.04", None),
        ("L2A_T32TQM_A032620_20230605T102131", None),
    ],
)
def test_only_a_products_own_name_names_a_baseline(path: str, baseline: str | None) -> None:
    assert str(baseline_in(path) or "") == (baseline or "")


@pytest.mark.parametrize(
    ("text", "has_offset", "known"),
    [
        ("02.14", False, True),
        ("03.01", False, True),
        ("04.00", True, True),
        ("4.0", True, True),
        ("05.12", True, True),
        ("05.13", True, False),
        ("06.00", True, False),
        ("89.99", True, False),
        ("90.00", False, True),
        ("99.99", False, True),
    ],
)
def test_official_baselines_since_04_have_an_offset(text: str, has_offset: bool, known: bool) -> None:
    baseline = Baseline.of(text)
    assert baseline is not None
    assert (baseline.has_offset, baseline.is_known) == (has_offset, known)


@pytest.mark.parametrize(
    ("path", "tags", "added", "why"),
    [
        (f"{NEW}.tif", {}, -1000, "by name (N0509)"),
        (f"{NEW}.SAFE/GRANULE/L2A_T32TQM_A032620_20230605T102131/IMG_DATA/R10m/B04.tif", {}, -1000, "by name (N0509)"),
        (f"{NEW}/{OLD}.tif", {}, 0, "by name (N0205, before 04.00)"),
        (f"{TOOLBOX}.tif", {}, 0, "by name (N9999, of the toolbox)"),
        (f"{NEW}.SAFE/{TOOLBOX}.tif", {}, 0, "by name (N9999, of the toolbox)"),
        ("composite_N4530_E0090.tif", {}, 0, "no baseline stated"),
        ("N0509_tiles/plain_N0509.tif", {}, 0, "no baseline stated"),
        ("plain.tif", {"PROCESSING_BASELINE": "04.00"}, -1000, "by metadata (baseline 04.00)"),
        ("plain.tif", {"PROCESSING_BASELINE": "99.99"}, 0, "by metadata (baseline 99.99, of the toolbox)"),
        (f"{NEW}.tif", {"PROCESSING_BASELINE": "03.01"}, 0, "by metadata (baseline 03.01, before 04.00)"),
        (f"{NEW}.tif", {"PROCESSING_BASELINE": "unknown"}, -1000, "by name (N0509)"),
        (f"{NEW}.tif", {"BOA_ADD_OFFSET": "0"}, 0, "by metadata"),
        (f"{OLD}.tif", {"RADIO_ADD_OFFSET": "-500.0", "PROCESSING_BASELINE": "99.99"}, -500, "by metadata"),
    ],
)
def test_the_nearest_statement_decides(path: str, tags: dict[str, str], added: int, why: str) -> None:
    offset = added_offset(Path("/data") / path, [tags, {}], ["B04"], -1000.0)
    assert (offset.counts, offset.why, offset.unknown) == ((float(added),), why, None)


def test_offsets_in_the_tags_of_bands_are_theirs(tmp_path: Path, write_tiff: Any, counts: Any) -> None:
    """GDAL's driver for Sentinel-2 gives them to each band since 3.8 (pull request 8379)."""
    path = write_tiff("composite.tif", counts)
    with rasterio.open(path, "r+") as file:
        for band, number in enumerate((-1000, -900, 0), start=1):
            file.update_tags(band, BOA_ADD_OFFSET=str(number))
    expected = (counts.astype(int) - np.array([1000, 900, 0])[:, None, None]).clip(0)
    assert np.array_equal(pixels_of(chips_of(tmp_path))[0], expected)


def test_a_baseline_that_is_not_known_yet_is_taken_for_one_with_an_offset_and_named() -> None:
    name = NEW.replace("N0509", "N0600")
    offset = added_offset(Path(f"/data/{name}.tif"), [{}, {}], ["B04"], -1000.0)
    assert (offset.counts, str(offset.unknown)) == ((-1000.0,), "06.00")


@pytest.mark.parametrize("level", ["2A", "1C"])
def test_metadata_of_both_levels_are_understood(level: str) -> None:
    stated = parse_metadata(metadata("05.09", ALL, level).encode(), "MTD.xml")
    assert (str(stated.baseline), stated.offsets) == ("05.09", ALL)
    assert parse_metadata(metadata("02.05", None, level).encode(), "MTD.xml").offsets == {}


@pytest.mark.parametrize(
    ("name", "content", "subtracted"),
    [
        (f"{TOOLBOX}.SAFE", metadata("99.99", ALL), (1000, 1000, 1000)),
        (f"{NEW}.SAFE", metadata("05.09", dict.fromkeys(BANDS, 0.0)), (0, 0, 0)),
        (f"{NEW}.SAFE", metadata("02.05", None), (0, 0, 0)),
        (f"{NEW}.SAFE", metadata("05.09", ALL | {"B03": -700.0}), (1000, 700, 1000)),
        ("renamed.SAFE", metadata("05.11", None), (1000, 1000, 1000)),
        (OLD, metadata("04.00", ALL), (1000, 1000, 1000)),
    ],
)
def test_metadata_of_the_product_come_before_its_name(
    name: str, content: str, subtracted: tuple[int, ...], tmp_path: Path, write_tiff: Any, counts: Any
) -> None:
    write_tiff(f"{name}/GRANULE/L2A_T33UUP_A010334/IMG_DATA/image.tif", counts)
    (tmp_path / name / "MTD_MSIL2A.xml").write_text(content)
    expected = (counts.astype(int) - np.array(subtracted)[:, None, None]).clip(0)
    assert np.array_equal(pixels_of(chips_of(tmp_path))[0], expected)


def test_metadata_elsewhere_are_not_looked_at(tmp_path: Path, write_tiff: Any, counts: Any) -> None:
    path = write_tiff("scenes/image.tif", counts)
    for folder in (tmp_path, path.parent):
        (folder / "MTD_MSIL2A.xml").write_text(metadata("05.09", ALL))
    assert metadata_file(path) is None
    assert np.array_equal(pixels_of(chips_of(tmp_path))[0], counts)


BOMB = '<!DOCTYPE lolz [<!ENTITY a "1"><!ENTITY b "&a;&a;">]><r><PROCESSING_BASELINE>&b;</PROCESSING_BASELINE></r>'
FETCH = '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/hostname">]><r><PROCESSING_BASELINE>&x;</PROCESSING_BASELINE></r>'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (BOMB, "declares a document type"),
        (FETCH, "declares a document type"),
        ("no xml", "is no metadata of a Sentinel-2 product"),
        (metadata("05.09", ALL)[:-40], "is no metadata of a Sentinel-2 product"),
        (metadata("05.09", ALL).replace('band_id="12"', 'band_id="13"'), "there is no band_id 13"),
        (metadata("05.09", ALL).replace('band_id="12"', ""), "is no metadata of a Sentinel-2 product"),
        (metadata("05.09", ALL).replace("-1000", "many"), "is no metadata of a Sentinel-2 product"),
        (metadata("05.09", ALL).replace("-1000", "1e9"), "is no offset of counts"),
        (" " * (5 << 20), "has more than 4194304 bytes"),
    ],
)
def test_a_scene_with_metadata_that_make_no_sense_is_named_and_can_be_read_by_hand(
    content: str, words: str, tmp_path: Path, write_tiff: Any, counts: Any
) -> None:
    write_tiff(f"{NEW}.SAFE/image.tif", counts)
    (tmp_path / f"{NEW}.SAFE" / "MTD_MSIL2A.xml").write_text(content)
    with pytest.raises(SiteError, match=rf"lies beside MTD_MSIL2A.xml, which .*{words}.*`add_offset`"):
        chips_of(tmp_path)
    got = pixels_of(chips_of(tmp_path, "add_offset = -1000"))[0]
    assert np.array_equal(got, (counts.astype(int) - 1000).clip(0))


def test_offsets_that_differ_by_band_need_the_bands_codes(tmp_path: Path) -> None:
    folder = tmp_path / f"{NEW}.SAFE"
    folder.mkdir()
    (folder / "MTD_MSIL2A.xml").write_text(metadata("05.09", {"B04": -1000.0, "B03": -700.0}))
    with pytest.raises(ValueError, match="offsets that differ by band, and with none for B08"):
        added_offset(folder / "image.tif", [{}, {}], ["B08"], -1000.0)
    assert added_offset(folder / "image.tif", [{}, {}], ["B03"], -1000.0).counts == (-700.0,)


@pytest.mark.parametrize(
    ("said", "declared", "added"),
    [
        ("add_offset = 0", None, 0),
        ("add_offset = -500", None, -500),
        ('add_offset = "auto"', None, -1000),
        ("add_offset = 0", (1e-4, -0.1), 0),
        ("add_offset = -500", (1e-4, -0.1), -500),
        ('add_offset = "auto"', (1e-4, -0.1), -1000),
        ('add_offset = "auto"', (1e-4, 0.0), 0),
        ("add_offset = -100", (2e-4, -0.1), -100),
    ],
)
def test_the_site_files_number_comes_before_everything(
    said: str, declared: tuple[float, float] | None, added: int, tmp_path: Path, write_tiff: Any, counts: Any
) -> None:
    path = write_tiff(f"{NEW}.tif", counts)
    gain = 1
    if declared:
        gain = round(declared[0] / 1e-4)
        with rasterio.open(path, "r+") as file:
            file.scales, file.offsets = (declared[0],) * 3, (declared[1],) * 3
    got = pixels_of(chips_of(tmp_path, said))[0]
    np.testing.assert_allclose(got, ((counts.astype(int) + added) * gain).clip(0), rtol=1e-6)


def test_numbers_of_another_scale_are_not_the_products_counts(tmp_path: Path, write_tiff: Any) -> None:
    """A product that someone turned into reflectance keeps its name."""
    reflectance = np.random.default_rng(0).random((3, 64, 64)).astype(np.float32)
    write_tiff(f"{NEW}.tif", reflectance)
    assert np.array_equal(pixels_of(chips_of(tmp_path, "scale = 1.0"))[0], reflectance)
    assert (pixels_of(chips_of(tmp_path, "scale = 0.0001")) == 0).all(), "where the site file says that they are"


def test_the_store_knows_what_the_offset_depends_on(tmp_path: Path, write_tiff: Any, counts: Any) -> None:
    write_tiff(f"{TOOLBOX}.SAFE/image.tif", counts)
    cache = tmp_path / "cache"
    for content, more, subtracted in (
        (None, "", 0),
        (metadata("99.99", ALL), "", 1000),
        (metadata("99.99", dict.fromkeys(BANDS, -900.0)), "", 900),
        (metadata("99.99", dict.fromkeys(BANDS, -900.0)), "add_offset = -500", 500),
        (metadata("99.99", dict.fromkeys(BANDS, -900.0)), "add_offset = 0", 0),
    ):
        if content:
            (tmp_path / f"{TOOLBOX}.SAFE" / "MTD_MSIL2A.xml").write_text(content)
        got = pixels_of(chips_of(tmp_path, more, cache))[0]
        assert np.array_equal(got, (counts.astype(int) - subtracted).clip(0)), more


def test_metadata_that_a_digest_list_holds_must_match_it(tmp_path: Path, write_tiff: Any, counts: Any) -> None:
    image = write_tiff(f"{NEW}.SAFE/image.tif", counts)
    stated = image.with_name("MTD_MSIL2A.xml")
    stated.write_text(metadata("05.09", ALL))
    sums = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (image, stated)}
    lines = [f"{digest}  {path.relative_to(tmp_path)}\n" for path, digest in sums.items()]
    (tmp_path / "SHA256SUMS").write_text("".join(lines))
    assert len(chips_of(tmp_path, 'digests = "SHA256SUMS"')) == 1
    stated.write_text(metadata("05.09", dict.fromkeys(BANDS, -900.0)))
    with pytest.raises(SiteError, match=r"MTD_MSIL2A\.xml has the SHA-256"):
        chips_of(tmp_path, 'digests = "SHA256SUMS"')
    (tmp_path / "SHA256SUMS").write_text(lines[0])
    assert len(chips_of(tmp_path, 'digests = "SHA256SUMS"')) == 1, "a list of the images alone is one, too"


def test_check_says_how_many_scenes_had_an_offset_and_why(tmp_path: Path, write_tiff: Any, counts: Any) -> None:
    for tile in ("T32TQM", "T32TQN"):
        write_tiff(f"{NEW.replace('T32TQM', tile)}.SAFE/image.tif", counts)
    write_tiff(f"{NEW.replace('N0509', 'N0600')}.tif", counts)
    write_tiff(f"{TOOLBOX}.tif", counts)
    (tmp_path / f"{NEW}.SAFE" / "MTD_MSIL2A.xml").write_text(metadata("05.09", ALL))
    chips_of(tmp_path)
    page = check_site(tmp_path / "site.toml", "red,green,blue", 64, None)
    console = Console(width=240, file=StringIO())
    console.print(page.body)
    text = " ".join(console.file.getvalue().split())
    assert "-1000 added to 3 of 4 scenes: 1 by metadata, 1 by name (N0509), 1 by name (N0600)" in text
    assert "0 added to 1 of 4 scenes: 1 by name (N9999, of the toolbox)" in text
    assert "warning: baseline 06.00 of 1 scene is newer than 05.12" in text


def test_real_metadata_are_read_once_and_again_after_a_change(tmp_path: Path) -> None:
    path = tmp_path / "MTD_MSIL2A.xml"
    path.write_text(metadata("05.09", ALL))
    assert read_metadata(path) is read_metadata(path)
    path.write_text(metadata("05.10", ALL))
    assert str(read_metadata(path).baseline) == "05.10"
