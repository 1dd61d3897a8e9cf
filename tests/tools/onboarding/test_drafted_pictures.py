"""Folders of pictures: few odd ones are skipped and named, and what is no measurement is no
imagery."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from layouts import chips_of, drafted, names_of, pixels_of, raster

from fedsense_core.errors import SiteError
from fedsense_core.tools.onboarding.drafting import draft_site
from fedsense_core.tools.onboarding.scene_groups import ODD
from fedsense_core.tools.onboarding.survey import survey


def picture(path: Path, bands: int = 3, side: int = 64) -> np.ndarray:
    return raster(path, pixels_of(path.name, (bands, side, side), "uint8", 0, 255), None)


def test_one_grey_picture_among_many_is_skipped_and_named(tmp_path: Path) -> None:
    """Web archives of aerial pictures (fMoW, Million-AID) hold some grey ones."""
    written = {
        f"img_{i:04d}.png": picture(tmp_path / "web" / f"img_{i:04d}.png", 1 if i == 60 else 3) for i in range(120)
    }
    draft, site = drafted(tmp_path / "web")
    (source,) = site.sources
    assert draft.entries[0].group.sets[0].globs == ("*.png",)
    assert draft.grouping.left_out == {ODD: ["img_0060.png"]}
    (chips,) = chips_of(site)
    assert len(chips) == 119
    assert [(Path(item.path).name, item.reason.partition(",")[0]) for item in chips.skipped] == [
        ("img_0060.png", "holds 1 bands")
    ]
    for i, path in enumerate(chips.scene_paths):
        np.testing.assert_array_equal(np.asarray(chips.read([i]))[0], written[Path(path).name])
    assert len(source.scenes) == 120


def test_colour_tables_printing_colours_and_half_transparency_are_no_imagery(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "odd"
    for i in range(3):
        picture(folder / "rgb" / f"{i}.png")
    rgb = image.fromarray(np.moveaxis(pixels_of("x", (3, 64, 64), "uint8", 0, 255), 0, 2))
    rgb.quantize(64).save(folder / "rgb" / "labels.png")
    rgb.convert("CMYK").save(folder / "print.jpg")
    hard, soft = rgb.convert("RGBA"), rgb.convert("RGBA")
    hard.putalpha(image.fromarray(np.where(np.arange(64) < 32, 255, 0).astype(np.uint8)[None].repeat(64, 0)))
    soft.putalpha(image.fromarray(np.arange(0, 256, 4, dtype=np.uint8)[None].repeat(64, 0)))
    hard.save(folder / "rgb" / "3.png")
    soft.save(folder / "soft.png")
    raster(folder / "classes.tif", pixels_of("c", (64, 64), "uint8", 0, 3), colours={0: (0, 0, 0), 1: (255, 0, 0)})
    draft, site = drafted(folder)
    assert sorted(path for paths in draft.grouping.left_out.values() for path in paths) == [
        "classes.tif", "print.jpg", "rgb/labels.png", "soft.png",
    ]  # fmt: skip
    assert len(draft.grouping.left_out) == 3, "one reason each, labels and classes the same"
    (source,) = site.sources
    assert [names[0] for names in names_of(source)] == ["0.png", "1.png", "2.png", "3.png"]
    (chips,) = chips_of(site, 32)
    assert len(chips) == 14, "half of the picture with transparency is left out"


def test_hidden_files_and_what_macos_writes_are_neither_imagery_nor_an_error(tmp_path: Path) -> None:
    """AppleDouble files (RFC 1740) lie as ._NAME beside each file on other file systems."""
    picture(tmp_path / "mac" / "a.tif")
    (tmp_path / "mac" / "._a.tif").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(200))
    picture(tmp_path / "mac" / ".Trash" / "b.tif")
    draft, site = drafted(tmp_path / "mac")
    assert (draft.survey.unreadable, draft.grouping.left_out) == ((), {})
    (chips,) = chips_of(site)
    assert (len(chips), chips.skipped) == (1, ())


def test_linked_folders_are_looked_into_once_and_never_in_circles(tmp_path: Path) -> None:
    picture(tmp_path / "archive" / "years" / "a.tif")
    picture(tmp_path / "elsewhere" / "b.tif")
    (tmp_path / "archive" / "years" / "up").symlink_to(tmp_path / "archive")
    (tmp_path / "archive" / "again").symlink_to(tmp_path / "archive" / "years")
    (tmp_path / "archive" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "archive" / "loop").symlink_to("loop")
    found = survey(tmp_path / "archive")
    assert [image.path for image in found.images] == ["more/b.tif", "years/a.tif"]
    _, site = drafted(tmp_path / "archive")
    assert [names[0] for names in names_of(site.sources[0])] == ["a.tif", "b.tif"]


def test_other_formats_and_further_pages_are_named(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "kinds"
    pages = [image.fromarray(pixels_of(str(i), (64, 64), "uint16", 0, 4000)) for i in range(4)]
    folder.mkdir()
    pages[0].save(folder / "stack.tif", save_all=True, append_images=pages[1:])
    picture(folder / "b.tif")
    for name in ("a.webp", "a.bmp", "b.bmp"):
        (folder / name).touch()
    draft, _ = drafted(folder)
    (unreadable,) = draft.survey.unreadable
    assert (unreadable.path, unreadable.reason[:11]) == ("stack.tif", "has 4 pages")
    assert "2 .bmp, 1 .webp" in draft.path.read_text()


def test_a_folder_of_heights_and_labels_alone_holds_nothing_to_train_on(tmp_path: Path) -> None:
    raster(tmp_path / "x" / "classes.tif", pixels_of("c", (64, 64), "uint8", 0, 3), colours={0: (0, 0, 0)})
    with pytest.raises(SiteError, match=r"nothing to train on.*colour table"):
        draft_site(tmp_path / "x", tmp_path / "x.toml", None, lambda done, total: None)


@pytest.mark.slow
def test_twenty_thousand_files_are_drafted_in_seconds(tmp_path: Path) -> None:
    from time import perf_counter

    picture(tmp_path / "many" / "img_00000.png", side=8)
    for i in range(1, 20_000):
        os.link(tmp_path / "many" / "img_00000.png", tmp_path / "many" / f"img_{i:05d}.png")
    begun = perf_counter()
    draft = draft_site(tmp_path / "many", tmp_path / "many.toml", None, lambda done, total: None)
    assert draft.fault == ""
    assert draft.entries[0].group.scenes == 20_000
    assert perf_counter() - begun < 30
