from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsense_core.data.opening import load_site
from fedsense_core.data.sites import item_lists as listing
from fedsense_core.data.sites.schema import Source
from fedsense_core.errors import SiteError

Load = Callable[..., Source]
DIGEST = "ab" * 32


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def make(keys: str, sensor: str = "rgb", **lists: str) -> Source:
        for name in ("a.tif", "b c.tif", "a_scl.tif", "a_nir.tif"):
            (tmp_path / "images").mkdir(exist_ok=True)
            (tmp_path / "images" / name).touch()
        for name, text in lists.items():
            (tmp_path / "lists").mkdir(exist_ok=True)
            (tmp_path / "lists" / name.replace("_", ".")).write_text(text)
        (tmp_path / "site.toml").write_text(f'name = "here"\n[[sources]]\nsensor = "{sensor}"\n{keys}\n')
        return load_site(tmp_path / "site.toml").sources[0]

    return make


def item(**assets: str) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "a",
        "properties": {"datetime": "2020-01-01T00:00:00Z"},
        "assets": {name: {"href": href, "type": "image/tiff"} for name, href in assets.items()},
    }


CSV = 'lists = ["lists/items.csv"]'
STAC = 'lists = ["lists/items.json"]\ncolumn = "assets.visual.href"'


def files(source: Source) -> list[str]:
    return [scene.path.name for scene in source.scenes]


def test_a_csv_names_files_from_its_own_folder_on_in_its_order_and_once(load: Load) -> None:
    rows = "id,path\n1,../images/b c.tif\n2,../images/a.tif\n3,../images/a.tif\n"
    assert files(load(CSV, items_csv=rows)) == ["b c.tif", "a.tif"]


def test_a_csv_may_have_a_byte_order_mark_quotes_and_another_column(load: Load) -> None:
    rows = '\ufeffhref,note\n"../images/a.tif","x, ""y"""\n'
    assert files(load(CSV + '\ncolumn = "href"', items_csv=rows)) == ["a.tif"]


def test_file_addresses_are_files(load: Load, tmp_path: Path) -> None:
    rows = f"path\n{(tmp_path / 'images' / 'b c.tif').as_uri()}\n{tmp_path / 'images' / 'a.tif'}\n"
    assert "%20" in rows
    assert files(load(CSV, items_csv=rows)) == ["b c.tif", "a.tif"]


@pytest.mark.parametrize(
    "content",
    [
        {"type": "FeatureCollection", "features": [item(visual="../images/a.tif")]},
        item(visual="../images/a.tif"),
        [item(visual="../images/a.tif")],
    ],
)
def test_stac_items_alone_and_together_name_their_assets(load: Load, content: Any) -> None:
    assert files(load(STAC, items_json=json.dumps(content))) == ["a.tif"]


def test_a_folder_of_stac_items_is_one_list(load: Load) -> None:
    one, two = (json.dumps(item(visual=f"../images/{name}.tif")) for name in ("b c", "a"))
    assert files(load(STAC.replace("items.json", "*.json"), x1_json=one, x2_json=two)) == ["b c.tif", "a.tif"]


def test_an_asset_may_have_a_dot_in_its_name(load: Load) -> None:
    text = json.dumps(item(**{"visual.tif": "../images/a.tif"}))
    assert files(load(STAC.replace("visual", "visual.tif"), items_json=text)) == ["a.tif"]


def test_further_bands_and_masks_come_from_the_same_row(load: Load) -> None:
    keys = """
        lists = ["lists/items.json"]
        column = "assets.visual.href"
        bands = ["red", "green", "blue"]
        [[sources.also]]
        column = "assets.nir.href"
        bands = ["nir"]
        [sources.mask]
        column = "assets.scl.href"
        kind = "sentinel2-scl"
        required = false
    """
    rows = [
        item(visual="../images/a.tif", nir="../images/a_nir.tif", scl="../images/a_scl.tif"),
        item(visual="../images/b c.tif"),
    ]
    full, bare = load(keys, sensor="sentinel2-l2a", items_json=json.dumps(rows)).scenes
    assert [path.name for path in full.files] == ["a.tif", "a_nir.tif", "a_scl.tif"]
    assert [layer.bands for layer in full.layers] == [(0, 1, 2), (3,)]
    assert (bare.path.name, len(bare.layers), bare.mask) == ("b c.tif", 1, None)
    with pytest.raises(SiteError, match=r"mask: 1 scenes have no mask file: 'b c.tif'"):
        load(keys.replace("required = false", ""), sensor="sentinel2-l2a", items_json=json.dumps(rows))


def test_parquet_names_files_by_column_or_by_struct(load: Load, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    (tmp_path / "lists").mkdir()
    rows = [{"path": f"../images/{name}.tif", **item(visual=f"../images/{name}.tif")} for name in ("b c", "a")]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "lists" / "items.parquet")
    keys = 'lists = ["lists/items.parquet"]'
    assert files(load(keys)) == files(load(keys + '\ncolumn = "assets.visual.href"')) == ["b c.tif", "a.tif"]
    with pytest.raises(
        SiteError, match=r"items.parquet: has no column 'assets.vis.href'. Did you mean 'assets.visual.href'"
    ):
        load(keys + '\ncolumn = "assets.vis.href"')


def test_a_broken_or_endless_parquet_is_named(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    keys = 'lists = ["lists/items.parquet"]'
    with pytest.raises(SiteError, match=r"items\.parquet: is no readable Parquet"):
        load(keys, items_parquet="PAR1, but not really")
    parquet.write_table(pyarrow.table({"path": ["../images/a.tif"] * 3}), tmp_path / "lists" / "items.parquet")
    monkeypatch.setattr(listing, "LIST_ROWS", 2)
    with pytest.raises(SiteError, match="has 3 rows, more than 2"):
        load(keys)


def test_without_pyarrow_parquet_says_what_to_install(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(SiteError, match=r'pyarrow.*pip install "fedsense\[tables\]"'):
        load('lists = ["lists/items.parquet"]', items_parquet="")


@pytest.mark.parametrize(
    ("keys", "lists", "words"),
    [
        (
            CSV,
            {"items_csv": "paths,id\na.tif,1\n"},
            ["items.csv: has no column 'path'", "Did you mean 'paths'?", "paths, id"],
        ),
        (CSV, {"items_csv": ""}, ["items.csv: has no column 'path'", "none"]),
        (CSV, {"items_csv": "path\n"}, ["items.csv: lists nothing"]),
        (CSV, {"items_csv": "path,id\n../images/a.tif,1\n,2\n"}, ["items.csv, line 3: has no value in 'path'"]),
        (
            CSV,
            {"items_csv": "path\n../images/a.tif\n../images/x.tif\n"},
            ["items.csv, line 3", "'../images/x.tif'", "no file"],
        ),
        (CSV, {"items_csv": "path\nhttps://x.org/a.tif\n"}, ["line 2", "'https://x.org/a.tif' is not on this machine"]),
        (CSV, {"items_csv": "path\ns3://bucket/a.tif\n"}, ["s3://bucket/a.tif", "Nothing is downloaded"]),
        (CSV, {"items_csv": "path\n/vsicurl/http://x/a.tif\n"}, ["/vsicurl", "Nothing is downloaded"]),
        (CSV, {"items_csv": "path\nfile://elsewhere/a.tif\n"}, ["file://elsewhere/a.tif", "not on this machine"]),
        (CSV, {"items_csv": "path\n../images\n"}, ["line 2", "there is no file"]),
        (CSV, {}, ["sources[1].lists", "'lists/items.csv' matches no file"]),
        (CSV.replace("csv", "txt"), {"items_txt": "a.tif"}, ["items.txt: is no item list", ".csv", ".parquet"]),
        (CSV.replace("items", "{scene}"), {}, ["`lists` have no placeholders"]),
        (STAC, {"items_json": "{"}, ["items.json: is not valid JSON"]),
        (STAC, {"items_json": "[" * 100_000}, ["items.json: is not valid JSON"]),
        (STAC, {"items_json": "[1]"}, ["items.json: must be a STAC item"]),
        (STAC, {"items_json": '{"features": 3}'}, ["items.json: must be a STAC item"]),
        (STAC, {"items_json": '{"type": "FeatureCollection", "features": []}'}, ["items.json: lists nothing"]),
        (
            STAC,
            {"items_json": json.dumps(item(visua="../images/a.tif"))},
            ["items.json, item 1: has no value in 'assets.visual.href'", "Did you mean 'assets.visua.href'?"],
        ),
        (
            STAC + '\n[sources.mask]\ncolumn = "assets.SCL.href"\ndrop = [0]\nrequired = false',
            {"items_json": json.dumps(item(visual="../images/a.tif", scl="../images/a_scl.tif"))},
            ["no row has a value in 'assets.SCL.href'"],
        ),
        (
            STAC + '\n[sources.mask]\npaths = ["{scene}_scl.tif"]\ndrop = [0]',
            {},
            ["sources[1]", "`also` and `mask`", "with `column`"],
        ),
    ],
)
def test_a_wrong_list_is_named_with_its_row(
    load: Load, tmp_path: Path, keys: str, lists: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(SiteError) as error:
        load(keys, **lists)
    for word in (str(tmp_path / "site.toml"), *words):
        assert word in str(error.value)


def test_a_list_without_bounds_is_refused(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LIST_BYTES", 10)
    with pytest.raises(SiteError, match=r"items\.csv: larger than 10 bytes"):
        load(CSV, items_csv="path\n../images/a.tif\n")


DIGESTED = 'paths = ["images/*.tif"]\ndigests = "images/SUMS"'


def test_digests_are_keyed_by_file(load: Load, tmp_path: Path) -> None:
    load('paths = ["images/*.tif"]')
    (tmp_path / "images" / "SUMS").write_text(
        f"{DIGEST}  a.tif\n{DIGEST.upper()} *./b c.tif\n{'0' * 64}  ../elsewhere.tif\n"
    )
    digests = load(DIGESTED).digests
    assert digests == {
        (tmp_path / "images" / "a.tif").resolve(): DIGEST,
        (tmp_path / "images" / "b c.tif").resolve(): DIGEST,
        (tmp_path / "elsewhere.tif").resolve(): "0" * 64,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{DIGEST}  a.tif\nnonsense\n", ["SUMS, line 2: 'nonsense'", "sha256sum FILES"]),
        (f"{DIGEST[:40]}  a.tif\n", ["SUMS, line 1", "64 hexadecimal digits"]),
        (f"\\{DIGEST}  a\\nb.tif\n", ["SUMS, line 1"]),
        (f"{DIGEST}  a.tif\n{'0' * 64}  a.tif\n", ["SUMS, line 2: a.tif has another digest"]),
        (f"{DIGEST}  other.tif\n", ["lists none of the source's files, such as", "a.tif", "Its paths begin at"]),
        ("", ["SUMS: lists no digest"]),
    ],
)
def test_a_wrong_digest_list_is_named_with_its_line(load: Load, tmp_path: Path, text: str, words: list[str]) -> None:
    load('paths = ["images/*.tif"]')
    (tmp_path / "images" / "SUMS").write_text(text)
    with pytest.raises(SiteError) as error:
        load(DIGESTED)
    for word in ("sources[1].digests", *words):
        assert word in str(error.value)


def test_a_missing_digest_list_is_named(load: Load) -> None:
    with pytest.raises(SiteError, match=r"sources\[1\]\.digests: .*SUMS: cannot be read"):
        load(DIGESTED)
