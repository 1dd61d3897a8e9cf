"""A picture of an institution's chips, for a person to see at a glance whether the site file is
right.

Shapes: n chips of C bands, S chip size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fedsense_core.config import resolve
from fedsense_core.data.chips.chipping import Progress
from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.opening import load_site, open_sources
from fedsense_core.data.sites.schema import Site, Source
from fedsense_core.data.sites.sensors import SensorCard
from fedsense_core.errors import SiteError
from fedsense_core.run_folder.formatting import clean
from fedsense_core.tools.onboarding.wording import count
from fedsense_core.tools.reporting.canvas import GREY, INK
from fedsense_core.tools.reporting.tiles import to_rgb

MOST_SCENES = 12
"""Scenes of a source that are read: a picture must not take as long as chipping an archive."""
TILE_IN = 1.25
"""Side of a chip in the picture, inches."""
CAPTION_IN = 0.42
"""Room above a row for its words, inches."""
DPI = 110


@dataclass(frozen=True)
class Shown:
    """Which bands are seen, and how."""

    bands: tuple[str, ...]
    words: str
    compose: Callable[[Tensor], Tensor] = lambda x: x
    """From (n, C, S, S) in the card's units to the (n, 1 or 3, S, S) that are drawn."""


@dataclass(frozen=True)
class Row:
    """One source in the picture."""

    title: str
    caption: str
    images: np.ndarray
    """(n, S, S, 3) uint8; none where nothing is usable."""


def write_preview(path: Path, out: Path, shown: int, seed: int, progress: Progress | None = None) -> Path:
    """Write a PNG with ``shown`` random chips of each source of a site file to ``out``, and return
    its path.

    Raises SiteError where the site file is wrong, nothing is usable, or ``out`` cannot be written.
    """
    site, out = load_site(path), out.absolute()
    if out.suffix.lower() != ".png":
        raise SiteError(f"{out}: must end in .png.")
    generator = np.random.default_rng(seed)
    rows = [_row(site, number, shown, generator, progress) for number in range(len(site.sources))]
    if not any(len(row.images) for row in rows):
        raise SiteError(f"{site.path}: nothing is usable. `fedsense data check` says why.")
    try:
        _draw(site, rows, shown).savefig(out, format="png", dpi=DPI)
    except OSError as error:
        raise SiteError(f"{out}: cannot be written ({error.strerror}). Name another file with --out.") from error
    return out


def shown_bands(card: SensorCard) -> Shown:
    """Return true colour, or the nearest to it that the card has."""
    names = card.names
    for bands, words in ((("red", "green", "blue"), "true colour"), (("nir", "red", "green"), "false colour")):
        if set(bands) <= set(names):
            return Shown(bands, f"{words}: {', '.join(bands)}")
    if card.is_radar:
        pair = next((p for p in (("VV", "VH"), ("HH", "HV")) if set(p) <= _polarisations(card)), None)
        if pair is None:
            return Shown((names[0],), f"grey: {names[0]}")
        chosen = tuple(next(band.name for band in card.bands if band.polarisation == one) for one in pair)
        return Shown(chosen, f"false colour: {pair[0]}, {pair[1]}, their ratio", _with_ratio(card))
    if len(names) < 3:
        return Shown((names[0],), f"grey: {names[0]}")
    by_wavelength = [band.name for band in sorted(card.bands, key=lambda band: -(band.wavelength_um or 0))]
    chosen = (by_wavelength[0], by_wavelength[len(names) // 2], by_wavelength[-1])
    return Shown(chosen, f"false colour: {', '.join(chosen)}")


def _polarisations(card: SensorCard) -> set[str]:
    return {str(band.polarisation) for band in card.bands}


def _with_ratio(card: SensorCard) -> Callable[[Tensor], Tensor]:
    """Return what adds the ratio of two radar bands as a third: a difference where they are
    decibels."""
    is_log = card.decibels != "no" or (card.expected is not None and card.expected[0] < 0)

    def compose(x: Tensor) -> Tensor:
        first, second = x[:, :1], x[:, 1:]
        ratio = first - second if is_log else first / second.abs().clamp(min=1e-6)
        return torch.cat([first, second, ratio], dim=1)

    return compose


def _row(site: Site, number: int, shown: int, generator: np.random.Generator, progress: Progress | None) -> Row:
    whole = site.sources[number]
    seen = shown_bands(whole.card)
    source = _some_scenes(whole, generator)
    title = f"{number + 1}. {clean(whole.sensor)}"
    facts = f"{whole.card.gsd_m:g} m a pixel · {seen.words}"
    with TemporaryDirectory(prefix="fedsense-preview-") as folder:
        try:
            part = replace(site, sources=(source,))
            size = resolve({}).data.chip_size
            (chips,) = open_sources(part, seen.bands, size, Path(folder), progress=progress)
        except SiteError:
            return Row(title, f"{facts} · nothing usable; `fedsense data check` says why", np.zeros((0, 1, 1, 3)))
        images = _images(chips, seen, shown, generator)
    scenes = count(len(chips.scene_paths), "scene")
    if source is not whole:
        scenes = f"{len(source.scenes)} of {count(len(whole.scenes), 'scene')}"
    return Row(title, f"{facts} · {count(len(chips), 'chip')} in {scenes}", images)


def _some_scenes(source: Source, generator: np.random.Generator) -> Source:
    if len(source.scenes) <= MOST_SCENES:
        return source
    chosen = np.sort(generator.choice(len(source.scenes), MOST_SCENES, replace=False))
    return replace(source, scenes=tuple(source.scenes[i] for i in chosen))


def _images(chips: Chips, seen: Shown, shown: int, generator: np.random.Generator) -> np.ndarray:
    index = np.sort(generator.choice(len(chips), min(shown, len(chips)), replace=False))
    return to_rgb(seen.compose(chips.read(index).float()))


def _draw(site: Site, rows: Sequence[Row], columns: int) -> Figure:
    width = max(columns * (TILE_IN + 0.06), 6.0) + 0.3
    height = 0.5 + len(rows) * (TILE_IN + CAPTION_IN)
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(0.15 / width, 1 - 0.3 / height, clean(site.name), color=INK, fontsize=13, weight="bold")
    for number, row in enumerate(rows):
        top = 0.5 + number * (TILE_IN + CAPTION_IN)
        words = figure.text(0.15 / width, 1 - (top + 0.22) / height, row.title, color=INK, fontsize=9.5, weight="bold")
        words.set_parse_math(False)
        caption = figure.text(0.15 / width, 1 - (top + 0.38) / height, row.caption, color=GREY, fontsize=8)
        caption.set_parse_math(False)
        for column, image in enumerate(row.images):
            left = 0.15 + column * (TILE_IN + 0.06)
            box = (left / width, 1 - (top + CAPTION_IN + TILE_IN) / height, TILE_IN / width, TILE_IN / height)
            axes = figure.add_axes(box)
            axes.imshow(image, interpolation="nearest")
            axes.set_axis_off()
    return figure
