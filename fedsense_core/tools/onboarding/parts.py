"""Files of which the name says what they hold: one band of a scene, or its mask."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from fedsense_core.tools.onboarding.globbing import below, literal
from fedsense_core.tools.onboarding.products import POLARISATIONS, labels_of, mask_labels
from fedsense_core.tools.onboarding.survey import Image

Telling = Literal["name", "folder", "path", "suffix"]
"""What tells scenes apart: a part of the files' names; the folder in which a scene lies; all
folders on the way, with the name where several scenes lie in one; or nothing, as there is one."""
TELLINGS: tuple[Telling, ...] = ("name", "folder", "path", "suffix")
"""The simplest first."""

_SIZE_FOLDER = re.compile(r"(?i)R?\d{2,3}m")
"""Folders inside a product that hold the bands of one pixel size."""
_RADAR_ORDER = {"vv": "1", "vh": "2", "hh": "1", "hv": "2"}
"""Bands of radar in the order of its cards."""


@dataclass(frozen=True)
class Part:
    """A file of which the name says what it holds."""

    image: Image
    label: str
    folder: str
    """Where the scene's files lie."""
    inner: str
    """Folder of one pixel size in it, with a slash, or an empty text."""
    scene: str
    """What the name says before the label."""
    between: str
    """Between both, such as ``_SR_``."""
    after: str
    """After the label, with suffix."""

    @property
    def kind(self) -> tuple[str, str]:
        """What files of a scene that differ in their labels alone have in common."""
        return self.inner, self.after

    def told_by(self, telling: Telling) -> str:
        """Return what distinguishes its scene, or an empty text."""
        match telling:
            case "name":
                return self.scene
            case "folder":
                return self.folder.rpartition("/")[2]
            case "path":
                return self.folder if self.inner or not self.scene else f"{self.folder}/{self.scene}"
            case "suffix":
                return "" if self.scene or self.between or self.folder or self.inner else self.after
            case unknown:
                assert_never(unknown)

    def globs(self, telling: Telling, label: str, start: str, folders: Folders) -> list[str]:
        """Return globs of the files like this one, with ``label`` (perhaps ``{band}``) instead of
        its own, the narrowest first.

        ``start`` begins all names of scenes, and is left out of what ``{scene}`` stands for.
        """
        end, anything = f"{literal(self.between)}{label}{literal(self.after)}", "*" if self.scene else ""
        match telling:
            case "name":
                tail = f"{literal(start)}{{scene}}{end}"
                if self.image.name.lower().startswith("s1") and not self.between and self.image.name.count("-") > 4:
                    mode = self.image.name.split("-")[1]
                    tail = f"s1?-{literal(mode)}-grd-{label}-{{scene}}-00?{literal(self.after)}"
                return [f"{root}{tail}" for root in folders.roots]
            case "folder":
                return [f"{root}{{scene}}/{literal(self.inner)}{anything}{end}" for root in folders.above]
            case "path":
                if self.scene and not self.inner:
                    return [f"{below(folders.top)}{{scene:**}}{end}"]
                return [f"{below(folders.above_top)}{{scene:**}}/{literal(self.inner)}{anything}{end}"]
            case "suffix":
                return [f"{label}.{{scene}}"]
            case unknown:
                assert_never(unknown)


@dataclass(frozen=True)
class Folders:
    """Where the files of one glob lie, and those of all that it belongs to."""

    roots: tuple[str, ...]
    """Beginnings of globs of the files: of their folder if there is one, and of all below."""
    above: tuple[str, ...]
    """The same of the folders that the scenes' folders lie in."""
    top: str
    """Common folder of all scenes' files."""
    above_top: str
    """Common folder of all scenes' folders."""

    @classmethod
    def of(cls, parts: Sequence[Part], family: Sequence[Part]) -> Folders:
        """Return those of some parts of a family."""
        top = common_folder(part.folder for part in family)
        above = common_folder(_parent(part.folder) for part in family)
        roots, parents = {part.image.folder for part in parts}, {_parent(part.folder) for part in parts}
        return cls(_beginnings(roots, top), _beginnings(parents, above), top, above)


def _beginnings(folders: set[str], top: str) -> tuple[str, ...]:
    own = (below(next(iter(folders))),) if len(folders) == 1 else ()
    return (*own, f"{below(top)}**/")


def common_folder(folders: Iterable[str]) -> str:
    """Return the folder in which all lie; empty for the surveyed one."""
    known = set(folders)
    return os.path.commonpath(known) if known and all(known) else ""


def parsed(image: Image) -> Part | None:
    """Read scene and band from the name of a file of one band, or of a mask."""
    found = _NAME.fullmatch(image.stem)
    # The usable data mask of PlanetScope has eight bands, of which the first is the one to read.
    if image.look.bands != 1 and not (found and found["label"].lower() == "udm2" and image.look.dtype == "uint8"):
        return None
    folder, inner = image.folder, ""
    if _SIZE_FOLDER.fullmatch(last := folder.rpartition("/")[2]):
        folder, inner = _parent(folder), f"{last}/"
    if radar := re.fullmatch(r"(s1[a-d]-\w+-grd)-(vv|vh|hh|hv)-(.+)-00\d(\.tiff?)", image.name, re.IGNORECASE):
        return Part(image, radar[2].lower(), folder, inner, radar[3], "", radar[4])
    if found is None:
        return None
    before = found["before"] or ""
    scene = re.sub(r"(?i)_(?:SR|TOA|BOA|FRE|SRE)_$|[_.-]$", "", before)
    after = f"{found['after'] or ''}{image.suffix}"
    return Part(image, found["label"].lower(), folder, inner, scene, before[len(scene) :], after)


def is_polarised(part: Part | None) -> bool:
    """Tell whether a file holds a band of radar."""
    return part is not None and part.label.upper() in POLARISATIONS


def scene_starts(stem: str) -> list[str]:
    """Return what a file's name may begin with as the name of its scene, the longest first."""
    return [stem[: match.start()] for match in re.finditer(r"[_.-]|$", stem)][::-1]


def gsd_of(parts: Sequence[Part]) -> float:
    """Return the pixel size of most of these files; without georeference the largest raster is the
    finest."""
    sizes = Counter(part.image.look.gsd_m or 1e9 / max(part.image.look.width, 1) for part in parts)
    return sizes.most_common(1)[0][0]


def band_order(label: str) -> tuple[str, str]:
    """Return what orders labels of bands as cards do."""
    if label in _RADAR_ORDER:
        return _RADAR_ORDER[label], label
    # B8A comes after B08 and before B09.
    return re.sub(r"^b(\d)(?!\d)", r"b0\1", label), label


def _parent(folder: str) -> str:
    return folder.rpartition("/")[0]


def _labels_pattern() -> re.Pattern[str]:
    labels = dict.fromkeys([*sorted(labels_of(""), key=len, reverse=True), *mask_labels()])
    # Single letters are band codes of the aerial card and far too common in names.
    known = "|".join(re.escape(label) for label in labels if len(label) > 1)
    return re.compile(rf"(?i)(?P<before>(?:.*[_.-])?)(?P<label>{known})(?P<after>(?:[_.-].*)?)")


_NAME = _labels_pattern()
