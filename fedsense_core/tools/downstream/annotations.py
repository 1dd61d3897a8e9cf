"""Annotation files of boxes as others write them: the text of DOTA and the XML of PASCAL VOC, which
DIOR has, too.

A file is checked line by line, since nobody vouches for it: its size before it is read, every
number, and no XML that defines anything. Errors name the file and the line or object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from fedsense_core.errors import SiteError
from fedsense_core.tools.downstream.boxes import checked_box

LARGEST_BYTES = 16 << 20
"""Of one annotation file; the largest of DOTA have 2 MB."""
HEADERS = ("imagesource:", "gsd:")
"""How the lines of DOTA begin that hold no object."""


@dataclass(frozen=True)
class Marked:
    """One object as a file has it."""

    name: str
    """Of its class."""
    corners: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels."""
    difficult: bool
    where: str
    """File and line or object, for messages."""
    oriented: bool = False
    """Whether the file has a box that is not upright, of which ``corners`` are the upright one
    around it."""


def read_dota(path: Path) -> list[Marked]:
    """Return the objects of a DOTA text file: ``x1 y1 x2 y2 x3 y3 x4 y4 class difficult`` a line, a
    box upright around the four corners. Raises SiteError."""
    objects = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        words = line.split()
        if words and not line.lower().startswith(HEADERS):
            objects.append(_dota_object(words, f"{path}, line {number}"))
    return objects


def read_voc(path: Path) -> list[Marked]:
    """Return the objects of a PASCAL VOC file: ``object`` with ``name``, ``difficult`` and
    ``bndbox``.

    Raises SiteError, also for any file with a document type: entities can be made to fill the
    memory or read others.
    """
    text = _text(path)
    if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
        raise SiteError(f"{path}: has a document type, which annotations have no need for. Remove it.")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise SiteError(f"{path}: is no XML ({error}). Copy the file again.") from error
    return [_voc_object(one, f"{path}, object {i}") for i, one in enumerate(root.iter("object"), start=1)]


def checked_name(name: str, where: str) -> str:
    """Return a name from a list of files, without blanks around it. Raises SiteError where it leads
    out of a folder."""
    name = name.strip()
    if not name or name in (".", "..") or any(sign in name for sign in "/\\\0:"):
        raise SiteError(f"{where}: {name!r} is no plain name of a file; it must not lead to another folder.")
    return name


def read_names(path: Path) -> list[tuple[str, str]]:
    """Return the names that a list holds, one a line or with commas between them, and where each
    stands."""
    lines = _text(path).splitlines()
    return [
        (checked_name(word, f"{path}, line {number}"), f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        for word in line.split(",")
        if word.strip()
    ]


def _dota_object(words: Sequence[str], where: str) -> Marked:
    if len(words) not in (9, 10):
        raise SiteError(f"{where}: an object has eight coordinates, a class and 0 or 1, not {len(words)} words.")
    x, y = ([_number(word, where) for word in words[start:8:2]] for start in (0, 1))
    _check_finite([*x, *y], where)
    corners = checked_box((min(x), min(y), max(x), max(y)), where)
    oriented = len(set(x)) > 2 or len(set(y)) > 2
    return Marked(words[8], corners, _flag(words[9] if len(words) == 10 else "0", where), where, oriented)


def _voc_object(element: ElementTree.Element, where: str) -> Marked:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise SiteError(f"{where}: has no name of a class.")
    words = [element.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
    left, top, right, bottom = (_number(word or "nothing", where) for word in words)
    corners = checked_box((left, top, right, bottom), where)
    return Marked(name, corners, _flag(element.findtext("difficult") or "0", where), where)


def _check_finite(numbers: Sequence[float], where: str) -> None:
    # Smallest and largest of a list with NaN depend on its order.
    wrong = next((number for number in numbers if not abs(number) < float("inf")), None)
    if wrong is not None:
        raise SiteError(f"{where}: a box needs finite numbers of pixels, not {wrong}.")


def _number(word: str, where: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise SiteError(f"{where}: {word!r} stands where a coordinate should be.") from None


def _flag(word: str, where: str) -> bool:
    # DOTA 1.5 and 2.0 mark some objects with 2, the very small ones.
    if word.strip() not in ("0", "1", "2"):
        raise SiteError(f"{where}: {word!r} stands where 1 (difficult) or 0 should be.")
    return word.strip() != "0"


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise SiteError(f"{path}: is larger than {LARGEST_BYTES} bytes, which no annotation file is.")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SiteError(f"{path}: cannot be read as annotations ({error}). Each image needs its file.") from error
