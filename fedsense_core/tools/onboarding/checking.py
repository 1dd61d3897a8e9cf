"""What an institution wants to know before it takes part: what will be trained on, and what is
wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from fedsense_core.config import DataSection, resolve
from fedsense_core.data.chips.chipping import Progress
from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.chips.fills import constant_chips
from fedsense_core.data.opening import load_site, open_sources
from fedsense_core.data.overlap import share_of
from fedsense_core.data.raster.offsets import offsets_of, said, unknown_baselines
from fedsense_core.data.sites.schema import Site, Skipped, Source
from fedsense_core.data.sites.sensors import Band
from fedsense_core.data.sites.sentinel2 import Offset
from fedsense_core.errors import SiteError, nearest
from fedsense_core.run_folder.formatting import clean, human_bytes
from fedsense_core.run_folder.paths import safe_name
from fedsense_core.tools.onboarding.contradictions import contradictions, physical
from fedsense_core.tools.onboarding.overlapping import marks_of_path
from fedsense_core.tools.onboarding.wording import count, some

REASONS = 6
"""Reasons for skipping that are listed; of the others the number is said."""


@dataclass(frozen=True)
class Checked:
    """One source and what became of it."""

    number: int
    source: Source
    chips: Chips | None
    """None where nothing of it is usable."""
    skipped: tuple[Skipped, ...]

    @cached_property
    def offsets(self) -> list[Offset]:
        """What was added to the counts of each scene that is used."""
        return offsets_of(self.source, self.chips.scene_paths, self.chips.bands) if self.chips else []


@dataclass(frozen=True)
class Page:
    """What is printed."""

    body: RenderableType
    verdict: Text
    """The last line."""


def check_site(
    path: Path,
    bands: str | None,
    chip_size: int | None,
    state: Path | None,
    progress: Progress | None = None,
    against: Sequence[Path] = (),
) -> Page:
    """Read a site file and its imagery as training reads them, and return a page about them.

    ``bands`` (``all``, or names with commas) and ``chip_size`` are those of the run, or None for
    the shipped settings'. With ``state``, the state-dir of a SuperNode, the chips stay there and
    training finds them. In the sets ``against`` the imagery is looked for. Raises ConfigError for
    settings that no run may have, SiteError where the site file is wrong or no imagery is usable.
    """
    given = {"data.bands": bands, "data.chip_size": chip_size}
    data = resolve({key: value for key, value in given.items() if value is not None}).data
    site = load_site(path)
    check_bands(
        site,
        data.bands,
        "Where the coordinator's run reads all bands (data.bands = 'all'), check with `--bands all`; else take the "
        "source out, or ask for a run on bands that you hold.",
    )
    with _chip_folder(site, state) as folder:
        opened = open_sources(site, data.bands, data.chip_size, folder, progress=progress)
        shared = [text for other in against for text in _shared(opened, other, data)]
        return _page(site, data, by_source(site, opened), state, shared)


def _shared(opened: Sequence[Chips], other: Path, data: DataSection) -> list[str]:
    """Say which share of the chips is also in another set; nothing where none is."""
    share = share_of(opened, marks_of_path(other, data))
    if not share:
        return []
    return [
        f"{100 * share:.3g} % of the chips are also in {other}, by their ground or by what they look like: results on "
        "it would flatter a model that trains here"
    ]


def by_source(site: Site, opened: Sequence[Chips]) -> list[Checked]:
    """Return each source with its own chips and skipped scenes; sources without any are left out of
    ``opened``."""
    owner = {str(scene.path): i for i, source in enumerate(site.sources) for scene in source.scenes}
    datasets = [i for i, source in enumerate(site.sources) if source.dataset]
    chips: dict[int, Chips] = {}
    for one in opened:
        known = owner.get(one.scene_paths[0])
        chips[next(i for i in datasets if i not in chips) if known is None else known] = one
    skipped: dict[int, list[Skipped]] = {}
    for one in opened:
        for item in one.skipped:
            own = next((i for i, of_source in chips.items() if of_source is one), 0)
            skipped.setdefault(owner.get(item.path, own), []).append(item)
    return [
        Checked(i + 1, source, chips.get(i), tuple(dict.fromkeys(skipped.get(i, ()))))
        for i, source in enumerate(site.sources)
    ]


@contextmanager
def _chip_folder(site: Site, state: Path | None) -> Iterator[Path]:
    if state is not None:
        yield state.absolute() / safe_name(site.name) / "chips"
        return
    with TemporaryDirectory(prefix="fedsense-check-") as temporary:
        yield Path(temporary)


def check_bands(site: Site, bands: Sequence[str], way_out: str) -> None:
    """Raise SiteError, ending with ``way_out``, for the first source without one of ``bands`` (or
    ``all``)."""
    for number, source in enumerate(site.sources, start=1):
        lacking = [name for name in bands if source.card.position(name) is None] if bands != "all" else []
        if lacking:
            raise SiteError(
                f"{site.path}: sources[{number}] ({source.sensor}) has no band {lacking[0]!r}, which the run asks for; "
                f"it has {', '.join(source.card.names)}.{nearest(lacking[0], source.card.names)} {way_out}"
            )


def _page(site: Site, data: DataSection, sources: Sequence[Checked], state: Path | None, shared: Sequence[str]) -> Page:
    parts: list[RenderableType] = [Text.assemble(("site ", ""), (site.name, "bold"), f"  {clean(str(site.path))}")]
    if site.description:
        parts.append(Text(clean(site.description)))
    warnings = 0
    for one in sources:
        found = _warnings(one)
        warnings += len(found)
        parts += ["", *_source(one, data)]
        if found:
            parts.append(_indented(_listed(found)))
    if shared:
        parts += ["", _listed(shared)]
    return Page(Group(*parts, ""), _verdict(data, sources, warnings + len(shared), state))


def _listed(warnings: Sequence[str]) -> Table:
    listed = Table.grid(padding=(0, 1))
    for text in warnings:
        listed.add_row(Text("warning:", "yellow"), Text(clean(text), "yellow", overflow="fold"))
    return listed


def _source(one: Checked, data: DataSection) -> Iterator[RenderableType]:
    source, chips = one.source, one.chips
    card = source.card
    kind = "radar" if card.is_radar else "optical"
    yield Text.assemble(f"source {one.number}  ", (source.sensor, "bold"), f"  {kind}, {card.gsd_m:g} m a pixel")
    facts = Table.grid(Column(min_width=8), Column(), padding=(0, 2))
    used = len(chips.scene_paths) if chips else 0
    facts.add_row("found", _found(source, used + len(one.skipped)))
    if chips:
        size = f"{data.chip_size} x {data.chip_size}"
        pixels = f"{100 * float(chips.valid.mean()):.1f} % of their pixels valid"
        constant = constant_chips(chips)[0]
        flat = f", {constant} of them constant" if constant else ""
        facts.add_row("used", f"{count(used, 'scene')}: {count(len(chips), 'chip')} of {size}{flat}, {pixels}")
    else:
        facts.add_row("used", Text("nothing", "red"))
    for line in said(one.offsets):
        facts.add_row("offset", line)
    if source.mask:
        kinds = {"classes": source.mask.drop, "bits": source.mask.drop_bits, "all but": source.mask.keep}
        rule = "; ".join(f"{kind} {', '.join(map(str, values))}" for kind, values in kinds.items() if values)
        masked = sum(scene.mask is not None for scene in source.scenes)
        facts.add_row("mask", f"on {masked} of {count(len(source.scenes), 'scene')}; left out: {rule}")
    if one.skipped:
        facts.add_row("skipped", Text(count(len(one.skipped), "scene"), "red"))
        for line in _reasons(one.skipped):
            facts.add_row("", Text(line, overflow="fold"))
    yield _indented(facts)
    yield _indented(_bands_table(source, chips))
    if card.expected and chips:
        low, high = card.expected
        yield _indented(
            Text(
                f"The card expects nearly all values between {low:g} and {high:g} {_unit(source)}".rstrip() + ".", "dim"
            )
        )


def _found(source: Source, images: int) -> str:
    if source.dataset:
        return f"{count(images, 'image')} of {source.dataset.target}"
    files = len(source.files)
    return count(len(source.scenes), "scene") + (f" in {count(files, 'file')}" if files > len(source.scenes) else "")


def _bands_table(source: Source, chips: Chips | None) -> Table:
    """One row a band of the card: what it is, whether the run reads it, and its values."""
    is_scaled = physical(source.card) != (1.0, 0.0)
    numbers = ["2 %", "median", "98 %"]
    columns = [Column("band"), Column(), Column(justify="right"), Column("trained", justify="center")]
    columns += [Column(name, justify="right") for name in numbers]
    columns += [Column(_unit(source) or "physical", justify="right")] if is_scaled else []
    table = Table(*columns, box=None, pad_edge=False, header_style="dim")
    rows = dict(zip(chips.bands, chips.statistics[0].percentiles([2, 50, 98]).T, strict=True)) if chips else {}
    scale, offset = physical(source.card)
    for band in source.card.bands:
        row = [band.code or band.name, band.name if band.code else "", _what(band), "yes" if band.name in rows else "-"]
        if band.name in rows:
            stored = [float(value) for value in rows[band.name]]
            low, high = sorted((stored[0] * scale + offset, stored[2] * scale + offset))
            row += [_number(value) for value in stored] + ([f"{low:.3f} to {high:.3f}"] if is_scaled else [])
        table.add_row(*(clean(cell) for cell in row))
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def _what(band: Band) -> str:
    return f"{band.wavelength_um:.3f} um" if band.wavelength_um is not None else str(band.polarisation)


def _unit(source: Source) -> str:
    if source.card.is_radar:
        low = source.card.expected[0] if source.card.expected else 0.0
        return "dB" if source.card.decibels != "no" or low < 0 else ""
    return "reflectance" if physical(source.card) != (1.0, 0.0) else ""


def _reasons(skipped: Sequence[Skipped]) -> Iterator[str]:
    """Yield how many scenes were skipped for what reason, the most frequent first, with the first
    names."""
    kinds: dict[str, list[Skipped]] = {}
    for item in skipped:
        kinds.setdefault(item.kind, []).append(item)
    ordered = sorted(kinds.values(), key=len, reverse=True)
    for items in ordered[:REASONS]:
        such = "for example: " if len({item.reason for item in items}) > 1 else ""
        yield f"{len(items)} x {such}{clean(items[0].reason)}: {some([Path(item.path).name for item in items])}"
    if len(ordered) > REASONS:
        yield f"{sum(map(len, ordered[REASONS:]))} for {len(ordered) - REASONS} other reasons"


def _warnings(one: Checked) -> list[str]:
    if one.chips is None:
        return ["nothing of this source is usable: mend what is listed above, or take the source out"]
    return [*contradictions(one.source, one.chips), *unknown_baselines(one.offsets)]


def _verdict(data: DataSection, sources: Sequence[Checked], warnings: int, state: Path | None) -> Text:
    used = [one.chips for one in sources if one.chips is not None]
    bands = "all bands of each source" if data.bands == "all" else ", ".join(data.bands)
    size = sum(chips.dtype.itemsize * len(chips) * len(chips.bands) * data.chip_size**2 for chips in used)
    text = Text("usable", "bold green")
    text.append(
        f": training will see {count(sum(map(len, used)), 'chip')} of {data.chip_size} x {data.chip_size} pixels"
    )
    text.append(f" from {count(len(used), 'source')}, with {bands} ({human_bytes(size)}", "")
    text.append(f", stored in {state})" if state else ")", "")
    if skipped := sum(len(one.skipped) for one in sources):
        text.append(f"; {count(skipped, 'scene')} skipped", "red")
    if warnings:
        text.append(f"; look at {count(warnings, 'warning')} above", "yellow")
    return text.append(".", "")


def _indented(part: RenderableType) -> RenderableType:
    return Padding(part, (0, 0, 0, 2), expand=False)
