"""The site file: one institution's holdings, in TOML, checked strictly before a single pixel is read."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedsense_core.data.holdings import Layer, Scene, Site, Source
from fedsense_core.data.limits import ReadLimits
from fedsense_core.data.sensors import Band, FiniteFloat, SensorCard, shipped_card
from fedsense_core.errors import SiteError, nearest

Model = TypeVar("Model", bound=BaseModel)

SITE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
"""A name that is safe as a folder, and that no clean-up maps onto another one."""
SITE_FILE_BYTES = 1 << 20
"""A site file is a page of text; anything larger is another file given by mistake."""


class SensorChoice(BaseModel):
    """Which sensor card describes files, and in what they differ from it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    sensor: str | SensorCard
    """Name of a shipped card, or a card written in place."""
    bands: list[str] | None = None
    """The bands that these files hold, in their order, if not all of the card's."""
    gsd_m: Annotated[FiniteFloat, Field(gt=0)] | None = None
    """Ground sample distance of these files, if not the card's."""
    scale: FiniteFloat | None = None
    """Overrides the card's."""
    offset: FiniteFloat | None = None
    """Overrides the card's."""
    nodata: FiniteFloat | None = None
    """Overrides the card's."""

    def card(self, where: str) -> SensorCard:
        """Return the card of these files, overrides applied. Raises SiteError beginning with ``where``."""
        card = shipped_card(self.sensor, f"{where}.sensor") if isinstance(self.sensor, str) else self.sensor
        if self.bands is not None:
            card = card.only(self.bands, f"{where}.bands")
        changed = {key: getattr(self, key) for key in ("gsd_m", "scale", "offset", "nodata")}
        # Through the validator, so that an override cannot build a card that a file could not.
        whole = card.model_dump() | {key: value for key, value in changed.items() if value is not None}
        try:
            return SensorCard.model_validate(whole)
        except ValidationError as error:
            raise SiteError(f"{where}: {_first_fault(error, SensorCard)}") from error


class SourceEntry(SensorChoice):
    """One ``[[sources]]`` table: files that share a sensor."""

    paths: Annotated[list[str], Field(min_length=1)]
    """Globs of GeoTIFF or COG files, relative to the site file; ``**`` descends into folders."""


class SiteFile(BaseModel):
    """The whole site file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, Field(pattern=f"^{SITE_NAME.pattern}$")]
    """Short name of the institution in logs and reports: letters, digits, dots and hyphens."""
    description: str = ""
    """One sentence for the report."""
    sources: Annotated[list[SourceEntry], Field(min_length=1)]
    """What the institution holds."""
    limits: ReadLimits = ReadLimits()
    """How much of it may be read."""


def load_site(path: Path) -> Site:
    """Read a site file and list its imagery.

    Raises SiteError naming the file, the key, its value and the remedy.
    """
    path = Path(path).absolute()
    entry = read_strict_toml(path, SiteFile)
    sources = tuple(_source(path, i, source) for i, source in enumerate(entry.sources, start=1))
    listed = [file for source in sources for file in source.files]
    twice = [file for file, count in Counter(listed).items() if count > 1]
    if twice:
        raise SiteError(f"{path}: {twice[0]} belongs to two sources. Make their globs disjoint.")
    if not listed:
        tried = ", ".join(repr(p) for source in entry.sources for p in source.paths)
        raise SiteError(f"{path}: sources.paths matches no file (tried {tried} from {path.parent}). Correct the globs.")
    return Site(entry.name, entry.description, path, sources, entry.limits)


def read_strict_toml(path: Path, model: type[Model]) -> Model:
    """Parse ``path`` as ``model``. Raises SiteError naming the file and the wrong key with the nearest right one."""
    try:
        if path.stat().st_size > SITE_FILE_BYTES:
            raise SiteError(f"{path}: larger than {SITE_FILE_BYTES} bytes; this is not a site file.")
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SiteError(f"{path}: cannot be read ({error.strerror}). Give the path of a site file (TOML).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SiteError(f"{path}: is not valid TOML: {error}") from error
    except ValidationError as error:
        raise SiteError(f"{path}: {_first_fault(error, model)}") from error


def _source(path: Path, number: int, entry: SourceEntry) -> Source:
    where = f"{path}: sources[{number}]"
    files = {file for glob in entry.paths for file in _matches(path.parent, glob, where)}
    card = entry.card(where)
    every = tuple(range(len(card.bands)))
    scenes = tuple(Scene((Layer(file, every),)) for file in sorted(files))
    return Source(entry.sensor if isinstance(entry.sensor, str) else "custom", card, scenes)


def _matches(folder: Path, glob: str, where: str) -> list[Path]:
    """Resolve one glob on the real file system. GDAL's virtual file systems and URLs are no files here."""
    if glob.startswith("/vsi") or "://" in glob or "\0" in glob:
        raise SiteError(f"{where}.paths: {glob!r} is no plain path; list GeoTIFF files of this machine's disk.")
    pattern = Path(glob)
    try:
        if pattern.is_absolute():
            found = Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
        else:
            found = folder.glob(glob)
        return [file.resolve() for file in found if file.is_file()]
    except (ValueError, NotImplementedError, OSError) as error:
        raise SiteError(f"{where}.paths: {glob!r} cannot be searched: {error}") from error


def _first_fault(error: ValidationError, model: type[BaseModel]) -> str:
    """Say the first mistake of a pydantic report as `key: what is wrong, and the nearest right key`."""
    faults: list[Any] = list(error.errors(include_url=False, include_context=False))
    # A union reports each alternative; the branch that was meant is the one whose complaint lies deepest.
    fault = max(faults, key=lambda f: (f["type"] == "extra_forbidden", len(f["loc"])))
    where = [part for part in fault["loc"] if part not in ("SensorCard", "str")]
    key = "".join(f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in where).lstrip(".") or "file"
    if fault["type"] == "extra_forbidden":
        wrong = str(fault["loc"][-1])
        known = [name for part in (model, SourceEntry, SensorCard, Band, ReadLimits) for name in part.model_fields]
        return f"unknown key {key!r}.{nearest(wrong, known)}"
    if fault["type"] == "missing":
        return f"the key {key!r} is missing."
    value = "" if isinstance(fault["input"], dict | list) else f" = {fault['input']!r}"
    return f"{key}{value}: {fault['msg']}."
