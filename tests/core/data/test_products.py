"""SAFE products: a folder, or the archive in which it was downloaded, is one scene."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from jpeg2000_files import write_jpeg2000
from safe_products import L1C, L2A, band_file, write_grd, write_l2a, zipped
from stored_chips import pixels_of

from fedsense_core.atomic_io import sha256
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.data.sites import archives
from fedsense_core.data.sites.archives import BadArchive
from fedsense_core.data.sites.schema import MaskRule, Site
from fedsense_core.errors import SiteError

RGB = ("red", "green", "blue")
SENTINEL2 = 'sensor = "sentinel2-l2a"'


def site_of(folder: Path, text: str = SENTINEL2, paths: str = "*.SAFE") -> Site:
    (folder / "site.toml").write_text(f'name = "here"\n[[sources]]\npaths = ["{paths}"]\n{text}\n')
    return load_site(folder / "site.toml")


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with rasterio.open(path) as file:
        return np.asarray(file.read())


def test_a_folder_is_a_scene_of_the_finest_file_of_each_band_with_its_classification(tmp_path: Path) -> None:
    root = write_l2a(tmp_path)
    (source,) = site_of(tmp_path).sources
    (scene,) = source.scenes
    finest = {source.card.bands[layer.bands[0]].code: layer.path.parent.name for layer in scene.layers}
    tens = dict.fromkeys(("B02", "B03", "B04", "B08"), "R10m")
    twenties = dict.fromkeys(("B01", "B05", "B06", "B07", "B8A", "B11", "B12"), "R20m")
    assert finest == {**tens, **twenties, "B09": "R60m"}
    assert scene.mask == band_file(root, "SCL", 20)
    assert source.mask == MaskRule(drop=(0, 1, 3, 8, 9, 10))


def test_its_chips_are_its_pixels_less_the_offset_that_its_metadata_state(tmp_path: Path) -> None:
    root = write_l2a(tmp_path)
    values = pixels_of(open_chips(site_of(tmp_path), RGB, 192, None))[0]
    stored = np.concatenate([pixels(band_file(root, band, 10)) for band in ("B04", "B03", "B02")])
    assert np.array_equal(values, stored - 1000)


@pytest.mark.parametrize("archived", [False, True])
def test_the_metadata_of_the_product_decide_its_offset(archived: bool, tmp_path: Path) -> None:
    root = write_l2a(tmp_path)
    stored = pixels(band_file(root, "B04", 10))
    text = (root / "MTD_MSIL2A.xml").read_text()
    (root / "MTD_MSIL2A.xml").write_text(text.replace("-1000", "-500"))
    if archived:
        zipped(root)
        shutil.rmtree(root)
    site = site_of(tmp_path, paths="*.zip" if archived else "*.SAFE")
    assert np.array_equal(pixels_of(open_chips(site, ["red"], 192, None))[0], stored - 500)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["{}.SAFE.zip", "{}.zip"])
def test_an_archive_gives_the_chips_of_its_folder(method: int, name: str, tmp_path: Path) -> None:
    root = write_l2a(tmp_path, clouds=slice(0, 10))
    bands = ("red", "swir_1", "water_vapour")
    right = open_chips(site_of(tmp_path), bands, 64, None)
    archive = zipped(root, method)
    archive.rename(tmp_path / name.format(L2A.removesuffix(".SAFE")))
    shutil.rmtree(root)
    chips = open_chips(site_of(tmp_path, paths="*.zip"), bands, 64, None)
    assert len(chips) == len(right) == 6
    assert np.array_equal(pixels_of(chips), pixels_of(right))


def test_clouds_are_left_out_unless_the_site_file_says_otherwise(tmp_path: Path) -> None:
    write_l2a(tmp_path, clouds=slice(0, 32))
    assert len(open_chips(site_of(tmp_path), RGB, 64, None)) == 6
    assert len(open_chips(site_of(tmp_path, f'{SENTINEL2}\nmask = {{ kind = "none" }}'), RGB, 64, None)) == 9
    assert len(open_chips(site_of(tmp_path, f"{SENTINEL2}\nmask = {{ drop = [5] }}"), RGB, 64, None)) == 3


def test_a_product_of_level_1c_has_bands_in_one_folder_and_no_classification(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(1, 9000, (1, 64, 64)).astype("uint16")
    folder = tmp_path / L1C / "GRANULE" / "L1C_T32TQM_A004977_20160605T101559" / "IMG_DATA"
    for band in ("B02", "B03", "B04"):
        write_jpeg2000(folder / f"T32TQM_20160605T101032_{band}.jp2", image)
    (scene,) = site_of(tmp_path, 'sensor = "sentinel2-l1c"').sources[0].scenes
    assert scene.mask is None
    chips = open_chips(site_of(tmp_path, 'sensor = "sentinel2-l1c"'), RGB, 64, None)
    assert np.array_equal(pixels_of(chips)[0], np.concatenate([image] * 3))
    with pytest.raises(SiteError, match="is a product of level L1C, but its source's sensor is 'sentinel2-l2a'"):
        open_chips(site_of(tmp_path), RGB, 64, None)


def test_granules_of_the_format_before_2017_are_scenes_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "S2A_OPER_PRD_MSIL1C_PDMC_20160605T171909_R022_V20160605T101032.SAFE" / "GRANULE"
    for tile in ("T32TQM", "T32TPM"):
        granule = f"S2A_OPER_MSI_L1C_TL_SGS__20160605T153000_A004977_{tile}"
        for band in ("B02", "B03", "B04"):
            path = root / f"{granule}_N02.02" / "IMG_DATA" / f"{granule}_{band}.jp2"
            write_jpeg2000(path, np.ones((1, 64, 64), "uint16"))
    scenes = site_of(tmp_path, 'sensor = "sentinel2-l1c"').sources[0].scenes
    assert [len(scene.layers) for scene in scenes] == [3, 3]
    assert len({scene.path.parent for scene in scenes}) == 2


def test_polarisations_of_a_radar_product_are_its_bands(tmp_path: Path) -> None:
    root = write_grd(tmp_path)
    (scene,) = site_of(tmp_path, 'sensor = "sentinel1-grd"').sources[0].scenes
    assert ["-vv-" in layer.path.name for layer in scene.layers] == [True, False]
    values = pixels_of(open_chips(site_of(tmp_path, 'sensor = "sentinel1-grd"'), ["VV"], 128, None))[0]
    expected = 20 * np.log10(pixels(scene.layers[0].path).astype(np.float32))
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert root.is_dir()


def test_an_item_list_may_name_products(tmp_path: Path) -> None:
    archive = zipped(write_l2a(tmp_path))
    (tmp_path / "list.csv").write_text(f"path\n{archive.name}\n")
    (tmp_path / "site.toml").write_text(f'name = "here"\n[[sources]]\nlists = ["list.csv"]\n{SENTINEL2}\n')
    assert len(load_site(tmp_path / "site.toml").sources[0].scenes[0].layers) == 12


def test_a_broken_product_is_skipped_and_named_and_the_others_train(tmp_path: Path) -> None:
    archive = zipped(write_l2a(tmp_path))
    whole = archive.read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    write_grd(tmp_path)
    (tmp_path / "site.toml").write_text(f'name = "here"\n[[sources]]\npaths = ["*.zip", "S1*.SAFE"]\n{SENTINEL2}\n')
    chips = open_chips(load_site(tmp_path / "site.toml"), RGB, 64, None)
    reasons = {Path(item.path).name[:4]: item.reason for item in chips.skipped}
    assert reasons["half"].startswith("is no readable ZIP archive (it has no end; copy it again)")
    assert reasons["S1A_"].startswith("is a product without any of the bands coastal")
    assert len(chips) == 9


def test_chips_are_cut_anew_when_the_archive_changes(tmp_path: Path) -> None:
    root = write_l2a(tmp_path)
    archive = zipped(root)
    first = pixels_of(open_chips(site_of(tmp_path, paths="*.zip"), RGB, 192, tmp_path / "cache"))
    archive.unlink()
    zipped(write_l2a(tmp_path, seed=5))
    second = pixels_of(open_chips(site_of(tmp_path, paths="*.zip"), RGB, 192, tmp_path / "cache"))
    assert not np.array_equal(first, second)


def test_a_list_of_digests_holds_the_archive(tmp_path: Path) -> None:
    archive = zipped(write_l2a(tmp_path))
    listed = f'{SENTINEL2}\ndigests = "SHA256SUMS"'
    (tmp_path / "SHA256SUMS").write_text(f"{sha256(archive)}  {archive.name}\n")
    assert len(open_chips(site_of(tmp_path, listed, "*.zip"), RGB, 64, None)) == 9
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  {archive.name}\n")
    with pytest.raises(SiteError, match="but the list of digests says 000000000000"):
        open_chips(site_of(tmp_path, listed, "*.zip"), RGB, 64, None)


TRICKS: dict[str, tuple[dict[str, str], str]] = {
    "a name that leads out": ({f"{L2A}/../../x.jp2": ""}, "leads out of it"),
    "an absolute name": ({"/etc/x.jp2": ""}, "leads out of it"),
    "two products": ({"S2A_MSIL1C_X.SAFE/a": ""}, "holds 2 SAFE products"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_archives_that_are_no_downloads_are_refused(trick: str, tmp_path: Path) -> None:
    more, says = TRICKS[trick]
    zipped(write_l2a(tmp_path), **more)
    (scene,) = site_of(tmp_path, paths="*.zip").sources[0].scenes
    assert says in scene.fault


def test_encrypted_and_doubled_members_and_odd_methods_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    for method, says in ((zipfile.ZIP_LZMA, "compressed by method 14"), (zipfile.ZIP_BZIP2, "method 12")):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("x", "abc" * 100)
        with pytest.raises(BadArchive, match=says):
            archives.members(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "abc")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(BadArchive, match="is encrypted"):
        archives.members(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "abc")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x", "abd")
    with pytest.raises(BadArchive, match="holds 'x' twice"):
        archives.members(path)


def test_a_long_directory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "abc")
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\5\6")
    data[end + 12 : end + 16] = (3 << 20).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(BadArchive, match=r"has a directory of 3145728 bytes, more than"):
        archives.members(path)


def test_a_bomb_is_read_no_further_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(64 << 20))
    assert archives.read_start(path / "x", 1000) == bytes(1000)
    assert archives.stored_bytes(path / "x") < 1 << 17


def test_an_archive_in_an_archive_is_not_entered(tmp_path: Path) -> None:
    inner = zipped(write_l2a(tmp_path))
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(inner, inner.name)
    (scene,) = site_of(tmp_path, paths="outer.zip").sources[0].scenes
    assert scene.fault == "holds 0 SAFE products, not one; unpack it and list its files"


def test_paths_into_archives_are_not_for_site_files(tmp_path: Path) -> None:
    archive = zipped(write_l2a(tmp_path))
    for glob in (f"/vsizip/{archive}/*", f"{archive.name}/*.SAFE/**/*.jp2"):
        with pytest.raises(SiteError, match=r"is no plain path|matches no file"):
            site_of(tmp_path, paths=glob)
