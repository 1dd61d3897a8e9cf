"""Files whose bands are not those of their card: few are skipped and named, of many the card is
wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layouts import pixels_of, raster

from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.errors import SiteError


def site_of(folder: Path, bands: list[int], tail: str = "") -> Path:
    for i, count in enumerate(bands):
        raster(folder / f"img_{i:02d}.tif", pixels_of(str(i), (count, 16, 16), "uint8", 0, 255), 1.0)
    path = folder / "site.toml"
    path.write_text(f'name = "here"\n[[sources]]\npaths = ["*.tif"]\nsensor = "rgb"\n{tail}')
    return path


def test_a_tenth_with_other_bands_is_skipped_and_named_and_the_others_train(tmp_path: Path) -> None:
    site = load_site(site_of(tmp_path, [3] * 9 + [1] + [3] * 9 + [5]))
    for _ in range(2):  # cut, and from the store
        chips = open_chips(site, ("red", "green", "blue"), 16, tmp_path / "cache")
        assert len(chips) == 18
        assert [(Path(item.path).name, item.reason) for item in chips.skipped] == [
            ("img_09.tif", "holds 1 bands, but its sensor card has 3 (red, green, blue)"),
            ("img_19.tif", "holds 5 bands, but its sensor card has 3 (red, green, blue)"),
        ]
        for i, path in enumerate(chips.scene_paths):
            number = int(Path(path).stem[-2:])
            np.testing.assert_array_equal(
                np.asarray(chips.read([i]))[0], pixels_of(str(number), (3, 16, 16), "uint8", 0, 255)
            )


def test_of_more_the_card_is_wrong(tmp_path: Path) -> None:
    site = load_site(site_of(tmp_path, [1, 3, 3, 3, 5, 3, 3, 3, 3, 3]))
    for _ in range(2):
        with pytest.raises(SiteError, match=r"img_00.tif: holds 1 bands.*with 2 of 10 scenes. Name the right card"):
            open_chips(site, ("red", "green", "blue"), 16, tmp_path / "cache")


def test_a_single_file_with_other_bands_is_an_error(tmp_path: Path) -> None:
    site = load_site(site_of(tmp_path, [5]))
    with pytest.raises(SiteError, match=r"img_00.tif: holds 5 bands.*Name the right card"):
        open_chips(site, ("red", "green", "blue"), 16, None)


def test_entries_of_a_colour_table_are_no_measurements(tmp_path: Path) -> None:
    site = site_of(tmp_path, [3])
    raster(tmp_path / "classes.tif", pixels_of("c", (16, 16), "uint8", 0, 3), colours={0: (0, 0, 0), 1: (255, 0, 0)})
    chips = open_chips(load_site(site), ("red", "green", "blue"), 16, None)
    assert len(chips) == 1
    assert ["colour table" in item.reason for item in chips.skipped] == [True]
