"""All layouts of the zoo in one archive, as who collects from everywhere has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from zoo.comparing import check_layout, compare_chip, truth_of
from zoo.framework import ExpectedSource, Layout
from zoo.test_zoo import LAYOUTS

from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.opening import load_site, open_sources
from fedsense_core.tools.onboarding.drafting import Draft, draft_site

CHIP_PX = 16
LEAST = 0.95
"""Share of the scenes that have to be found: some names differ from others in nothing once they lie
in one archive, and are then left out by name."""


@pytest.mark.slow
def test_layouts_in_one_archive_are_read_right_or_left_out_by_name(tmp_path: Path) -> None:
    archive, path = tmp_path / "archive", tmp_path / "site.toml"
    expected = {_folder(layout): layout.make(archive / _folder(layout)) for layout in LAYOUTS}
    draft = draft_site(archive, path, None, lambda done, total: None)
    assert not draft.fault
    site = load_site(path)
    seen = set()
    for part in open_sources(site, "all", CHIP_PX, None):
        sensor = next(
            source.sensor
            for source in site.sources
            if part.scene_paths[0] in {str(scene.path) for scene in source.scenes}
        )
        seen |= set(_compared(part, sensor, str(archive.resolve()), expected))
    complete = [
        (folder, key) for folder, sources in expected.items() for one in sources if one.complete for key in one.truth
    ]
    lost = [f"{folder}: {key}" for folder, key in complete if (folder, key) not in seen]
    assert len(lost) <= (1 - LEAST) * len(complete), lost
    assert all(any(folder in name for name in _left_out(draft)) for folder in {name.split(":")[0] for name in lost}), (
        lost
    )


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["masks", "dem"])
def test_a_folder_with_a_misleading_name_changes_no_layout(folder: str, tmp_path: Path) -> None:
    for layout in LAYOUTS:
        inside = replace(layout, make=partial(_make_inside, layout, folder))
        check_layout(inside, tmp_path / _folder(layout))


def _make_inside(layout: Layout, folder: str, archive: Path) -> list[ExpectedSource]:
    return layout.make(archive / folder)


def _folder(layout: Layout) -> str:
    return re.sub(r"[^a-z0-9]+", "-", layout.name.lower()).strip("-")


def _compared(
    chips: Chips, sensor: str, archive: str, expected: dict[str, list[ExpectedSource]]
) -> Iterator[tuple[str, str]]:
    """Compare the pixels of every chip with those of its scene, and yield layout and name of each
    scene."""
    pixels = chips.read(np.arange(len(chips))).numpy()
    for number, path in enumerate(chips.scene_paths):
        inner = path.removeprefix(archive).lstrip("/")
        folder = inner.partition("/")[0]
        one = next((one for one in expected[folder] if any(key in inner for key in one.truth)), None)
        assert one is not None, f"{path} is no imagery of {folder}"
        assert sensor == one.sensor, path
        assert sorted(chips.bands) == sorted(one.bands), path
        truth, order = truth_of(inner, one), [one.bands.index(band) for band in chips.bands]
        for i in np.flatnonzero(chips.scene == number):
            where = np.s_[chips.row[i] : chips.row[i] + CHIP_PX, chips.col[i] : chips.col[i] + CHIP_PX]
            compare_chip(pixels[i], truth.values[order][:, *where], truth.valid[where], path)
        yield folder, next(key for key in one.truth if key in inner)


def _left_out(draft: Draft) -> list[str]:
    named = [path for paths in draft.grouping.left_out.values() for path in paths]
    return named + [item.path for item in draft.survey.unreadable]
