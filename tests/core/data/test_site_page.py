"""The examples of docs/institutions.md that show the inside of one source."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fedsense_core.data.opening import load_site
from fedsense_core.data.sites.cards import CARDS
from fedsense_core.data.sites.sensors import SensorCard
from fedsense_core.data.sites.site_file import OVERRIDES, AlsoEntry, ChipsEntry, MaskEntry, SiteFile, SourceEntry

PAGE = (Path(__file__).parents[3] / "docs" / "institutions.md").read_text(encoding="utf-8")
TOML = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
INSIDES = [text for text in TOML if not {"name", "required"} & set(tomllib.loads(text))]  # files and policies


def source_of(text: str) -> dict[str, Any]:
    written = tomllib.loads(text)
    return {**written, **written.get("sources", {})}


def nested(column: str, value: str) -> dict[str, Any]:
    key, _, rest = column.partition(".")
    return {key: nested(rest, value) if rest else value}


def touch(folder: Path, globs: list[str], bands: list[dict[str, Any]]) -> None:
    for glob in globs:
        for band in bands:
            name = glob.replace("**", "x").replace("*", "y")
            path = folder / name.format(scene="s1", band=band.get("code") or band["name"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


@pytest.mark.parametrize("text", INSIDES)
def test_the_inside_of_a_source_is_accepted(text: str, tmp_path: Path) -> None:
    source = source_of(text)
    card = source["sensor"] if isinstance(source["sensor"], dict) else CARDS[source["sensor"]]
    parts = [source, *source.get("also", []), *([source["mask"]] if "mask" in source else [])]
    for part in parts:
        touch(tmp_path, part.get("paths", []), card["bands"])
    for glob in source.get("lists", []):
        item: dict[str, Any] = {}
        for number, part in enumerate(parts):
            touch(tmp_path / "catalogue", [f"{number}.tif"], card["bands"][:1])
            for key, value in nested(part["column"], f"{number}.tif").items():
                item.setdefault(key, {}).update(value)
        (tmp_path / glob.replace("*", "y")).write_text(json.dumps(item))
    if "digests" in source:
        file = next((tmp_path / "flights").rglob("*.tif"))
        listed = tmp_path / source["digests"]
        listed.write_text(f"{'0' * 64}  {file.relative_to(listed.parent)}\n")
    (tmp_path / "site.toml").write_text(f'name = "here"\n[[sources]]\n{text}')
    loaded = load_site(tmp_path / "site.toml").sources[0]
    assert len(loaded.scenes) == ("dataset" not in source)
    if loaded.scenes:
        bands = [loaded.card.names[i] for layer in loaded.scenes[0].layers for i in layer.bands]
        assert bands == loaded.card.names
        assert (loaded.scenes[0].mask is None) == ("mask" not in source)


def test_there_is_an_example_of_each_way() -> None:
    shown = {key for text in INSIDES for key in source_of(text)}
    left = SourceEntry.model_fields.keys() - shown - set(OVERRIDES)
    assert left == set()


@pytest.mark.parametrize("table", [SiteFile, SourceEntry, AlsoEntry, MaskEntry, ChipsEntry, SensorCard])
def test_every_key_is_described(table: Any) -> None:
    section = PAGE.split("### Every key")[1].split("## What is read")[0]
    missing = [key for key in table.model_fields if not re.search(rf"`(\w*\.)?{key}`", section)]
    assert missing == (["sources", "chips"] if table is SiteFile else [])
