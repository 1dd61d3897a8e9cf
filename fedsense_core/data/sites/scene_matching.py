"""From globs or item lists to scenes: which files cover the same ground, which bands each holds,
and its mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedsense_core.data.sites.item_lists import listed_files
from fedsense_core.data.sites.patterns import Pattern, band_labels, find_files
from fedsense_core.data.sites.products import NoScene, is_product, scenes_of_product
from fedsense_core.data.sites.schema import Layer, Scene
from fedsense_core.data.sites.sensors import SensorCard
from fedsense_core.errors import SiteError

NAMED = 3
"""Scenes that a message names."""


@dataclass(frozen=True)
class FileSet:
    """Where files of one kind are: the images of a source, further bands of them, or their
    masks."""

    where: str
    """Beginning of messages, such as ``site.toml: sources[1].also[2]``."""
    globs: tuple[str, ...] = ()
    column: str = ""
    """Of an item list, where there are no globs."""
    bands: tuple[int, ...] = ()
    """What a file holds, in its order, as positions in the card; with ``{band}``, what to look for.
    Masks: none."""


@dataclass(frozen=True)
class SourceFiles:
    """All files of one source."""

    folder: Path
    """Where relative globs begin."""
    card: SensorCard
    images: FileSet
    further: tuple[FileSet, ...] = ()
    masks: FileSet | None = None
    sensor: str = ""
    """Name of the shipped card; of a custom one none."""

    @property
    def joining(self) -> tuple[FileSet, ...]:
        """What joins the images: further bands, and masks last."""
        return (*self.further, *([self.masks] if self.masks else []))


def scenes_of_globs(source: SourceFiles) -> tuple[Scene, ...]:
    """Return the scenes whose images fit the globs, in the order of their first files' paths.

    Files of ``further`` and ``masks`` join the scene of the same name, and are no images of their
    own. Raises SiteError for a glob without a match, for names that do not meet, and for two files
    of one band of a scene.
    """
    masks = dict(_mask_files(source))
    parts = [_layers(source, part) for part in source.further]
    joining = {*masks.values(), *(layer.path for part in parts for layers in part.values() for layer in layers)}
    images = _layers(source, source.images, joining)
    _check_names_meet(source, images, [*parts, masks])
    scenes = []
    for name, own in images.items():
        joined = [layer for part in parts for layer in part.get(name, ())]
        for scene in _of_products(own, source):
            scenes.append(_joined(f"scene {name!r}", source, scene, joined, masks.get(name)))
    return tuple(sorted(scenes, key=lambda scene: scene.path))


def scenes_of_lists(source: SourceFiles, lists: Sequence[str]) -> tuple[Scene, ...]:
    """Return the scenes that item lists name, in their order, each once. Raises SiteError as
    `listed_files` does."""
    where = f"{source.images.where}.lists"
    sets = (source.images, *source.further)
    columns = [part.column for part in (source.images, *source.joining)]
    scenes: dict[Scene, None] = {}
    for path in sorted({path for glob in lists for path in _lists(source.folder, glob, where)}):
        for files in listed_files(path, columns, where):
            first, *joined = [Layer(file, part.bands) for file, part in zip(files, sets, strict=False) if file]
            for scene in _of_products([first], source):
                mask = files[-1] if source.masks else None
                scenes[_joined(f"item {first.path.name!r}", source, scene, joined, mask)] = None
    return tuple(scenes)


def check_masks(scenes: Iterable[Scene], where: str) -> None:
    """Raise SiteError, beginning with ``where``, naming the first scenes that have no mask."""
    bare = [scene.path.name for scene in scenes if scene.mask is None and not scene.fault]
    if bare:
        raise SiteError(
            f"{where}: {len(bare)} scenes have no mask file: {_some(bare)}. Add them, correct the globs, or set "
            "`required = false` to use such scenes without a mask."
        )


def _lists(folder: Path, glob: str, where: str) -> list[Path]:
    found = [path for path, _ in find_files(folder, Pattern(glob), {}, where)]
    if not found:
        raise SiteError(f"{where}: {glob!r} matches no file from {folder}. Correct it.")
    return found


def _layers(source: SourceFiles, part: FileSet, without: Collection[Path] = ()) -> dict[str, list[Layer]]:
    """Return the layers of one set by scene; a file is its own scene where globs have no
    ``{scene}``."""
    labels = band_labels(source.card, part.bands, part.where) if any("{band}" in glob for glob in part.globs) else {}
    layers = {
        path: (match.scene or str(path), Layer(path, part.bands if match.band is None else (match.band,)))
        for glob in part.globs
        for path, match in find_files(source.folder, Pattern(glob), labels, f"{part.where}.paths")
    }
    for path in without:
        layers.pop(path, None)
    if not layers:
        raise SiteError(_no_match(source, part) + " Files that `also` or `mask` names do not count." * bool(without))
    scenes: dict[str, list[Layer]] = {}
    for name, layer in sorted(layers.values(), key=lambda item: (item[1].bands, item[1].path)):
        scenes.setdefault(name, []).append(layer)
    return scenes


def _mask_files(source: SourceFiles) -> Iterator[tuple[str, Path]]:
    """Yield the mask of each scene by the scene's name."""
    if source.masks is None:
        return
    for name, layers in _layers(source, source.masks).items():
        if len(layers) > 1:
            raise SiteError(
                f"{source.masks.where}.paths: scene {name!r} has two masks, {layers[0].path} and {layers[1].path}. "
                "Make the globs disjoint."
            )
        yield name, layers[0].path


def _of_products(layers: Sequence[Layer], source: SourceFiles) -> Iterator[Scene]:
    """Yield the scenes of products, and that of all other layers together."""
    files = tuple(layer for layer in layers if not is_product(layer.path))
    if files:
        yield Scene(files)
    for layer in layers:
        if layer not in files:
            try:
                yield from scenes_of_product(layer.path, source.sensor, source.card, layer.bands)
            except NoScene as reason:
                yield Scene((layer,), fault=str(reason))


def _joined(name: str, source: SourceFiles, scene: Scene, further: Sequence[Layer], mask: Path | None) -> Scene:
    """Return a scene with further layers, and with another mask where there is one."""
    layers = (*scene.layers, *further)
    band, most = Counter(band for layer in layers for band in layer.bands).most_common(1)[0]
    if most > 1:
        first, second, *_ = (layer.path for layer in layers if band in layer.bands)
        raise SiteError(
            f"{source.images.where}: {name} has two files of band {source.card.bands[band].name!r}, "
            f"{first} and {second}. "
            "Let {scene} stand for all that tells scenes apart, {scene:**} over several folders, or make the globs "
            "disjoint."
        )
    return replace(scene, layers=layers, mask=mask or scene.mask)


def _check_names_meet(
    source: SourceFiles, images: Mapping[str, object], others: Sequence[Mapping[str, object]]
) -> None:
    for part, names in zip(source.joining, others, strict=False):
        if not names.keys() & images.keys():
            raise SiteError(
                f"{part.where}.paths: the scenes are {_some(list(names))}, those of the source's images are "
                f"{_some(list(images))}: none is both. Let {{scene}} stand for the same part of the names."
            )


def _no_match(source: SourceFiles, part: FileSet) -> str:
    tried = f"{part.where}.paths matches no file (tried {', '.join(map(repr, part.globs))} from {source.folder})"
    if any("{band}" in glob for glob in part.globs):
        bands = [source.card.bands[i] for i in part.bands]
        names = ", ".join(f"{band.code} ({band.name})" if band.code else band.name for band in bands)
        return f"{tried} in which {{band}} is one of {names}. Correct the globs, or the sensor."
    return f"{tried}. Correct the globs."


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:NAMED])) + (", ..." if len(names) > NAMED else "")
