"""A first site file from what lies in a folder. Each guess stands beside its reason, for a person
to judge."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median_low
from textwrap import wrap

from rich.text import Text

from fedsense_core.data.chips.statistics import MAX_BANDS
from fedsense_core.data.opening import load_site
from fedsense_core.data.sites.site_file import SITE_NAME
from fedsense_core.errors import SiteError
from fedsense_core.run_folder.formatting import clean
from fedsense_core.tools.onboarding.globbing import literal
from fedsense_core.tools.onboarding.guessing import Guess, card_of, guess
from fedsense_core.tools.onboarding.partners import partners
from fedsense_core.tools.onboarding.scene_groups import Group, Grouping, group
from fedsense_core.tools.onboarding.survey import FilesProgress, Survey, peek, survey

NAMED = 5
"""Files that are named one by one; of the others the number is said."""


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


@dataclass(frozen=True)
class Draft:
    """What was written."""

    path: Path
    survey: Survey
    entries: tuple[Entry, ...]
    grouping: Grouping
    fault: str
    """Why the draft does not load yet, or an empty text."""


def draft_site(folder: Path, out: Path, name: str | None, progress: FilesProgress) -> Draft:
    """Look at ``folder`` and write a site file that describes it to ``out``.

    Raises SiteError where there is nothing to describe, ``out`` is there already or cannot be
    written, and for a name that no site may have.
    """
    out = out.absolute()
    name = _checked_name(name) if name is not None else _name_of(folder)
    if out.exists():
        raise SiteError(
            f"{out}: is there already, and is never overwritten. Give another name with --out, or move it away."
        )
    found = survey(folder.absolute(), progress)
    grouping = group(found.images)
    entries = tuple(_entry(one, found, out) for one in grouping.groups)
    entries = tuple(sorted(entries, key=lambda entry: bool(entry.guess.missing)))  # what is complete comes first
    if not entries:
        raise SiteError(f"{folder}: holds nothing to train on. {'; '.join(_left(found, grouping))}.")
    text = "\n".join(_text(name, found, grouping, entries, out)) + "\n"
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise SiteError(f"{out}: cannot be written ({error.strerror}). Name another file with --out.") from error
    return Draft(out, found, entries, grouping, _fault(out, entries))


def describe(draft: Draft) -> Text:
    """Say in the terminal what was found and written, and what to type next."""
    found, page = draft.survey, Text()
    page.append(f"{len(found.images)} rasters in {clean(str(found.folder))}")
    page.append(f" ({found.opened} of them opened)\n" if found.opened < len(found.images) else "\n")
    for number, entry in enumerate(draft.entries, start=1):
        page.append(f"\nsource {number}  ")
        page.append(entry.guess.title, "yellow" if entry.guess.missing else "bold")
        page.append(f"\n  {_what(entry.group)}: {some(entry.globs)}\n  {clean(entry.guess.reason)}\n")
        if entry.guess.missing:
            page.append(f"  missing: {clean(entry.guess.missing)}\n", "yellow")
        if entry.group.mask:
            page.append(f"  masked by {some(entry.group.mask.files.globs)}\n")
    page.append("\n")
    for line in _left(found, draft.grouping):
        page.append(f"{line}\n", "yellow")
    page.append(f"wrote {draft.path}\n")
    if draft.fault:
        page.append(f"It does not load yet: {clean(draft.fault)}\n", "yellow")
    complete = [entry for entry in draft.entries if not entry.guess.missing]
    open_ones = range(len(complete) + 1, len(draft.entries) + 1)
    options = "" if all(_has_colours(entry) for entry in complete) else " --bands all"
    if options:
        page.append("Not every source has red, green and blue: the site fits runs that read all bands.\n")
    if open_ones:
        page.append(f"Complete source {', '.join(map(str, open_ones))} in it, or leave it commented out. Then type:\n")
    else:
        page.append("Read its comments: each guess says its reason. Then type:\n")
    page.append(f"  fedsense data check {_typed(draft.path)}{options}", "bold")
    return page


def count(number: int, what: str) -> str:
    """Return "1 file", "2,000 files"."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(clean(name) for name in names[:NAMED]) + more


def _entry(one: Group, found: Survey, out: Path) -> Entry:
    first = one.images[0]
    path = f"{found.folder.name}/{first.path}"
    sizes = [image.look.gsd_m for image in one.images if image.look.gsd_m]
    look = replace(first.look, gsd_m=median_low(sizes) if sizes else None)
    guessed = guess(path, look, one.labels, partial(peek, found.folder / first.path))
    return Entry(one, guessed, _prefix(found.folder, out))


def _prefix(folder: Path, out: Path) -> str:
    """Return what leads from the site file to the folder: relative where it lies beside or below
    the file."""
    folder, parent = folder.resolve(), out.parent.resolve()
    shown = folder.relative_to(parent).as_posix() if folder.is_relative_to(parent) else folder.as_posix()
    return "" if shown == "." else literal(shown).rstrip("/") + "/"


def _fault(out: Path, entries: Sequence[Entry]) -> str:
    if all(entry.guess.missing for entry in entries):
        return "no source is complete yet"
    try:
        load_site(out)
    except SiteError as error:
        return str(error)
    return ""


def _has_colours(entry: Entry) -> bool:
    guessed = entry.guess
    custom = tuple(band.name for band in guessed.custom_bands)
    names = guessed.bands or (card_of(guessed.sensor).names if guessed.sensor else custom)
    return {"red", "green", "blue"} <= set(names)


def _text(name: str, found: Survey, grouping: Grouping, entries: Sequence[Entry], out: Path) -> Iterator[str]:
    yield f"# Draft of a site file, made by `fedsense data init` from {len(found.images)} rasters in"
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
    for line in _left(found, grouping):
        yield from _comment(line)


def _source(number: int, entry: Entry) -> Iterator[str]:
    yield from _comment(f"Source {number}: {_what(entry.group)}")
    yield from _comment(f"{entry.guess.title}: {clean(entry.guess.reason)}.")
    lines = list(_table(entry))
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
    if guessed.sensor and bands is not None:
        yield f"bands = {_list(bands)}"
    if guessed.sensor and guessed.gsd_m is not None:
        yield f"gsd_m = {guessed.gsd_m}  # by the files; the card says {card_of(guessed.sensor).gsd_m:g}"
    if not guessed.sensor:
        yield from _card(entry)
    for i, part in enumerate(files[1:], start=1):
        yield ""
        yield "[[sources.also]]"
        yield f"paths = {_list([entry.prefix + glob for glob in part.globs])}"
        yield f"bands = {_list(_bands_of(entry, i) or ())}"
    if entry.group.mask:
        yield ""
        yield from _mask(entry)


def _bands_of(entry: Entry, part: int) -> tuple[str, ...] | None:
    """Return the bands of one set of files by name; None where they are all of the card's."""
    guessed, sets = entry.guess, entry.group.sets
    if not entry.group.labels:
        return guessed.bands
    names = guessed.bands or tuple(
        card_of(guessed.sensor).names if guessed.sensor else (b.name for b in guessed.custom_bands)
    )
    if len(sets) == 1:
        return guessed.bands
    before = sum(len(one.labels) for one in sets[:part])
    return names[before : before + len(sets[part].labels)]


def _card(entry: Entry) -> Iterator[str]:
    guessed, look = entry.guess, entry.group.images[0].look
    yield ""
    yield "[sources.sensor]"
    size = guessed.gsd_m if guessed.gsd_m is not None else "?" if guessed.missing else 1.0
    yield f"gsd_m = {size}" + ("" if guessed.gsd_m is not None else "  # metres a pixel; the files do not say")
    for key, value in guessed.keys:
        yield f"{key} = {_quoted(value) if isinstance(value, str) else value}"
    yield "bands = ["
    for band in guessed.custom_bands:
        what = (
            f"polarisation = {_quoted(band.polarisation)}"
            if band.polarisation
            else f"wavelength_um = {band.wavelength_um}"
        )
        yield f"    {{ name = {_quoted(band.name)}, {what} }},"
    if not guessed.custom_bands:
        for i in range(1, min(max(look.bands, len(entry.group.labels)), MAX_BANDS) + 1):
            yield f'    {{ name = "band_{i}", wavelength_um = ? }},'
    yield "]"


def _mask(entry: Entry) -> Iterator[str]:
    one = entry.group
    assert one.mask is not None
    yield "[sources.mask]"
    yield f"paths = {_list([entry.prefix + glob for glob in one.mask.files.globs])}"
    yield f"kind = {_quoted(one.mask.kind)}  # leaves out clouds, their shadows and faults"
    if len(one.mask.paths) < one.scenes:
        yield f"required = false  # {one.scenes - len(one.mask.paths)} of {one.scenes} scenes have none"


def _what(one: Group) -> str:
    """Say what files a source has."""
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


def _left(found: Survey, grouping: Grouping) -> Iterator[str]:
    """Say what is in no source."""
    if grouping.left_out:
        names = f"{count(len(grouping.left_out), 'file')}: {some(grouping.left_out)}"
        yield f"in no source, as no imagery to train on: {names}"
    if grouping.ambiguous:
        names = f"{count(len(grouping.ambiguous), 'file')}: {some(grouping.ambiguous)}"
        yield f"in no source, as no pattern tells them from others (give them a folder of their own): {names}"
    for item in found.unreadable[:NAMED]:
        yield f"cannot be used: {clean(item.path)} {clean(item.reason)}"
    if len(found.unreadable) > NAMED:
        yield f"cannot be used: {count(len(found.unreadable) - NAMED, 'more file')}"
    if found.not_read:
        kinds = ", ".join(f"{number} {suffix}" for suffix, number in found.not_read.most_common())
        yield f"formats that are not read: {kinds}; convert such files with `gdal_translate IN OUT.tif`"


def _checked_name(name: str) -> str:
    if not SITE_NAME.fullmatch(name):
        raise SiteError(f"--name {name!r}: must be 1 to 64 letters, digits, dots and hyphens. Try {_safe(name)!r}.")
    return name


def _typed(path: Path) -> str:
    """Return a path as it is typed from here."""
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def _name_of(folder: Path) -> str:
    return _safe(folder.absolute().name)


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip(".-")[:64].rstrip(".-") or "my-site"


def _list(texts: Sequence[str]) -> str:
    inner = ", ".join(map(_quoted, texts))
    return f"[{inner}]" if len(inner) < 100 else "[\n" + "".join(f"    {_quoted(text)},\n" for text in texts) + "]"


def _quoted(text: str) -> str:
    # TOML's basic strings are JSON's, but for DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
