"""A first site file from what lies in a folder. Each guess stands beside its reason, for a person
to judge."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.text import Text

from fedsense_core.data.opening import load_site
from fedsense_core.data.sites.site_file import SITE_NAME
from fedsense_core.errors import SiteError
from fedsense_core.run_folder.formatting import clean
from fedsense_core.tools.onboarding.globbing import literal
from fedsense_core.tools.onboarding.guessing import guess, numbers_of
from fedsense_core.tools.onboarding.products import POLARISATIONS, known_names
from fedsense_core.tools.onboarding.safe_groups import add_products
from fedsense_core.tools.onboarding.scene_groups import Group, Grouping, group
from fedsense_core.tools.onboarding.site_text import Entry, not_used, site_text, what_files
from fedsense_core.tools.onboarding.survey import FilesProgress, Survey, peek, satellite_of, survey
from fedsense_core.tools.onboarding.wording import count, some

COMPARED = 8
"""Files of floats, of each source, whose numbers are looked at."""


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
    if not grouping.groups and not found.products:
        grouping = group(found.images, with_pictures=True)
    prefix = _prefix(found.folder, out)
    products = [Entry(one, what, prefix) for one, what in add_products(grouping, found.folder, found.products)]
    entries = (*products, *(_entry(one, found, prefix) for one in grouping.groups))
    entries = tuple(sorted(entries, key=lambda entry: bool(entry.guess.missing)))  # what is complete comes first
    if not entries:
        raise SiteError(f"{folder}: holds nothing to train on. {'; '.join(not_used(found, grouping))}.")
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(site_text(name, found, grouping, entries, out))
    except OSError as error:
        raise SiteError(f"{out}: cannot be written ({error.strerror}). Name another file with --out.") from error
    return Draft(out, found, entries, grouping, _fault(out, entries))


def describe(draft: Draft) -> Text:
    """Say in the terminal what was found and written, and what to type next."""
    found, page = draft.survey, Text()
    products = f" and {count(len(found.products), 'product')}" if found.products else ""
    page.append(f"{count(len(found.images), 'raster')}{products} in {clean(str(found.folder))}")
    page.append(f" ({found.opened} of them opened)\n" if found.opened < len(found.images) else "\n")
    for number, entry in enumerate(draft.entries, start=1):
        page.append(f"\nsource {number}  ")
        page.append(entry.guess.title, "yellow" if entry.guess.missing else "bold")
        page.append(f"\n  {what_files(entry.group)}: {some(entry.globs)}\n  {clean(entry.guess.reason)}\n")
        if entry.guess.missing:
            page.append(f"  missing: {clean(entry.guess.missing)}\n", "yellow")
        if entry.group.mask:
            page.append(f"  masked by {some(entry.group.mask.files.globs)}\n")
    page.append("\n")
    for line in not_used(found, draft.grouping):
        page.append(f"{line}\n", "yellow")
    page.append(f"wrote {draft.path}\n")
    if draft.fault:
        page.append(f"It does not load yet: {clean(draft.fault)}\n", "yellow")
    complete = [entry for entry in draft.entries if not entry.guess.missing]
    open_ones = range(len(complete) + 1, len(draft.entries) + 1)
    options = "" if all({"red", "green", "blue"} <= set(entry.names) for entry in complete) else " --bands all"
    if options:
        page.append("Not every source has red, green and blue: the site fits runs that read all bands.\n")
    if open_ones:
        page.append(f"Complete source {', '.join(map(str, open_ones))} in it, or leave it commented out. Then type:\n")
    else:
        page.append("Read its comments: each guess says its reason. Then type:\n")
    page.append(f"  fedsense data check {_typed(draft.path)}{options}", "bold")
    return page


def _entry(one: Group, found: Survey, prefix: str) -> Entry:
    first = one.images[0]
    path, file = f"{found.folder.name}/{first.path}", found.folder / first.path
    look = replace(first.look, gsd_m=one.gsd_m)
    guessed = guess(path, look, one.labels, partial(peek, file), satellite_of(file))
    if not guessed.missing and (kinds := _kinds(one, found.folder)):
        guessed = replace(guessed, missing=f"a folder for each kind of numbers: {kinds}")
    return Entry(one, guessed, prefix)


def _kinds(one: Group, folder: Path) -> str:
    """Say of floats which files hold numbers of which kind, if some that are looked at differ: one
    source reads all in the same way."""
    floats = [image for image in one.images if image.look.dtype.startswith("float")]
    looked_at = [floats[i * len(floats) // COMPARED] for i in range(COMPARED)] if len(floats) > COMPARED else floats
    is_radar = any(label.upper() in POLARISATIONS for label in (*one.labels, *known_names(one.images[0].look.texts)))
    kinds = {numbers_of(image.look, partial(peek, folder / image.path), is_radar): image.path for image in looked_at}
    kinds.pop("", None)
    return ", ".join(f"{path} holds {kind}" for kind, path in kinds.items()) if len(kinds) > 1 else ""


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
