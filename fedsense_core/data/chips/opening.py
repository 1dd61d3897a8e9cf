"""From a site to chips: cut, or mapped from the cache."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from fedsense_core.data.chips.cache import hold_on_disk
from fedsense_core.data.chips.chips import Chips, as_tensor
from fedsense_core.data.chips.ingest import Held, Order, Progress, hold_in_memory
from fedsense_core.data.chips.sources import digest, subjects_of
from fedsense_core.data.chips.statistics import Statistics, merged
from fedsense_core.data.raster.datasets import open_dataset
from fedsense_core.data.raster.rasters import Skipped
from fedsense_core.data.raster.scenes import Request
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.schema import Site, Source
from fedsense_core.errors import SiteError

Bands = Sequence[str] | Literal["all"]

FOLDER_FORMAT = 2
"""Part of the name of each cache folder: raise it when their layout changes."""


def open_chips(
    site: Site,
    bands: Bands,
    chip_size: int,
    cache_dir: Path | None,
    limits: ReadLimits | None = None,
    progress: Progress | None = None,
) -> Chips:
    """Cut ``site`` into chips of ``chip_size`` pixels with the named bands, or map them from
    ``cache_dir``.

    Without ``limits`` those of the site file hold. ``all`` bands are those of the only source's
    card. ``progress`` is called after each scene, see `held.Progress`. Raises SiteError for a band
    that a source lacks, a file that contradicts its sensor card, or no usable chip.
    """
    if bands == "all" and len(site.sources) > 1:
        raise SiteError(f"{site.path}: bands 'all' needs a site of one source. Name the bands that all sources hold.")
    opened = _hold(site, bands, chip_size, cache_dir, limits, progress)
    if not sum(held.count for _, held in opened):
        raise SiteError(_nothing_usable(site, [item for _, held in opened for item in held.skipped]))
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

    Arguments and errors are those of `open_chips`, with which it shares its cache. A source with
    nothing usable is left out, and its files are among those that the first chips name as skipped;
    it is an error if that goes for all.
    """
    opened = _hold(site, bands, chip_size, cache_dir, limits, progress)
    unusable = [item for _, held in opened if not held.count for item in held.skipped]
    parts = [
        _chips(part, [one]) for part, one in zip(site.parts(), opened, strict=True) if one[1].count
    ]  # fmt: skip
    if not parts:
        raise SiteError(_nothing_usable(site, unusable))
    return (replace(parts[0], skipped=(*parts[0].skipped, *unusable)), *parts[1:])


def _hold(
    site: Site,
    bands: Bands,
    size: int,
    cache_dir: Path | None,
    limits: ReadLimits | None,
    progress: Progress | None,
) -> list[tuple[Request, Held]]:
    """Return what each source gives, and what was asked of it."""
    limits = limits or site.limits
    requests = []
    for number, source in enumerate(site.sources, start=1):
        names = tuple(source.card.names if bands == "all" else bands)
        request = Request(names, size, site.grid.stride(size), limits)
        _check(site, source, request, f"{site.path}: sources[{number}]")
        requests.append(request)
    opened: list[tuple[Request, Held]] = []
    room = limits.max_chips
    for number, (source, request) in enumerate(zip(site.sources, requests, strict=True)):
        where = f"{site.path}: sources[{number + 1}]"
        images = open_dataset(source.dataset, source.card, where) if source.dataset else None
        order = Order(subjects_of(source, request, images), request, room, progress)
        held = (
            hold_in_memory(order)
            if cache_dir is None
            else hold_on_disk(order, Path(cache_dir) / _folder(site, number, request))
        )
        room -= held.count
        opened.append((request, held))
    return opened


def _check(site: Site, source: Source, request: Request, where: str) -> None:
    """Refuse a request that no file could meet, before any is opened."""
    if not request.bands or len(set(request.bands)) != len(request.bands):
        raise SiteError(f"{site.path}: the bands asked for must be a list without repeats, not {request.bands}")
    if not 8 <= request.size <= 4096:
        raise SiteError(f"{site.path}: chip size {request.size} is outside 8 to 4096 pixels")
    source.card.positions(request.bands, where)


def _folder(site: Site, number: int, request: Request) -> str:
    """Return the name of a source's cache folder: it stays when files, cards or limits change, so
    that old chips go."""
    source = site.sources[number]

    def kind(one: Source) -> list[object]:
        return [one.sensor, one.card.names, one.dataset.target if one.dataset else ""]

    alike = [i for i, one in enumerate(site.sources) if kind(one) == kind(source)]
    name = digest(FOLDER_FORMAT, str(site.path), kind(source), alike.index(number), request.bands, request.size)
    return f"{site.name}-{name[:16]}"


def _chips(site: Site, opened: Sequence[tuple[Request, Held]]) -> Chips:
    """Join what the sources of ``site`` gave; all were asked for bands of the same names."""
    request = opened[0][0]
    names = [(i, name) for i, (_, held) in enumerate(opened) for name in held.segments]
    segments = [opened[i][1].segments[name] for i, name in names]
    used = [(i, record) for i, (_, held) in enumerate(opened) for record in held.used]
    at = [names.index((i, record.segment)) for i, record in used]
    counts = [record.count for _, record in used]
    places = [
        segments[k].places[record.start : record.start + record.count] for k, (_, record) in zip(at, used, strict=True)
    ]
    place = np.concatenate(places)
    statistics = tuple(held.statistics for _, held in opened)
    total = _pooled(site, statistics)
    card = site.sources[0].card
    return Chips(
        segments=tuple(segment.chips for segment in segments),
        segment=np.repeat(np.array(at, np.int64), counts),
        place=np.concatenate([np.arange(record.start, record.start + record.count) for _, record in used]),
        mean=as_tensor(total.mean),
        std=as_tensor(total.std),
        statistics=statistics,
        sensor=tuple(source.sensor for source in site.sources),
        scene_paths=tuple(name for _, held in opened for name in held.names),
        skipped=tuple(item for _, held in opened for item in held.skipped),
        bands=request.bands,
        spectrum=tuple(card.bands[i] for i in card.positions(request.bands, str(site.path))),
        name=site.name,
        origin=torch.from_numpy(np.repeat(np.array([i for i, _ in used], np.int64), counts)),
        origin_mean=torch.stack([as_tensor(part.mean) for part in statistics]),
        origin_std=torch.stack([as_tensor(part.std) for part in statistics]),
        scene=np.repeat(np.arange(len(counts)), counts),
        row=place["row"].astype(np.int64),
        col=place["col"].astype(np.int64),
        valid=place["valid"].astype(np.float32),
    )


def _pooled(site: Site, statistics: Sequence[Statistics]) -> Statistics:
    """Return the statistics over all sources: in stored units if they share scale and offset, else
    in physical ones."""
    cards = [source.card for source in site.sources]
    # Decibels are physical already.
    units = [(card.scale, card.offset) if card.decibels == "no" else (1.0, 0.0) for card in cards]
    if len(set(units)) == 1:
        return merged(statistics)
    return merged([part.scaled(*unit) for part, unit in zip(statistics, units, strict=True)])


def _nothing_usable(site: Site, skipped: Sequence[Skipped]) -> str:
    """Say why a site has no chip, most frequent reason first, with one file as an example of
    each."""
    # Reasons differ in their figures and in GDAL's words in brackets; those with the same beginning
    # count together.
    kinds = [re.sub(r"\d+", "N", item.reason.split(" (")[0]) for item in skipped]
    lines = []
    for kind, count in Counter(kinds).most_common(5):
        example = skipped[kinds.index(kind)]
        lines.append(f"{count} of {len(skipped)} files, such as {example.path}: {example.reason}")
    return f"{site.path}: site {site.name!r} has no usable chip. " + "; ".join(lines) + "."
