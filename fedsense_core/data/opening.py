"""From a site file to its chips: the entrance to an institution's imagery.

`load_site` reads the site file and lists its scenes; `open_chips` and `open_sources` return their
chips, out of the chip store where nothing has changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeGuard

import numpy as np
import torch

from fedsense_core.config import Config
from fedsense_core.data.chips.cache import ChipStore, IngestRequest, IngestResult
from fedsense_core.data.chips.chipping import Progress, chip_sources, digest
from fedsense_core.data.chips.chips import Chips, as_tensor
from fedsense_core.data.chips.drawing import draw_order, rooms
from fedsense_core.data.raster.datasets import open_dataset
from fedsense_core.data.raster.other_bands import check_share
from fedsense_core.data.raster.scenes import ChipSpec
from fedsense_core.data.sites.archives import on_disk
from fedsense_core.data.sites.item_lists import read_digests
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.scene_matching import FileSet, SourceFiles, check_masks, scenes_of_globs, scenes_of_lists
from fedsense_core.data.sites.schema import DatasetRef, MaskRule, Scene, Site, Skipped, Source
from fedsense_core.data.sites.sensors import SensorCard
from fedsense_core.data.sites.site_file import MaskEntry, SiteFile, SourceEntry, read_strict_toml
from fedsense_core.errors import SiteError

Bands = Sequence[str] | Literal["all"]

FOLDER_FORMAT = 2
"""Part of the name of each store: raise it when their layout changes."""


def open_site(path: Path, config: Config, cache: Path, progress: Progress | None = None) -> tuple[Chips, ...]:
    """Open the chips of a site file as the run reads them: all together, or each sensor apart where
    bands may differ.

    ``progress`` is called after every scene. Raises SiteError where nothing is usable.
    """
    site, data = load_site(path), config.data
    if config.conditioned:
        return open_sources(site, data.bands, data.chip_size, cache, progress=progress)
    return (open_chips(site, data.bands, data.chip_size, cache, progress=progress),)


def load_site(path: Path) -> Site:
    """Read a site file and list its imagery. No image is opened, and no dataset imported.

    Raises SiteError naming the file, the key, its value and the remedy.
    """
    path = Path(path).absolute()
    entry = read_strict_toml(path, SiteFile)
    sources = tuple(_source(path, f"{path}: sources[{i}]", source) for i, source in enumerate(entry.sources, start=1))
    _check_each_file_once(path, sources)
    return Site(
        name=entry.name,
        description=entry.description,
        path=path,
        sources=sources,
        limits=entry.limits,
        grid=entry.chips.grid,
        share_statistics=entry.share_statistics,
        share_overlap=entry.share_overlap,
    )


def _source(path: Path, where: str, entry: SourceEntry) -> Source:
    card = entry.card(where)
    scenes = () if entry.dataset else _scenes(path.parent, where, entry, card)
    return Source(
        sensor=entry.sensor if isinstance(entry.sensor, str) else "custom",
        card=card,
        scenes=scenes,
        mask=entry.mask.rule if entry.mask else _product_rule(scenes),
        gsd_range_m=entry.gsd_range_m,
        digests=_digests_of(path.parent / entry.digests, scenes, f"{where}.digests") if entry.digests else None,
        baseline_offset=card.baseline_offset,
        dataset=_dataset(path.parent, entry.dataset, entry.args) if entry.dataset else None,
    )


def _scenes(folder: Path, where: str, entry: SourceEntry, card: SensorCard) -> tuple[Scene, ...]:
    last = len(card.bands) - sum(len(part.bands) for part in entry.also)
    images = FileSet(where, tuple(entry.paths), entry.column, tuple(range(last)))
    further = tuple(
        FileSet(f"{where}.also[{i}]", tuple(part.paths), part.column, card.positions(part.bands, where))
        for i, part in enumerate(entry.also, start=1)
    )
    mask = FileSet(f"{where}.mask", tuple(entry.mask.paths), entry.mask.column) if _has_files(entry.mask) else None
    files = SourceFiles(folder, card, images, further, mask, entry.sensor if isinstance(entry.sensor, str) else "")
    scenes = scenes_of_lists(files, entry.lists) if entry.lists else scenes_of_globs(files)
    if entry.mask and entry.mask.required and entry.mask.rule:
        check_masks(scenes, f"{where}.mask")
    return scenes


def _has_files(entry: MaskEntry | None) -> TypeGuard[MaskEntry]:
    return entry is not None and bool(entry.paths or entry.column)


def _product_rule(scenes: Sequence[Scene]) -> MaskRule | None:
    """Return the rule for the masks that products hold, where the site file says nothing of
    masks."""
    return MaskEntry(kind="sentinel2-scl").rule if any(scene.mask for scene in scenes) else None


def _digests_of(path: Path, scenes: Sequence[Scene], where: str) -> dict[Path, str]:
    digests = read_digests(path, where)
    files = [on_disk(file) for scene in scenes for file in scene.files]
    if not any(file in digests for file in files):
        raise SiteError(
            f"{where}: {path}: lists none of the source's files, such as {files[0]}. Its paths begin at {path.parent}."
        )
    return digests


def _dataset(folder: Path, target: str, args: dict[str, Any]) -> DatasetRef:
    root = args.get("root")
    return DatasetRef(target, args | {"root": str(folder / root)} if isinstance(root, str) else args)


def _check_each_file_once(path: Path, sources: Sequence[Source]) -> None:
    owner: dict[Path, int] = {}
    for number, source in enumerate(sources, start=1):
        for file in (layer.path for scene in source.scenes for layer in scene.layers):
            if file in owner:
                to = "two sources" if owner[file] != number else f"two scenes of sources[{number}]"
                raise SiteError(f"{path}: {file} belongs to {to}. Make their globs or lists disjoint.")
            owner[file] = number


def open_chips(
    site: Site,
    bands: Bands,
    chip_size: int,
    cache_dir: Path | None,
    limits: ReadLimits | None = None,
    progress: Progress | None = None,
) -> Chips:
    """Return chips of ``chip_size`` pixels of all of ``site``, with the named bands, out of the
    chip stores in ``cache_dir``.

    Without ``cache_dir`` they are temporary ones. Without ``limits`` those of the site file hold.
    ``all`` bands are those of the only source's card. ``progress`` is called after each scene, see
    `chipping.Progress`. Raises SiteError for a band that a source lacks, a file that contradicts
    its sensor card, or no usable chip.
    """
    if bands == "all" and len(site.sources) > 1:
        raise SiteError(f"{site.path}: bands 'all' needs a site of one source. Name the bands that all sources hold.")
    opened = _ingest(site, bands, chip_size, cache_dir, limits, progress)
    if not sum(result.count for _, result in opened):
        raise SiteError(_nothing_usable(site, [item for _, result in opened for item in result.skipped]))
    return _chips(site, opened)


def open_sources(
    site: Site,
    bands: Bands,
    chip_size: int,
    cache_dir: Path | None,
    limits: ReadLimits | None = None,
    progress: Progress | None = None,
) -> tuple[Chips, ...]:
    """Return the chips of each source of ``site`` apart, with the named bands or ``all`` of its
    card's.

    Arguments and errors are those of `open_chips`, with which it shares its store. A source with
    nothing usable is left out, and its files are among those that the first chips name as skipped;
    it is an error if that goes for all.
    """
    opened = _ingest(site, bands, chip_size, cache_dir, limits, progress)
    unusable = [item for _, result in opened if not result.count for item in result.skipped]
    parts = [_chips(part, [one]) for part, one in zip(site.parts(), opened, strict=True) if one[1].count]
    if not parts:
        raise SiteError(_nothing_usable(site, unusable))
    return (replace(parts[0], skipped=(*parts[0].skipped, *unusable)), *parts[1:])


def _ingest(
    site: Site, bands: Bands, size: int, cache_dir: Path | None, limits: ReadLimits | None, progress: Progress | None
) -> list[tuple[ChipSpec, IngestResult]]:
    """Return what each source gives, and what was asked of it. Raises SiteError as `check_share`
    does."""
    limits = limits or site.limits
    specs = []
    for number, source in enumerate(site.sources, start=1):
        names = tuple(source.card.names if bands == "all" else bands)
        spec = ChipSpec(names, size, site.grid.stride(size), limits)
        _check(site, source, spec, f"{site.path}: sources[{number}]")
        specs.append(spec)
    # Chips that are mapped outlive the removal of their files.
    with TemporaryDirectory(prefix="fedsense-chips-") if cache_dir is None else nullcontext(cache_dir) as folder:
        stores = [_store(site, number, spec, Path(folder), progress) for number, spec in enumerate(specs)]
        results = [store.take(room) for store, room in zip(stores, rooms(limits.max_chips, stores), strict=True)]
    for result in results:
        check_share(result.skipped, result.drawn)
    return list(zip(specs, results, strict=True))


def _store(site: Site, number: int, spec: ChipSpec, folder: Path, progress: Progress | None) -> ChipStore:
    source = site.sources[number]
    where = f"{site.path}: sources[{number + 1}]"
    images = open_dataset(source.dataset, source.card, where) if source.dataset else None
    sources = chip_sources(source, spec, images)
    order = draw_order([one.name for one in sources], site.path.parent)
    return ChipStore(folder / _folder(site, number, spec), IngestRequest(sources, order, spec, progress))


def _check(site: Site, source: Source, spec: ChipSpec, where: str) -> None:
    """Refuse a request that no file could meet, before any is opened."""
    if not spec.bands or len(set(spec.bands)) != len(spec.bands):
        raise SiteError(f"{site.path}: the bands asked for must be a list without repeats, not {spec.bands}")
    if not 8 <= spec.size <= 4096:
        raise SiteError(f"{site.path}: chip size {spec.size} is outside 8 to 4096 pixels")
    source.card.positions(spec.bands, where)


def _folder(site: Site, number: int, spec: ChipSpec) -> str:
    """Return the name of a source's store: it stays when files, cards or limits change, so that old
    chips go."""
    source = site.sources[number]

    def kind(one: Source) -> list[object]:
        return [one.sensor, one.card.names, one.dataset.target if one.dataset else ""]

    alike = [i for i, one in enumerate(site.sources) if kind(one) == kind(source)]
    name = digest(FOLDER_FORMAT, str(site.path), kind(source), alike.index(number), spec.bands, spec.size)
    return f"{site.name}-{name[:16]}"


def _chips(site: Site, opened: Sequence[tuple[ChipSpec, IngestResult]]) -> Chips:
    """Join what the sources of ``site`` gave; all were asked for bands of the same names."""
    spec = opened[0][0]
    names = [(i, name) for i, (_, result) in enumerate(opened) for name in result.segments]
    segments = [opened[i][1].segments[name] for i, name in names]
    used = [(i, record) for i, (_, result) in enumerate(opened) for record in result.used]
    at = [names.index((i, record.segment)) for i, record in used]
    counts = [record.count for _, record in used]
    stretches = [slice(record.start, record.start + record.count) for _, record in used]
    location = np.concatenate([segments[k].locations[stretch] for k, stretch in zip(at, stretches, strict=True)])
    statistics = tuple(result.statistics for _, result in opened)
    card = site.sources[0].card
    return Chips(
        segments=tuple(segment.chips for segment in segments),
        segment=np.repeat(np.array(at, np.int64), counts),
        position=np.concatenate([np.arange(stretch.start, stretch.stop) for stretch in stretches]),
        statistics=statistics,
        sensor=tuple(source.sensor for source in site.sources),
        scene_paths=tuple(name for _, result in opened for name in result.names),
        skipped=tuple(item for _, result in opened for item in result.skipped),
        bands=spec.bands,
        spectrum=tuple(card.bands[i] for i in card.positions(spec.bands, str(site.path))),
        name=site.name,
        origin=torch.from_numpy(np.repeat(np.array([i for i, _ in used], np.int64), counts)),
        origin_mean=torch.stack([as_tensor(part.mean) for part in statistics]),
        origin_std=torch.stack([as_tensor(part.std) for part in statistics]),
        scene=np.repeat(np.arange(len(counts)), counts),
        row=location["row"].astype(np.int64),
        col=location["col"].astype(np.int64),
        valid=location["valid"].astype(np.float32),
        constant=tuple(record.constant for _, record in used),
    )


def _nothing_usable(site: Site, skipped: Sequence[Skipped]) -> str:
    """Say why a site has no chip, most frequent reason first, with one file as an example of
    each."""
    kinds = [item.kind for item in skipped]
    lines = []
    for kind, count in Counter(kinds).most_common(5):
        example = skipped[kinds.index(kind)]
        lines.append(f"{count} of {len(skipped)} files, such as {example.path}: {example.reason}")
    return f"{site.path}: site {site.name!r} has no usable chip. " + "; ".join(lines) + "."
