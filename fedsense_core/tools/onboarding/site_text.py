"""The text of a drafted site file: TOML, with the reason of each guess beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from fedsense_core.data.chips.statistics import MAX_BANDS
from fedsense_core.run_folder.formatting import clean
from fedsense_core.tools.onboarding.guessing import Guess
from fedsense_core.tools.onboarding.partners import partners
from fedsense_core.tools.onboarding.products import card_of
from fedsense_core.tools.onboarding.scene_groups import Group, Grouping
from fedsense_core.tools.onboarding.survey import Survey
from fedsense_core.tools.onboarding.wording import NAMED, count, some


@dataclass(frozen=True)
class Entry:
    """One source of the draft."""

    group: Group
    guess: Guess
    prefix: str
    """Of every glob: the surveyed folder, seen from the site file."""

    @property
    def globs(self) -> tuple[str, ...]:
        """Where its images are."""
        return tuple(self.prefix + glob for glob in self.group.sets[0].globs)

    @property
    def names(self) -> tuple[str, ...]:
        """Its bands in the order of the files, or of the sets of files."""
        guessed = self.guess
        custom = tuple(band.name for band in guessed.custom_bands)
        return guessed.bands or (tuple(card_of(guessed.sensor).names) if guessed.sensor else custom)


def site_text(name: str, found: Survey, grouping: Grouping, entries: Sequence[Entry], out: Path) -> str:
    """Return the site file."""
    return "\n".join(_lines(name, found, grouping, entries, out)) + "\n"


def what_files(one: Group) -> str:
    """Say what files a source has."""
    if one.products:
        return f"{count(one.scenes, 'product')}, each as its SAFE folder or archive"
    look = one.images[0].look
    sizes = sorted({image.look.gsd_m for image in one.images if image.look.gsd_m})
    metres = (
        f", {sizes[0]:.3g}" + (f" to {sizes[-1]:.3g}" if sizes[-1] > 1.05 * sizes[0] else "") + " m a pixel"
        if sizes
        else ""
    )
    if one.labels:
        files = f"{count(one.scenes, 'scene')} in {count(len(one.images), 'file')} of one band each"
    else:
        files = f"{count(len(one.images), 'file')} of {count(look.bands, 'band')}"
    return f"{files}, type {look.dtype}{metres}"


def not_used(found: Survey, grouping: Grouping) -> Iterator[str]:
    """Say what is in no source, and why."""
    for reason, paths in grouping.left_out.items():
        which = "it" if len(paths) == 1 else "each"
        yield f"in no source: {count(len(paths), 'file')}, as {which} {reason}: {some(paths)}"
    for item in found.unreadable[:NAMED]:
        yield f"cannot be used: {clean(item.path)} {clean(item.reason)}"
    if len(found.unreadable) > NAMED:
        yield f"cannot be used: {count(len(found.unreadable) - NAMED, 'more file')}"
    if found.not_read:
        kinds = ", ".join(f"{number} {suffix}" for suffix, number in found.not_read.most_common())
        yield f"formats that are not read: {kinds}; convert such files with `gdal_translate IN OUT.tif`"


def _lines(name: str, found: Survey, grouping: Grouping, entries: Sequence[Entry], out: Path) -> Iterator[str]:
    products = f" and {count(len(found.products), 'product')}" if found.products else ""
    what = f"{count(len(found.images), 'raster')}{products}"
    yield f"# Draft of a site file, made by `fedsense data init` from {what} in"
    yield f"# {clean(str(found.folder))}"
    yield "# Every guess says its reason: read them, and correct what is wrong. Then type"
    yield f"#   fedsense data check {clean(out.name)}"
    yield ""
    yield f"name = {_quoted(name)}"
    yield 'description = ""  # one sentence for your own report; it is not sent'
    for number, entry in enumerate(entries, start=1):
        yield ""
        yield from _source(number, entry)
        for before, other in enumerate(entries[: number - 1], start=1):
            yield from _same_ground(before, other, entry)
    yield ""
    for line in not_used(found, grouping):
        yield from _comment(line)


def _source(number: int, entry: Entry) -> Iterator[str]:
    yield from _comment(f"Source {number}: {what_files(entry.group)}")
    yield from _comment(f"{entry.guess.title}: {clean(entry.guess.reason)}.")
    lines = "\n".join(_table(entry)).split("\n")
    if entry.guess.missing:
        yield from _comment(f"NOT COMPLETE. Missing: {clean(entry.guess.missing)}.")
        yield '# Fill in each ?, and remove the "# " in front of these lines. Or leave the source out.'
        lines = [f"# {line}".rstrip() for line in lines]
    yield from lines


def _same_ground(number: int, other: Entry, entry: Entry) -> Iterator[str]:
    """Say that a source may hold further bands of an earlier one's scenes."""
    lists = [[image.path for image in one.group.images] for one in (other, entry)]
    found = partners(*lists) if not (other.group.labels or entry.group.labels) else None
    if found is not None:
        one, another = (entry.prefix + pattern for pattern in found)
        yield from _comment(
            f"By their names these may be further bands of the scenes of source {number}. If so, give that source "
            f"paths = [{_quoted(one)}] and, below it, [[sources.also]] with paths = [{_quoted(another)}] and these "
            "bands; and remove this source."
        )


def _comment(text: str) -> Iterator[str]:
    yield from wrap(text, 110, initial_indent="# ", subsequent_indent="#   ", break_long_words=False)


def _table(entry: Entry) -> Iterator[str]:
    guessed, files = entry.guess, entry.group.sets
    yield "[[sources]]"
    yield f"paths = {_list(entry.globs)}"
    if guessed.sensor:
        yield f"sensor = {_quoted(guessed.sensor)}"
    bands = _bands_of(entry, 0)
    if bands:
        yield f"bands = {_list(bands)}"
    if guessed.sensor and guessed.gsd_m is not None:
        yield f"gsd_m = {guessed.gsd_m}  # by the files; the card says {card_of(guessed.sensor).gsd_m:g}"
    if guessed.sensor:
        yield from _keys(guessed)
    else:
        yield from _card(entry)
    for i, part in enumerate(files[1:], start=1):
        yield ""
        yield "[[sources.also]]"
        yield f"paths = {_list([entry.prefix + glob for glob in part.globs])}"
        yield f"bands = {_list(_bands_of(entry, i) or ())}"
    if entry.group.mask:
        yield ""
        yield from _mask(entry)
    if entry.group.products and entry.guess.sensor == "sentinel2-l2a":
        yield "# Clouds, their shadows and faults are left out by each product's own scene classification (SCL)."


def _keys(guessed: Guess) -> Iterator[str]:
    for key, value in guessed.keys:
        yield f"{key} = {_quoted(value) if isinstance(value, str) else value}"


def _bands_of(entry: Entry, part: int) -> tuple[str, ...] | None:
    """Return the bands of one set of files by name; None where they are all of the card's."""
    sets = entry.group.sets
    if len(sets) == 1:
        return entry.guess.bands if entry.guess.sensor else None
    before = sum(len(one.labels) for one in sets[:part])
    return entry.names[before : before + len(sets[part].labels)]


def _card(entry: Entry) -> Iterator[str]:
    guessed, images = entry.guess, entry.group.images
    yield ""
    yield "[sources.sensor]"
    size = guessed.gsd_m if guessed.gsd_m is not None else "?" if guessed.missing else 1.0
    yield f"gsd_m = {size}" + ("" if guessed.gsd_m is not None else "  # metres a pixel; the files do not say")
    yield from _keys(guessed)
    yield "bands = ["
    for band in guessed.custom_bands:
        what = (
            f"polarisation = {_quoted(band.polarisation)}"
            if band.polarisation
            else f"wavelength_um = {band.wavelength_um}"
        )
        yield f"    {{ name = {_quoted(band.name)}, {what} }},"
    if not guessed.custom_bands:
        # {band} stands for what files call their bands.
        names = entry.group.labels or [f"band_{i}" for i in range(1, images[0].look.bands + 1)]
        for name in names[:MAX_BANDS]:
            yield f"    {{ name = {_quoted(name)}, wavelength_um = ? }},"
    yield "]"


def _mask(entry: Entry) -> Iterator[str]:
    one = entry.group
    assert one.mask is not None
    yield "[sources.mask]"
    yield f"paths = {_list([entry.prefix + glob for glob in one.mask.files.globs])}"
    yield f"kind = {_quoted(one.mask.kind)}  # leaves out clouds, their shadows and faults"
    if len(one.mask.paths) < one.scenes:
        yield f"required = false  # {one.scenes - len(one.mask.paths)} of {one.scenes} scenes have none"


def _list(texts: Sequence[str]) -> str:
    inner = ", ".join(map(_quoted, texts))
    return f"[{inner}]" if len(inner) < 100 else "[\n" + "".join(f"    {_quoted(text)},\n" for text in texts) + "]"


def _quoted(text: str) -> str:
    # TOML's basic strings are JSON's, but for DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
