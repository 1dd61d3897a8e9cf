"""Globs with placeholders: which files belong to one scene, and which band each of them holds.

As in a shell, ``*`` and ``?`` match no dot at the beginning of a name: such files are hidden, or
what macOS writes beside others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from pathlib import Path

from fedsense_core.data.sites.products import is_product
from fedsense_core.data.sites.sensors import SensorCard, other_names
from fedsense_core.data.sites.walking import folders_below, listed
from fedsense_core.errors import SiteError, nearest

PLACEHOLDERS = ("scene", "band")
"""What may stand in braces."""
OVER_FOLDERS = "scene:**"
"""The same for a scene's name that goes over several folders."""
_TOKEN = re.compile(r"\*\*/|\*|\?|\[!?\]?[^\]/]*\]|\{(\w*(?::\*\*)?)\}|.", re.DOTALL)
_AS_EXPRESSION = {"**/": "(?:[^/]+/)*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True)
class Match:
    """What a glob's placeholders stand for in one path; None where the glob has no such
    placeholder."""

    scene: str | None = None
    band: int | None = None
    """0-based position of the band in the card."""


@dataclass(frozen=True)
class Pattern:
    """A glob in which ``{scene}`` and ``{band}`` stand for parts of one path component.

    ``{scene:**}`` stands for whole folders too: ``a/1/B02.tif`` is band B02 of scene ``a/1`` in
    ``{scene:**}/{band}.tif``, and of scene ``a`` in ``{scene:**}/1/{band}.tif``.
    """

    glob: str

    def __post_init__(self) -> None:
        for name in re.findall(r"\{(\w*(?::[^{}]*)?)\}", self.glob):
            if name not in (*PLACEHOLDERS, OVER_FOLDERS):
                raise ValueError(
                    f"{self.glob!r} has an unknown placeholder {{{name}}}.{nearest(name, list(PLACEHOLDERS))} "
                    "There are {scene}, {scene:**} and {band}; a brace that is part of a name is written [{]"
                )
        if re.search(r"[^/]\{scene:", self.glob):
            raise ValueError(f"{self.glob!r}: {{scene:**}} goes over whole folders, so it must follow a slash")
        if "band" in self.placeholders and "scene" not in self.placeholders:
            raise ValueError(f"{self.glob!r} has {{band}} but no {{scene}}, which says what files belong together")
        try:
            _expression(self.glob, "")
        except re.error as error:
            raise ValueError(f"{self.glob!r} is no glob ({error})") from error

    @property
    def placeholders(self) -> frozenset[str]:
        """Names of the placeholders."""
        return frozenset(name for name in PLACEHOLDERS if re.search(rf"\{{{name}(?::\*\*)?\}}", self.glob))

    @property
    def plain(self) -> str:
        """The glob with ``*`` instead of the placeholders."""
        glob = re.sub(r"\{scene:\*\*\}(/?)", lambda found: "**/" if found[1] else "**/*", self.glob)
        return re.sub(r"\{(?:scene|band)\}", "*", glob)

    def match(self, path: str, labels: Mapping[str, int]) -> Match | None:
        """Return what the placeholders stand for in ``path``, or None where it does not fit.

        ``labels`` maps names and codes of bands, in lower case, to positions. A band is matched
        whatever its case, the longest label first; of the scenes that are then possible, the
        longest is taken.
        """
        if "band" not in self.placeholders:
            found = _expression(self.glob, "").fullmatch(path)
            return Match(found.groupdict().get("scene")) if found else None
        low = path.lower()
        for label in sorted(labels, key=lambda name: (-len(name), labels[name])):
            # The cheap look first: an archive has many files and a card many labels.
            found = _expression(self.glob, label).fullmatch(path) if label in low else None
            if found:
                return Match(found["scene"], labels[label])
        return None


def band_labels(card: SensorCard, bands: Sequence[int], where: str) -> dict[str, int]:
    """Return names and codes, in lower case, of the card's ``bands`` with their positions.

    Raises SiteError, beginning with ``where``, when two bands differ in nothing but case.
    """
    labels: dict[str, int] = {}
    for i in bands:
        for label in {card.bands[i].name, card.bands[i].code} - {""}:
            if labels.setdefault(label.lower(), i) != i:
                raise SiteError(f"{where}: the card has two bands {label!r} that {{band}} cannot tell apart.")
    for label, i in other_names(card).items():
        if i in bands:
            labels.setdefault(label, i)
    return labels


def find_files(folder: Path, pattern: Pattern, labels: Mapping[str, int], where: str) -> Iterator[tuple[Path, Match]]:
    """Yield the files and products that fit, each once by its real path, and what the placeholders
    stand for. Relative globs begin at ``folder``.

    Files whose ``{band}`` is none of ``labels`` are left out. Raises SiteError, beginning with
    ``where``, for what is no glob of this machine's disk.
    """
    found: dict[Path, Match] = {}
    for root, file in _matches(folder, pattern.plain, where):
        match = _at_root(pattern).match(file.relative_to(root).as_posix(), labels) if pattern.placeholders else Match()
        if match:
            found.setdefault(file.resolve(), match)
    yield from found.items()


def _at_root(pattern: Pattern) -> Pattern:
    path = Path(pattern.glob)
    return Pattern((path.relative_to(path.anchor) if path.is_absolute() else path).as_posix())


def _matches(folder: Path, glob: str, where: str) -> list[tuple[Path, Path]]:
    """Resolve one glob on the real file system. GDAL's virtual file systems and URLs are no files
    here."""
    if glob.startswith("/vsi") or "://" in glob or "\0" in glob:
        raise SiteError(f"{where}: {glob!r} is no plain path; list files of this machine's disk.")
    pattern = Path(glob)
    root = Path(pattern.anchor) if pattern.is_absolute() else folder
    parts = pattern.relative_to(root).parts if pattern.is_absolute() else pattern.parts
    if not parts:
        raise SiteError(f"{where}: {glob!r} is no file; write a glob of files.")
    try:
        found = dict.fromkeys(path for path in _expanded(root, parts) if path.is_file() or is_product(path))
        return [(root, path) for path in found]
    except (ValueError, OSError) as error:
        raise SiteError(f"{where}: {glob!r} cannot be searched: {error}") from error


def _expanded(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """Yield what a glob's ``parts`` match below ``folder``. Links are followed, see `walking`."""
    part, rest = parts[0], parts[1:]
    if part == "**" and rest:
        for inner in folders_below(folder):
            yield from _expanded(inner, rest)
        return
    if any(letter in part for letter in "*?["):
        fits = re.compile(translate(part)).match
        is_hidden_meant = part.startswith(".")
        found = [path for path in listed(folder) if fits(path.name) and path.name.startswith(".") == is_hidden_meant]
    else:
        found = [folder / part]
    if not rest:
        yield from found
        return
    # What links lead to has its name from where it lies, if it can be reached there.
    for path in sorted(filter(Path.is_dir, found), key=Path.is_symlink):
        yield from _expanded(path, rest)


@lru_cache(maxsize=1024)
def _expression(glob: str, label: str) -> re.Pattern[str]:
    """Return the regular expression of a glob whose ``{band}`` is ``label``."""
    parts, known = [], False
    for token in _TOKEN.finditer(glob):
        text = token[0]
        if token[1] in ("scene", OVER_FOLDERS):
            name = "[^/]+" if token[1] == "scene" else "[^/]+(?:/[^/]+)*"
            parts.append("(?P=scene)" if known else f"(?P<scene>{name})")
            known = True
        elif token[1] == "band":
            parts.append(f"(?i:{re.escape(label)})")
        elif text[0] == "[" and text.strip("[!]"):
            inside = re.sub(r"([\\\[\]&~|^])", r"\\\1", text[1:-1].removeprefix("!"))
            parts.append(f"(?!/)[{'^' if text[1] == '!' else ''}{inside}]")
        else:
            parts.append(_AS_EXPRESSION.get(text) or re.escape(text))
    return re.compile("".join(parts), re.DOTALL)
