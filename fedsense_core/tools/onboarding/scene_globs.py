"""Globs for the files of a source: of one file a band, of files with all bands, and of their
masks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from fedsense_core.data.raster.other_bands import MOST_OTHER
from fedsense_core.data.sites.patterns import Pattern
from fedsense_core.tools.onboarding.globbing import below, common_end, common_start, fits, literal
from fedsense_core.tools.onboarding.parts import (
    TELLINGS,
    Folders,
    Part,
    Telling,
    band_order,
    common_folder,
    gsd_of,
    scene_starts,
)
from fedsense_core.tools.onboarding.products import mask_kind
from fedsense_core.tools.onboarding.survey import Image

MOST_LISTED = 200
"""Files that are listed one by one where no glob tells them from others."""


@dataclass(frozen=True)
class GlobSet:
    """Globs of files of one kind, and the bands that they hold where ``{band}`` stands in them."""

    globs: tuple[str, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Masks:
    """Masks of the scenes of a source."""

    files: GlobSet
    kind: str
    """Name of the ready-made rule."""
    paths: tuple[str, ...]
    """One for each scene that has one."""


@dataclass(frozen=True)
class BandGlobs:
    """Globs of scenes of one file a band."""

    sets: tuple[GlobSet, ...]
    parts: tuple[Part, ...]
    """The files that they fit."""
    scenes: int
    mask: Masks | None


def band_globs(family: Sequence[Part], masks: Sequence[Part], names: Sequence[str]) -> BandGlobs | None:
    """Return globs with ``{scene}`` and ``{band}`` for the files of a family, and for the masks of
    its scenes, that fit none else of ``names``.

    Where no globs fit all files, those that fit most; None where none fits any.
    """
    kinds: dict[tuple[str, str], list[Part]] = {}
    for part in family:
        kinds.setdefault(part.kind, []).append(part)
    ordered = sorted(kinds.values(), key=lambda parts: (gsd_of(parts), parts[0].kind))
    starts = _starts([part.scene for part in family])
    best: BandGlobs | None = None
    for telling, start in [(telling, start) for telling in TELLINGS for start in starts]:
        if (start and telling != "name") or not _tells_apart(family, telling):
            continue
        sets, used = list[GlobSet](), list[Part]()
        for parts in ordered:
            labels = tuple(sorted({part.label for part in parts}, key=band_order))
            found = _band_glob(parts, family, telling, start, labels, names)
            # Scenes are those of the first files; others without them would be lost.
            first = {part.told_by(telling) for part in used}
            joined = [part for part in parts if not sets or part.told_by(telling) in first]
            if found is not None and joined:
                sets.append(GlobSet((found,), labels))
                used += joined
        if used and (best is None or len(used) > len(best.parts)):
            scenes = len({part.told_by(telling) for part in used})
            best = BandGlobs(tuple(sets), tuple(used), scenes, _masks(masks, used, telling, start, names))
        if best is not None and len(best.parts) == len(family):
            break
    return best


def image_globs(own: Sequence[str], names: Sequence[str], odd: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """Return globs that fit the files ``own``, and which files of ``odd`` they fit too.

    They fit none else of ``names``, and of ``odd``, which a reader would skip, only few. No globs
    where there are none such.
    """
    wanted, skipped = set(own), set(odd)
    others = [name for name in names if name not in wanted]
    globs: list[str] = []
    for suffix in sorted({PurePosixPath(path).suffix for path in own}):
        paths = [path for path in own if path.endswith(suffix)]
        chosen = _narrowest(paths, suffix, others, skipped)
        if chosen is None and len(paths) <= MOST_LISTED:
            chosen = [literal(path) for path in paths]
        wanted -= {path for path in wanted if any(fits(glob, path) for glob in chosen or ())}
        globs += chosen or []
    if wanted:
        return [], []
    return globs, [name for name in others if name in skipped and any(fits(glob, name) for glob in globs)]


def masked_image_globs(
    images: Sequence[Image], masks: Sequence[Part], names: Sequence[str]
) -> tuple[str, Masks] | None:
    """Return a glob with ``{scene}`` for files that each hold all bands, and that of their masks;
    None where there are none."""
    own = {image.path for image in images}
    mask_files = {part.image.path for part in masks}
    others = [name for name in names if name not in own and name not in mask_files]
    for telling, scenes, ends in _joined(images, masks):
        joined = [part for _, part in scenes]
        folders = Folders.of(joined, joined)
        start = common_start([part.scene for part in joined]) if telling == "name" else ""
        for glob, begins in _image_candidates(images, ends, telling, folders, start):
            if all(fits(glob, path) for path in own) and not any(fits(glob, name) for name in others):
                found = _masks_like(joined, masks, telling, begins, folders, names)
                if found is not None and _same_scenes(glob, found.files.globs[0], scenes):
                    return glob, found
    return None


def _starts(scenes: Sequence[str]) -> list[str]:
    """Return how all names of scenes begin, the shortest first; of a single scene not all of its
    name, for ``{scene}`` stands for something."""
    if len(set(scenes)) > 1:
        return list(dict.fromkeys(("", common_start(scenes))))
    return ["", *(scenes[0][: found.end()] for found in re.finditer(r"[_.-](?=.)", scenes[0]))]


def _tells_apart(family: Sequence[Part], telling: Telling) -> bool:
    """Say whether no two files hold the same band of what counts as one scene."""
    scenes = [(part.told_by(telling), part.label) for part in family]
    return all(scene for scene, _ in scenes) and len(set(scenes)) == len(scenes)


def _band_glob(
    parts: Sequence[Part],
    family: Sequence[Part],
    telling: Telling,
    start: str,
    labels: Sequence[str],
    names: Sequence[str],
) -> str | None:
    own = {part.image.path: part.told_by(telling) for part in parts}
    numbers = {label: i for i, label in enumerate(labels)}
    for glob in parts[0].globs(telling, "{band}", start, Folders.of(parts, family)):
        pattern = Pattern(glob)
        found = {name: match.scene or "" for name in names if (match := pattern.match(name, numbers))}
        if found.keys() == own.keys() and _is_one_to_one((found[path], own[path]) for path in own):
            return glob
    return None


def _is_one_to_one(pairs: Iterable[tuple[str, str]]) -> bool:
    distinct = set(pairs)
    return len({one for one, _ in distinct}) == len({other for _, other in distinct}) == len(distinct)


def _masks(
    masks: Sequence[Part], used: Sequence[Part], telling: Telling, start: str, names: Sequence[str]
) -> Masks | None:
    scenes = {part.told_by(telling) for part in used}
    joined = [part for part in masks if part.told_by(telling) in scenes]
    return _masks_like(joined, masks, telling, start, Folders.of(joined, used), names) if joined else None


def _masks_like(
    joined: Sequence[Part], masks: Sequence[Part], telling: Telling, start: str, folders: Folders, names: Sequence[str]
) -> Masks | None:
    """Return the masks of scenes: the finest where there are several sizes. Their glob fits no
    other files but masks."""
    kinds: dict[tuple[str, ...], list[Part]] = {}
    for part in joined:
        kinds.setdefault((*part.kind, part.between, _as_written(part)), []).append(part)
    allowed = {part.image.path for part in masks}
    for parts in sorted(kinds.values(), key=lambda parts: (gsd_of(parts), parts[0].kind)):
        first, own = parts[0], {part.image.path for part in parts}
        if not _tells_apart(parts, telling):
            continue
        # Where names of scenes go over folders, they begin where the images' do.
        here = Folders(Folders.of(parts, parts).roots, folders.above, folders.top, folders.above_top)
        for glob in first.globs(telling, literal(_as_written(first)), start, here):
            found = {name for name in names if fits(glob, name)}
            if own <= found <= allowed:
                return Masks(GlobSet((glob,)), mask_kind(first.label), tuple(sorted(own)))
    return None


def _as_written(part: Part) -> str:
    """Return the label with its capitals."""
    return part.image.stem[len(part.scene + part.between) :][: len(part.label)]


def _joined(images: Sequence[Image], masks: Sequence[Part]) -> Iterator[tuple[Telling, list[tuple[Image, Part]], str]]:
    """Yield ways in which masks find their images: these pairs, and what follows the scene in the
    images' names."""
    by_name: tuple[Telling, ...] = ("name", "path")
    by_folder: tuple[Telling, ...] = ("folder", "path")
    for telling in by_name:
        scenes = {part.told_by(telling): part for part in masks if part.scene and not part.inner}
        ends, pairs = set(), []
        for image in images:
            above = "" if telling == "name" else f"{image.folder}/"
            start = next((start for start in scene_starts(image.stem) if f"{above}{start}" in scenes), None)
            if start is not None:
                ends.add(image.name[len(start) :])
                pairs.append((image, scenes[f"{above}{start}"]))
        if len(ends) == 1 and len({part.image.path for _, part in pairs}) == len(pairs):
            end = ends.pop()
            yield telling, pairs, end
            if more := _common_part_at_end([part.scene for _, part in pairs]):
                yield telling, [(image, _with_less_scene(part, more)) for image, part in pairs], f"{more}{end}"
    alone = {image.folder: image for image in images}
    if len(alone) == len(images):
        for telling in by_folder:
            bare = [part for part in masks if part.folder in alone and not part.scene and part.folder]
            if bare and _tells_apart(bare, telling):
                yield telling, [(alone[part.folder], part) for part in bare], ""


def _common_part_at_end(scenes: Sequence[str]) -> str:
    """Return with what all scenes' names end from a separator on, as with their sensor; not all of
    a name."""
    shortest = min(scenes, key=len)
    ends = (shortest[found.start() :] for found in re.finditer(r"(?<=.)[_.-]", shortest))
    return next((end for end in ends if all(scene.endswith(end) for scene in scenes)), "")


def _with_less_scene(part: Part, end: str) -> Part:
    return replace(part, scene=part.scene.removesuffix(end), between=f"{end}{part.between}")


def _image_candidates(
    images: Sequence[Image], end: str, telling: Telling, folders: Folders, start: str
) -> Iterator[tuple[str, str]]:
    """Yield globs of images, and how the names of scenes begin before ``{scene}``."""
    paths = [image.path for image in images]
    if end and telling == "name":
        for begins in dict.fromkeys(("", start)):
            for root in _roots(paths):
                yield f"{root}{literal(begins)}{{scene}}{literal(end)}", begins
    elif end:
        yield f"{below(folders.top)}{{scene:**}}{literal(end)}", ""
    else:
        stems, suffixes = [image.stem for image in images], {image.suffix for image in images}
        same = [literal(stems[0])] if len(set(stems)) == 1 else []
        parts = [*same, f"{literal(common_start(stems))}*{literal(common_end(stems))}", "*"]
        roots = [f"{root}{{scene}}/" for root in folders.above] if telling == "folder" else []
        roots += [f"{below(folders.above_top)}{{scene:**}}/"] if telling == "path" else []
        for root in roots if len(suffixes) == 1 else []:
            for part in parts:
                yield f"{root}{part}{suffixes.copy().pop()}", ""


def _same_scenes(images: str, masks: str, pairs: Sequence[tuple[Image, Part]]) -> bool:
    """Say whether both globs give each image and its mask the same scene, and no two images one."""
    one, other = Pattern(images), Pattern(masks)
    scenes = set()
    for image, part in pairs:
        found, beside = one.match(image.path, {}), other.match(part.image.path, {})
        if found is None or beside is None or found.scene != beside.scene:
            return False
        scenes.add(found.scene)
    return len(scenes) == len(pairs)


def _narrowest(paths: Sequence[str], suffix: str, others: Sequence[str], skipped: set[str]) -> list[str] | None:
    """Return the simplest globs without another file; else the simplest with no others but few that
    are skipped."""
    few = None
    for globs in _candidates(paths, suffix):
        strangers = 0
        for name in others:
            if any(fits(glob, name) for glob in globs):
                strangers += 1 if name in skipped else len(others) + len(paths)
                if strangers > MOST_OTHER * (len(paths) + strangers):
                    break
        if not strangers:
            return globs
        if few is None and strangers <= MOST_OTHER * (len(paths) + strangers):
            few = globs
    return few


def _candidates(paths: Sequence[str], suffix: str) -> Iterator[list[str]]:
    """Yield globs, the simplest first: whole folders, then parts of names."""
    stems = [PurePosixPath(path).stem for path in paths]
    start, end = literal(common_start(stems)), literal(common_end(stems))
    parts = list(dict.fromkeys(["*", f"{start}*", f"*{end}", f"{start}*{end}"])) if len(paths) > 1 else ["*"]
    for part in parts:
        for root in _roots(paths):
            yield [f"{root}{part}{suffix}"]
    folders = sorted({path.rpartition("/")[0] for path in paths})
    if 1 < len(folders) <= MOST_LISTED // 10:
        for part in parts:
            yield [f"{below(folder)}{part}{suffix}" for folder in folders]


def _roots(paths: Sequence[str]) -> list[str]:
    folders = {path.rpartition("/")[0] for path in paths}
    top = common_folder(folders)
    return [*([below(top)] if folders == {top} else []), f"{below(top)}**/"]
