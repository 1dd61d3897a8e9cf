"""A layout from its files to its chips, by what an institution types: drafted, completed where a
person is asked, loaded, and every pixel compared."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Container, Sequence
from pathlib import Path, PurePath

import numpy as np
import pytest
from zoo.framework import Array, Bools, ExpectedSource, Layout, Truth

from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.opening import load_site, open_sources
from fedsense_core.data.sites.schema import Site, Skipped, Source
from fedsense_core.data.sites.sensors import SensorCard
from fedsense_core.errors import SiteError
from fedsense_core.tools.onboarding.drafting import Draft, draft_site

RASTERS = {".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg", ".vrt", ".nc", ".zip"}
"""Suffixes of what has to be in a source, or be left out by name."""


def check_layout(layout: Layout, folder: Path) -> None:
    """Draft, load and read what ``layout`` writes below ``folder``, up to the first difference."""
    archive, path = folder / "archive", folder / "site.toml"
    if layout.refused:
        layout.make(archive)
        with pytest.raises(SiteError, match=layout.refused):
            draft_site(archive, path, None, lambda done, total: None)
        return
    expected = write_drafted(layout, archive, path)
    site = load_site(path)
    _compare_files(site, expected, archive)
    parts = open_sources(site, "all", layout.chip_px, None)
    skipped = [item for part in parts for item in part.skipped]
    _compare_skipped(skipped, layout.scenes_skipped)
    wanted = [one for one in expected if one.truth]
    assert len(parts) == len(wanted), f"sources with chips: {[part.scene_paths for part in parts]}"
    for one in wanted:
        key = next(iter(one.truth))
        source = next(
            (source for source in site.sources if any(key in str(scene.path) for scene in source.scenes)), None
        )
        assert source is not None, f"no scene {key!r}"
        _compare_source(source, one, {item.path for item in skipped})
        chips = next(part for part in parts if any(key in path for path in part.scene_paths))
        _compare_chips(chips, one, layout.chip_px, str(archive.resolve()), site.limits.min_valid)


def write_drafted(layout: Layout, archive: Path, path: Path) -> list[ExpectedSource]:
    """Write the files of ``layout`` into ``archive``, and its draft, completed where a person is
    asked, to ``path``."""
    expected = layout.make(archive)
    draft = draft_site(archive, path, None, lambda done, total: None)
    answers = _answers(draft, expected)
    assert any(answers) or not draft.fault, f"the draft does not load: {draft.fault}"
    path.write_text(completed(path.read_text(), answers))
    return expected


def _answers(draft: Draft, expected: Sequence[ExpectedSource]) -> list[Sequence[str]]:
    """Return what a person answers to each source of the draft that is not complete: nothing for
    rasters that are no imagery anyway."""
    unwanted = _left_out(expected)
    asked = [one for one in expected if not one.complete]
    answers: list[Sequence[str]] = []
    for entry in draft.entries:
        if not entry.guess.missing:
            continue
        names = [image.name for image in entry.group.images]
        if all(any(PurePath(image.path).match(pattern) for pattern in unwanted) for image in entry.group.images):
            answers.append(())
            continue
        one = next((one for one in asked if re.search(one.missing, entry.guess.missing)), None)
        assert one is not None, f"a person is asked for {entry.guess.missing}, of {names[:4]}: {entry.guess.reason}"
        asked.remove(one)
        answers.append(one.answers)
    assert not asked, f"not asked for: {[one.missing for one in asked]}"
    return answers


def _left_out(expected: Sequence[ExpectedSource]) -> list[str]:
    return [pattern for one in expected for pattern in one.left_out]


def _compare_skipped(skipped: Sequence[Skipped], expressions: Sequence[str]) -> None:
    assert len(skipped) == len(expressions), f"skipped: {skipped}"
    for expression in expressions:
        assert any(re.search(expression, item.reason) for item in skipped), f"{expression!r}: {skipped}"


def completed(text: str, answers: Sequence[Sequence[str]]) -> str:
    """Return a draft whose commented sources with answers are put in place, each ``?`` replaced, as
    it asks a person to do."""
    lines = text.split("\n")
    starts = [i for i, line in enumerate(lines) if line == "# [[sources]]"]
    for start, given in zip(starts, answers, strict=True):
        stop = _end_of_table(lines, start) if given else start
        lines[start:stop] = _filled("\n".join(line[2:] for line in lines[start:stop]), given).split("\n")[
            : stop - start
        ]
    return "\n".join(lines)


def _filled(table: str, answers: Sequence[str]) -> str:
    parts = re.split(r'"\?"|\?', table)
    assert len(parts) == len(answers) + 1, f"{len(answers)} answers to the {len(parts) - 1} questions of\n{table}"
    return "".join(part + answer for part, answer in zip(parts, (*answers, ""), strict=True))


def _end_of_table(lines: Sequence[str], start: int) -> int:
    """Return where the commented table that begins at ``start`` ends: the most lines that are
    TOML."""
    stop = next((i for i in range(start, len(lines)) if not lines[i].startswith("#")), len(lines))
    for end in range(stop, start, -1):
        table = "\n".join(line[2:] for line in lines[start:end])
        try:
            tomllib.loads(re.sub(r"= \?", "= 0", table))
        except tomllib.TOMLDecodeError:
            continue
        return end
    raise AssertionError("\n".join(lines[start:stop]) + "\nis no TOML")


def _compare_files(site: Site, expected: Sequence[ExpectedSource], archive: Path) -> None:
    """Every raster is in a source, or is among those to be left out, and never both."""
    used = {file for source in site.sources for file in source.files}
    read = {place for file in used for place in (file, *file.parents)}  # a file within a zip makes the zip a used one
    patterns = _left_out(expected)
    strays, lost = [], []
    for path in sorted(archive.resolve().rglob("*")):
        if path.suffix.lower() not in RASTERS or not path.is_file():
            continue
        unwanted = any(path.match(pattern) for pattern in patterns)
        if unwanted and path in used:
            strays.append(path.name)
        if not unwanted and path not in read and not used & set(path.parents):
            lost.append(path.name)
    assert not strays, f"in a source, though no imagery: {strays}"
    assert not lost, f"in no source: {lost}"


def _compare_source(source: Source, one: ExpectedSource, skipped: Container[str]) -> None:
    card: SensorCard = source.card
    assert source.sensor == one.sensor
    assert len([scene for scene in source.scenes if str(scene.path) not in skipped]) == len(one.truth)
    for key in ("gsd_m", "scale", "offset"):
        if getattr(one, key) is not None:
            np.testing.assert_allclose(getattr(card, key), getattr(one, key), rtol=0.02, err_msg=key)
    if one.wavelengths_um:
        assert card.names == list(one.bands)
        np.testing.assert_allclose([band.wavelength_um for band in card.bands], one.wavelengths_um, atol=0.002)


def _compare_chips(chips: Chips, one: ExpectedSource, size: int, archive: str, min_valid: float) -> None:
    assert sorted(chips.bands) == sorted(one.bands)
    order = [one.bands.index(band) for band in chips.bands]
    truths = [truth_of(path.removeprefix(archive), one) for path in chips.scene_paths]
    assert len(set(map(id, truths))) == len(one.truth), f"scenes with chips: {chips.scene_paths}"
    found = {
        (int(scene), int(row), int(col)) for scene, row, col in zip(chips.scene, chips.row, chips.col, strict=True)
    }
    assert found == {(i, *at) for i, truth in enumerate(truths) for at in _usable(truth.valid, size, min_valid)}
    for i, chip in enumerate(chips.read(np.arange(len(chips))).numpy()):
        where = np.s_[chips.row[i] : chips.row[i] + size, chips.col[i] : chips.col[i] + size]
        truth = truths[chips.scene[i]]
        compare_chip(
            chip, truth.values[order][:, *where], truth.valid[where], f"{chips.scene_paths[chips.scene[i]]} {where}"
        )
        np.testing.assert_allclose(chips.valid[i], truth.valid[where].mean(), rtol=1e-6)


def truth_of(path: str, one: ExpectedSource) -> Truth:
    found = [truth for key, truth in one.truth.items() if key in path]
    assert len(found) == 1, f"{path} is {len(found)} of the scenes {list(one.truth)}"
    return found[0]


def _usable(valid: Bools, size: int, min_valid: float) -> list[tuple[int, int]]:
    """Return row and column of each chip that has enough measurements."""
    height, width = valid.shape
    corners = [(row, col) for row in range(0, height - size + 1, size) for col in range(0, width - size + 1, size)]
    return [(row, col) for row, col in corners if valid[row : row + size, col : col + size].mean() >= min_valid]


def compare_chip(chip: Array, values: Array, valid: Bools, where: str) -> None:
    """Measurements are the truth's; all others show the mean of their band's measurements."""
    np.testing.assert_allclose(chip[:, valid], values[:, valid], rtol=1e-5, atol=1e-5, err_msg=where)
    if not valid.all():
        means = np.broadcast_to(values[:, valid].mean(axis=1, keepdims=True), chip[:, ~valid].shape)
        np.testing.assert_allclose(chip[:, ~valid], means, rtol=1e-5, atol=0.5, err_msg=f"filled pixels of {where}")
