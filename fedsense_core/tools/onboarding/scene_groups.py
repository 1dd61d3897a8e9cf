"""Rasters that belong together: which make one source, which make one scene, and which are no
imagery."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePosixPath
from statistics import median_low

from fedsense_core.data.chips.statistics import MAX_BANDS
from fedsense_core.data.raster.formats import DTYPES
from fedsense_core.tools.onboarding.label_rasters import is_named_so
from fedsense_core.tools.onboarding.parts import Part, common_folder, gsd_of, is_polarised, parsed, scene_starts
from fedsense_core.tools.onboarding.products import (
    is_by_product,
    is_mask_of_another,
    is_radar,
    is_true_colour,
    known_names,
    labels_of,
    mask_kind,
    product_of,
)
from fedsense_core.tools.onboarding.scene_globs import (
    MOST_LISTED,
    BandGlobs,
    GlobSet,
    Masks,
    band_globs,
    image_globs,
    masked_image_globs,
)
from fedsense_core.tools.onboarding.survey import Image, Look

_Kind = tuple[str, bool, str, bool]
"""Of files of one band each: product, radar or not, what stands between scene and band, and whether
the name says the scene."""
GAP = 1.5
"""Pixels so many times larger than the next smaller ones are another source's."""
BESIDE = "is no imagery to train on"
MOST_FOLDERS = MOST_LISTED // 10
"""Folders that become sources of their own where no pattern fits all their files."""
MOST_KINDS = 4
"""Lists of bands that scenes of one family are tried to be told apart by: levels of a product, not
scenes that lack some file."""
SLOPES = "is the same reflectance as another file, without correction of slopes"
BESIDE_RADAR = "lies beside radar without being a polarisation: elevation, angles, areas, masks, pictures"
OTHER_MASK = "may be a mask, whose classes the name does not tell (say them: `mask`, with `drop` or `drop_bits`)"
UNJOINED = "is a mask that no pattern joins to its scene"
ODD = "has other bands than the files around it, and is skipped when they are read"
MANY_BANDS = (
    f"has more than {MAX_BANDS} bands, the most that are read; write those that you need with "
    "`gdal_translate -b 1 -b 2 IN OUT.tif`"
)
REPEATS = "is a mosaic of files that are here, too"
NO_FIRST = "is of a scene without the files with the smallest pixels, or cannot be told from others by a pattern"
AMBIGUOUS = "cannot be told from others by a pattern (give such files a folder of their own)"


@dataclass(frozen=True)
class Group:
    """What becomes one source."""

    images: tuple[Image, ...]
    """Without masks."""
    sets: tuple[GlobSet, ...]
    """The first is the source's ``paths``, the others are its ``also``."""
    scenes: int
    gsd_m: float | None
    """Side of the finest bands' pixels in metres, None where the files do not say it."""
    mask: Masks | None = None
    products: bool = False
    """Whether scenes are SAFE products, which say themselves what their files are."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Bands of one-file-a-band scenes."""
        return tuple(label for part in self.sets for label in part.labels)


@dataclass
class Grouping:
    """All that was found."""

    groups: list[Group] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Readable files that are in no source, by the reason."""

    @property
    def masks(self) -> set[str]:
        """Files by which scenes are masked."""
        return {path for one in self.groups if one.mask for path in one.mask.paths}

    def leave_out(self, reason: str, paths: Iterable[str]) -> None:
        """Note files that are in no source."""
        if paths := list(paths):
            self.left_out.setdefault(reason, []).extend(paths)


def group(images: Sequence[Image], with_pictures: bool = False) -> Grouping:
    """Sort readable files into sources. Every glob of the result fits the files of its own group
    alone, and perhaps few that reading skips.

    ``with_pictures`` takes pictures of products in true colour for imagery.
    """
    result = Grouping()
    rest: list[Image] = []
    masks: list[Part] = []
    bands: list[Part] = []
    known = {image.path: parsed(image) for image in images}
    beside_radar = _beside_radar(known, images)
    for image in images:
        part = known[image.path]
        if part and is_mask_of_another(part.label, image.path):
            result.leave_out(OTHER_MASK, [image.path])
        elif part and mask_kind(part.label):
            masks.append(part)
        elif image.look.no_measurement:
            result.leave_out(image.look.no_measurement, [image.path])
        elif image.look.repeats:
            result.leave_out(REPEATS, [image.path])
        elif _is_beside(image, with_pictures) or image.look.dtype not in DTYPES:
            result.leave_out(BESIDE, [image.path])
        elif image.look.bands > MAX_BANDS:
            result.leave_out(MANY_BANDS, [image.path])
        elif image.path in beside_radar:
            result.leave_out(BESIDE_RADAR, [image.path])
        elif image.look.no_imagery and not (part and not is_named_so(image.stem)):
            result.leave_out(image.look.no_imagery, [image.path])
        elif part and part.label not in labels_of(product_of(image.path)[0]):
            result.leave_out(BESIDE, [image.path])  # such as thermal bands, which no card has
        elif part:
            bands.append(part)
        else:
            rest.append(image)
    families, single = _families(_corrected(bands, result))
    names = [image.path for image in images]
    for family in families:
        _add_bands(result, family, masks, names)
    looks = {image.path: image.look for image in images}
    # The largest first: few files with other bands are then known to lie among it.
    for members in sorted(_alike([*rest, *single]), key=len, reverse=True):
        _add_images(result, members, masks, names, looks)
    result.leave_out(UNJOINED, sorted({part.image.path for part in masks} - result.masks))
    return result


def _is_beside(image: Image, with_pictures: bool) -> bool:
    is_wanted = with_pictures and image.look.dtype == "uint8" and is_true_colour(image.name)
    return is_by_product(image.name) and not is_wanted


def _beside_radar(known: Mapping[str, Part | None], images: Sequence[Image]) -> set[str]:
    """Return the files that lie beside the polarisations of radar scenes without being one."""
    polarised = [part for part in known.values() if part and is_polarised(part)]
    scenes = {(part.folder, part.scene) for part in polarised}
    products = {product_of(part.image.path)[0] for part in polarised}
    beside = set()
    for image in images:
        product, part = product_of(image.path)[0], known[image.path]
        if is_polarised(part):
            continue
        of_scene = part is None and any((image.folder, start) in scenes for start in ("", *scene_starts(image.stem)))
        of_product = (
            is_radar(product) and product in products and (image.look.bands == 1 or image.look.dtype == "uint8")
        )
        if of_product or (of_scene and image.look.bands == 1):
            beside.add(image.path)
    return beside


def _families(bands: Sequence[Part]) -> tuple[list[list[Part]], list[Image]]:
    """Return one-file-a-band families, and files whose name only happens to contain a band's."""
    scenes: dict[tuple[_Kind, str], list[Part]] = {}
    for part in bands:
        product = product_of(part.image.path)[0]
        # A file named by nothing but its band belongs to its folder's scene; others may be spread
        # over folders.
        kind = (product, is_polarised(part), part.between, bool(part.scene))
        scenes.setdefault((kind, part.scene or part.folder), []).append(part)
    families: dict[_Kind, list[Part]] = {}
    single: list[Image] = []
    for (kind, _), parts in scenes.items():
        product = product_of(parts[0].image.path)[0]
        if product or len({part.label for part in parts}) > 1:
            families.setdefault(kind, []).extend(parts)
        else:
            single += [part.image for part in parts]
    return list(families.values()), single


def _corrected(bands: Sequence[Part], result: Grouping) -> list[Part]:
    """Leave out reflectances of MAJA without correction of slopes where there are those with it."""
    corrected = {(part.folder, part.scene) for part in bands if part.between == "_FRE_"}
    kept, twice = list[Part](), list[str]()
    for part in bands:
        if part.between == "_SRE_" and (part.folder, part.scene) in corrected:
            twice.append(part.image.path)
        else:
            kept.append(part)
    result.leave_out(SLOPES, twice)
    return kept


def _by_their_bands(family: Sequence[Part]) -> list[list[Part]]:
    """Split a family where folders hold scenes of other bands, as levels of a product do, which no
    single list of bands describes."""
    scenes: dict[str, list[Part]] = {}
    for part in family:
        scenes.setdefault(f"{part.folder}/{part.scene}", []).append(part)
    kinds: dict[frozenset[str], list[Part]] = {}
    for parts in scenes.values():
        kinds.setdefault(frozenset(part.label for part in parts), []).extend(parts)
    return list(kinds.values())


def _add_bands(result: Grouping, family: list[Part], masks: list[Part], names: Sequence[str]) -> None:
    chosen = _finest(family)
    used_paths = {part.image.path for part in chosen}
    result.leave_out(BESIDE, [part.image.path for part in family if part.image.path not in used_paths])
    globs = _scene_globs(chosen, masks, names)
    fitted = {part.image.path for found in globs for part in found.parts}
    missed = [part.image.path for part in chosen if part.image.path not in fitted]
    result.leave_out(NO_FIRST if globs else AMBIGUOUS, missed)
    for found in globs:
        images = tuple(part.image for part in found.parts)
        result.groups.append(Group(images, found.sets, found.scenes, _finest_gsd(found.parts), found.mask))


def _scene_globs(family: list[Part], masks: Sequence[Part], names: Sequence[str]) -> list[BandGlobs]:
    """Return globs for scenes of the same bands apart where such globs fit them all; else for all
    together, or for those of each folder where that fits more."""
    apart = _by_their_bands(family)
    if 1 < len(apart) <= MOST_KINDS:
        globs = [found for parts in apart if (found := band_globs(parts, masks, names))]
        if _fitted(globs) == len(family):
            return globs
    together = band_globs(family, masks, names)
    best = [together] if together else []
    folders = _parts_by_folder(family)
    if _fitted(best) < len(family) and 1 < len(folders) <= MOST_FOLDERS:
        globs = [found for parts in folders for found in _scene_globs(parts, masks, names)]
        best = max(best, globs, key=_fitted)
    return best


def _fitted(globs: Sequence[BandGlobs]) -> int:
    return sum(len(found.parts) for found in globs)


def _parts_by_folder(family: Sequence[Part]) -> list[list[Part]]:
    of_path = {part.image.path: part for part in family}
    return [[of_path[image.path] for image in images] for images in _by_folder([part.image for part in family])]


def _finest(family: Sequence[Part]) -> list[Part]:
    """Keep of each band the files with the smallest pixels: products hold some bands at several
    sizes."""
    kinds: dict[str, dict[tuple[str, str], list[Part]]] = {}
    for part in family:
        kinds.setdefault(part.label, {}).setdefault(part.kind, []).append(part)
    best = {
        label: min(known, key=lambda kind: (gsd_of(known[kind]), -len(known[kind]), kind))
        for label, known in kinds.items()
    }
    return [part for part in family if best[part.label] == part.kind]


def _finest_gsd(parts: Sequence[Part]) -> float | None:
    """Return the pixel size of the band that has the smallest: chips have it."""
    sizes: dict[str, list[float]] = {}
    for part in parts:
        if part.image.look.gsd_m:
            sizes.setdefault(part.label, []).append(part.image.look.gsd_m)
    return min(map(median_low, sizes.values()), default=None)


def _add_images(
    result: Grouping, images: Sequence[Image], masks: list[Part], names: Sequence[str], looks: Mapping[str, Look]
) -> None:
    """Add the group of files that each hold all bands, but those that others left to be skipped."""
    odd = set(result.left_out.get(ODD, ()))
    images = [image for image in images if image.path not in odd]
    if not images:
        return
    paths, gsd_m = [image.path for image in images], _middle_gsd(images)
    if masked := masked_image_globs(images, masks, names):
        glob, mask = masked
        result.groups.append(Group(tuple(images), (GlobSet((glob,)),), len(images), gsd_m, mask))
        return
    taken = {image.path for one in result.groups for image in one.images}
    refused = [path for path, look in looks.items() if path not in taken and _is_refused(look, images[0].look)]
    globs, skipped = image_globs(paths, names, refused)
    if globs:
        result.groups.append(Group(tuple(images), (GlobSet(tuple(globs)),), len(images), gsd_m))
        known = {path for listed in result.left_out.values() for path in listed}
        result.leave_out(ODD, [path for path in skipped if path not in known])
    elif 1 < len(parts := _by_folder(images)) <= MOST_FOLDERS:
        for part in parts:
            _add_images(result, part, masks, names, looks)
    else:
        result.leave_out(AMBIGUOUS, paths)


def _is_refused(look: Look, expected: Look) -> bool:
    """Tell whether reading skips a file among those that look like ``expected``: by its bands, of
    which transparency is none, or because it holds no measurements."""
    return bool(look.no_measurement) or look.bands not in (expected.bands, expected.bands + look.has_alpha)


def _middle_gsd(images: Sequence[Image]) -> float | None:
    sizes = [image.look.gsd_m for image in images if image.look.gsd_m]
    return median_low(sizes) if sizes else None


def _by_folder(images: Sequence[Image]) -> list[list[Image]]:
    """Split by the uppermost folders in which files differ."""
    depth = len(PurePosixPath(common_folder(image.folder for image in images)).parts)
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
