"""Rasters that belong together: which make one source, which make one scene, which mask it, and a
glob for them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePosixPath

from fedsense_core.data.raster.formats import DTYPES
from fedsense_core.data.sites.patterns import Pattern
from fedsense_core.tools.onboarding.globbing import below, common_end, common_start, fits, literal
from fedsense_core.tools.onboarding.guessing import known_names, labels_of, mask_kind, product_of
from fedsense_core.tools.onboarding.survey import Image, Look

_BY_PRODUCT = (
    r"thumb|quick.?look|preview|browse|(?:^|[_.])(?:TCI|AOT|WVP|PVI|CLDPRB|SNWPRB|CLD|SNW|ANG)(?=[_.]|$)"
    r"|QA_RADSAT|QA_AEROSOL|QA_PIXEL_|_(?:VAA|VZA|SAA|SZA)(?=[_.]|$)|_ST_|_ATMOS_OPACITY|_CLOUD_QA"
)
"""Files beside the bands of a product: pictures for people, angles, temperatures and quality of
other kinds."""
_RADAR = {"vv": "1", "vh": "2", "hh": "1", "hv": "2"}
"""Bands of radar in the order of its cards."""
GAP = 1.5
"""Pixels so many times larger than the next smaller ones are another source's."""
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
class Group:
    """What becomes one source."""

    images: tuple[Image, ...]
    """Without masks."""
    sets: tuple[GlobSet, ...]
    """The first is the source's ``paths``, the others are its ``also``."""
    scenes: int
    mask: Masks | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Bands of one-file-a-band scenes."""
        return tuple(label for part in self.sets for label in part.labels)


@dataclass
class Grouping:
    """All that was found."""

    groups: list[Group] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Readable files that are no imagery to train on."""
    ambiguous: list[str] = field(default_factory=list)
    """Readable files that no glob tells from others."""

    @property
    def masks(self) -> set[str]:
        """Files by which scenes are masked."""
        return {path for one in self.groups if one.mask for path in one.mask.paths}


@dataclass(frozen=True)
class _Part:
    """A file of which the name says what it holds."""

    image: Image
    label: str
    scene: str
    """What the name says before the label."""
    between: str
    """Between both, such as ``_SR_``."""
    after: str
    """After the label, with suffix."""


def group(images: Sequence[Image]) -> Grouping:
    """Sort readable files into sources. Every glob of the result fits the files of its own group
    alone."""
    result = Grouping()
    rest: list[Image] = []
    masks: list[_Part] = []
    bands: list[_Part] = []
    for image in images:
        part = _parsed(image)
        if part and mask_kind(part.label):
            masks.append(part)
        elif re.search(_BY_PRODUCT, image.name) or image.look.dtype not in DTYPES:
            result.left_out.append(image.path)
        elif part and part.label not in labels_of(product_of(image.path)[0]):
            result.left_out.append(image.path)  # such as Landsat's panchromatic and thermal bands, which no card has
        elif part:
            bands.append(part)
        else:
            rest.append(image)
    families, single = _families(bands)
    names = [image.path for image in images]
    for family in families:
        _add_bands(result, family, masks, names)
    for members in _alike([*rest, *single]):
        _add_images(result, members, masks, names)
    result.left_out += sorted({part.image.path for part in masks} - result.masks)
    return result


def _parsed(image: Image) -> _Part | None:
    """Read scene and band from the name of a single-band file."""
    if image.look.bands != 1:
        return None
    if radar := re.fullmatch(r"(s1[a-d]-\w+-grd)-(vv|vh|hh|hv)-(.+)-00\d(\.tiff?)", image.name, re.IGNORECASE):
        return _Part(image, radar[2].lower(), radar[3], "", radar[4])
    found = _NAME.fullmatch(image.stem)
    if found is None:
        return None
    before = found["before"] or ""
    scene = re.sub(r"(?i)_(?:SR|TOA|BOA)_$|[_.-]$", "", before)
    return _Part(image, found["label"].lower(), scene, before[len(scene) :], f"{found['after'] or ''}{image.suffix}")


def _families(bands: Sequence[_Part]) -> tuple[list[list[_Part]], list[Image]]:
    """Return one-file-a-band families, and files whose name only happens to contain a band's."""
    scenes: dict[tuple[str, ...], list[_Part]] = {}
    for part in bands:
        product = product_of(part.image.path)[0]
        # A file named by nothing but its band belongs to its folder's scene; others may be spread
        # over folders.
        where = part.scene or part.image.folder
        scenes.setdefault((product, part.between, "" if part.scene else "folder", where), []).append(part)
    families: dict[tuple[str, ...], list[_Part]] = {}
    single: list[Image] = []
    for (product, between, folder, _), parts in scenes.items():
        if product or len({part.label for part in parts}) > 1:
            families.setdefault((product, between, folder), []).extend(parts)
        else:
            single += [part.image for part in parts]
    return list(families.values()), single


def _add_bands(result: Grouping, family: list[_Part], masks: list[_Part], names: Sequence[str]) -> None:
    chosen = _finest(family)
    used_paths = {part.image.path for part in chosen}
    result.left_out += [part.image.path for part in family if part.image.path not in used_paths]
    sizes: dict[str, list[_Part]] = {}
    for part in chosen:
        sizes.setdefault(part.after, []).append(part)
    top = _top([part.image for part in chosen])
    sets, used = [], []
    for parts in sorted(sizes.values(), key=lambda parts: (_gsd(parts), parts[0].after)):
        labels = tuple(sorted({part.label for part in parts}, key=_band_order))
        found = _band_glob(parts, top, labels, names)
        if found is None:
            result.ambiguous += [part.image.path for part in parts]
        else:
            sets.append(GlobSet((found,), labels))
            used += parts
    if not sets:
        return
    scenes = {_scene_key(part) for part in used}
    mask = _masks([part for part in masks if _scene_key(part) in scenes], sets[0].globs[0], names)
    result.groups.append(Group(tuple(part.image for part in used), tuple(sets), len(scenes), mask))


def _finest(family: Sequence[_Part]) -> list[_Part]:
    """Keep of each band the files with the smallest pixels: products hold some bands at several
    sizes."""
    kinds: dict[str, dict[str, list[_Part]]] = {}
    for part in family:
        kinds.setdefault(part.label, {}).setdefault(part.after, []).append(part)
    best = {
        label: min(known, key=lambda after: (_gsd(known[after]), -len(known[after]), after))
        for label, known in kinds.items()
    }
    return [part for part in family if best[part.label] == part.after]


def _band_glob(parts: Sequence[_Part], top: str, labels: Sequence[str], names: Sequence[str]) -> str | None:
    """Return a glob with ``{scene}`` and ``{band}`` that fits these files and no others."""
    first, own = parts[0], {part.image.path for part in parts}
    after, between = literal(first.after), literal(first.between)
    if first.image.name.lower().startswith("s1") and not first.between:
        mode = first.image.name.split("-")[1]
        tails = [f"s1?-{literal(mode)}-grd-{{band}}-{{scene}}-00?{after}"]
    elif not first.scene:
        tails = [f"{{scene}}/{between}{{band}}{after}"] if all(part.image.folder for part in parts) else []
    else:
        prefix = literal(common_start([part.scene for part in parts]))
        tails = [f"{{scene}}{between}{{band}}{after}", f"{prefix}{{scene}}{between}{{band}}{after}"]
    numbers = {label: i for i, label in enumerate(labels)}
    folders = {part.image.folder if first.scene else _parent(part.image.folder) for part in parts}
    roots = [below(folders.pop())] if len(folders) == 1 else []
    roots.append(f"{below(top)}**/")
    for tail in tails:
        for root in roots:
            pattern = Pattern(root + tail)
            if {name for name in names if pattern.match(name, numbers)} == own:
                return root + tail
    return None


def _add_images(result: Grouping, images: Sequence[Image], masks: list[_Part], names: Sequence[str]) -> None:
    """Add the group of files that each hold all bands."""
    paths, globs, mask = [image.path for image in images], list[str](), None
    rest, own = _scene_ends(images, masks)
    if own:
        beside = {part.image.path for part in own}
        globs = _globs(paths, [name for name in names if name not in beside], rest)
        mask = _masks(own, globs[0], names) if globs else None
    globs = globs if mask else _globs(paths, names)
    if globs:
        result.groups.append(Group(tuple(images), (GlobSet(tuple(globs)),), len(images), mask))
    elif 1 < len(parts := _by_folder(images)) <= MOST_LISTED // 10:
        for part in parts:
            _add_images(result, part, masks, names)
    else:
        result.ambiguous += paths


def _by_folder(images: Sequence[Image]) -> list[list[Image]]:
    """Split by the uppermost folders in which files differ."""
    depth = len(PurePosixPath(_top(images)).parts)
    parts: dict[tuple[str, ...], list[Image]] = {}
    for image in images:
        parts.setdefault(PurePosixPath(image.folder).parts[depth : depth + 1], []).append(image)
    return list(parts.values())


def _alike(images: Iterable[Image]) -> list[list[Image]]:
    """Return files that look the same and come from the same kind of product."""
    kinds: dict[tuple[object, ...], list[Image]] = {}
    for image in images:
        look: Look = image.look
        kind = (look.bands, look.dtype, known_names(look.texts), look.is_rgb, look.has_alpha, look.wavelengths_um)
        kinds.setdefault((*kind, product_of(image.path)[0]), []).append(image)
    return [part for alike in kinds.values() for part in _by_pixel_size(alike)]


def _by_pixel_size(images: Sequence[Image]) -> list[list[Image]]:
    """Split where pixel sizes leave a wide gap: those of one source are described by one number."""
    ordered = sorted(images, key=lambda image: image.look.gsd_m or 0.0)
    parts: list[list[Image]] = [[ordered[0]]]
    for before, image in pairwise(ordered):
        if (image.look.gsd_m or 0.0) > GAP * (before.look.gsd_m or 0.0):
            parts.append([])
        parts[-1].append(image)
    return [sorted(part, key=lambda image: image.path) for part in parts]


def _scene_ends(images: Sequence[Image], masks: Sequence[_Part]) -> tuple[str, list[_Part]]:
    """Return what follows the scene in the images' names, and the masks of these scenes, if all are
    named alike."""
    scenes = {part.scene: part for part in masks if part.scene}
    ends, found = set(), []
    for image in images:
        starts = [image.stem[: match.start()] for match in re.finditer(r"[_.-]|$", image.stem)]
        key = next((start for start in reversed(starts) if start in scenes), None)
        if key is not None:
            ends.add(image.name[len(key) :])
            found.append(scenes[key])
    return (ends.pop(), found) if len(ends) == 1 else ("", [])


def _globs(own: Sequence[str], names: Sequence[str], rest: str = "") -> list[str]:
    """Return globs that fit the files ``own`` and none else of ``names``: with ``rest``, of names
    that end in it."""
    wanted = set(own)
    others = [name for name in names if name not in wanted]
    globs: list[str] = []
    for suffix in sorted({PurePosixPath(path).suffix for path in own}):
        paths = [path for path in own if path.endswith(suffix)]
        if rest:
            start = literal(common_start([PurePosixPath(path).stem for path in paths]))
            candidates = [[f"{root}{start}{{scene}}{literal(rest)}"] for start in ("", start) for root in _roots(paths)]
        else:
            candidates = list(_candidates(paths, suffix))
        chosen = next((c for c in candidates if not any(fits(glob, name) for glob in c for name in others)), None)
        if chosen is not None:
            wanted -= {path for path in wanted if any(fits(glob, path) for glob in chosen)}
        elif not rest and len(paths) <= MOST_LISTED:
            chosen = [literal(path) for path in paths]
            wanted -= set(paths)
        globs += chosen or []
    return [] if wanted else globs


def _candidates(paths: Sequence[str], suffix: str) -> Iterable[list[str]]:
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
    top = os.path.commonpath(folders) if all(folders) else ""
    return [*([below(top)] if folders == {top} else []), f"{below(top)}**/"]


def _masks(parts: Sequence[_Part], images: str, names: Sequence[str]) -> Masks | None:
    """Return the masks of scenes whose images have the glob ``images``: the finest where there are
    several sizes."""
    sizes: dict[str, list[_Part]] = {}
    for part in parts:
        sizes.setdefault(part.after, []).append(part)
    for chosen in sorted(sizes.values(), key=lambda parts: (_gsd(parts), parts[0].after)):
        first = chosen[0]
        label = first.image.stem[len(first.scene + first.between) :][: len(first.label)]
        end = f"{literal(first.between)}{label}{literal(first.after)}"
        if first.scene:
            # The scene's name has to begin where it does in the images' glob.
            before = images.partition("{scene}")[0].rpartition("/")[2]
            globs = [f"{root}{before}{{scene}}{end}" for root in _roots([part.image.path for part in chosen])]
        else:
            globs = [f"{below(_top([part.image for part in chosen]))}{{scene}}/{end}"]
            globs += [f"{below(_parent(first.image.folder))}{{scene}}/{end}"]
        own = {part.image.path for part in chosen}
        found = next((glob for glob in globs if {name for name in names if fits(glob, name)} == own), None)
        if found is not None:
            return Masks(GlobSet((found,)), mask_kind(first.label), tuple(sorted(own)))
    return None


def _scene_key(part: _Part) -> str:
    return part.scene or part.image.folder


def _gsd(parts: Sequence[_Part]) -> float:
    """Return the pixel size of most of these files; without georeference the largest raster is the
    finest."""
    sizes = Counter(part.image.look.gsd_m or 1e9 / max(part.image.look.width, 1) for part in parts)
    return sizes.most_common(1)[0][0]


def _top(images: Sequence[Image]) -> str:
    folders = {image.folder for image in images}
    return os.path.commonpath(folders) if all(folders) else ""


def _parent(folder: str) -> str:
    return folder.rpartition("/")[0]


def _band_order(label: str) -> tuple[str, str]:
    if label in _RADAR:
        return _RADAR[label], label
    # B8A comes after B08 and before B09.
    return re.sub(r"^b(\d)(?!\d)", r"b0\1", label), label


def _labels_pattern() -> re.Pattern[str]:
    labels: Mapping[str, None] = dict.fromkeys([*sorted(labels_of(""), key=len, reverse=True), "scl", "qa_pixel"])
    # Single letters are band codes of the aerial card and far too common in names.
    known = "|".join(re.escape(label) for label in labels if len(label) > 1)
    return re.compile(rf"(?i)(?P<before>(?:.*[_.-])?)(?P<label>{known})(?P<after>(?:[_.-].*)?)")


_NAME = _labels_pattern()
