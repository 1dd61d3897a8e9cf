"""What a site file may say: one institution's imagery, in TOML, checked strictly before a single
pixel is read."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedsense_core.config import AsTuple
from fedsense_core.data.sites.cards import MASKS
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.patterns import Pattern
from fedsense_core.data.sites.schema import ChipGrid, MaskRule
from fedsense_core.data.sites.sensors import AddOffset, FiniteFloat, NodataBands, SensorCard, shipped_card
from fedsense_core.errors import SiteError, nearest

Model = TypeVar("Model", bound=BaseModel)

SITE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
"""A name that is safe as a folder, and that no clean-up maps onto another one."""
SITE_FILE_BYTES = 1 << 20
"""A site file is a page of text; anything larger is another file given by mistake."""
CLASS_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""``module:Class``."""
MaskKind = Literal[
    "sentinel2-scl", "landsat-qa", "landsat-c1-bqa", "hls-fmask", "planet-udm2", "maja-clm", "force-qai", "none"
]
OVERRIDES = ("gsd_m", "scale", "offset", "nodata", "nodata_bands", "file_nodata", "add_offset")
"""Fields of a card that a source may say for its own files."""


def stated_name(path: Path) -> str:
    """Return the name that a site file gives, whatever else in it is wrong; empty where it gives
    none."""
    try:
        with path.open("rb") as file:
            name = tomllib.loads(file.read(SITE_FILE_BYTES).decode()).get("name")
    except (OSError, ValueError):
        return ""
    return name if isinstance(name, str) and SITE_NAME.fullmatch(name) else ""


def _is_glob(text: str) -> str:
    Pattern(text)
    return text


def _is_site_name(text: str) -> str:
    if not SITE_NAME.fullmatch(text):
        raise ValueError("must be 1 to 64 letters, digits, dots and hyphens, with a letter or digit at both ends")
    return text


def _is_class_name(text: str) -> str:
    if not CLASS_NAME.fullmatch(text):
        raise ValueError("must be a module and a class with a colon between, such as torchgeo.datasets:EuroSAT")
    return text


Glob = Annotated[str, AfterValidator(_is_glob)]
"""Relative to the site file; ``*`` and ``?`` stay within a folder's name, ``**`` descends into
folders."""


class Table(BaseModel):
    """A table of the site file: strict, and frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SensorChoice(Table):
    """Which sensor card describes files, and in what they differ from it."""

    sensor: str | SensorCard
    """Name of a shipped card, or a whole card."""
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
    nodata_bands: NodataBands | None = None
    """Overrides the card's: whether nodata in ``all`` bands or in ``any`` makes a pixel invalid."""
    file_nodata: bool | None = None
    """Overrides the card's: ``false`` ignores nodata values that files declare."""
    add_offset: AddOffset = None
    """Overrides the card's: a number that is added to every stored count, or ``auto``."""

    def card(self, where: str) -> SensorCard:
        """Return the card of these files, overrides applied. Raises SiteError beginning with
        ``where``."""
        card = self._named_card(where)
        if self.bands is not None:
            card = card.only(self.bands, f"{where}.bands")
        return self._overridden(card, where)

    def _named_card(self, where: str) -> SensorCard:
        return shipped_card(self.sensor, f"{where}.sensor") if isinstance(self.sensor, str) else self.sensor

    def _overridden(self, card: SensorCard, where: str) -> SensorCard:
        given = {key: getattr(self, key) for key in OVERRIDES}
        changed = {key: value for key, value in given.items() if value is not None}
        # Numbers of another scale are not the counts of the product: whoever converted them took
        # care of the offset, or has to say so.
        counts = {} if changed.get("scale", card.scale) == card.scale else {"baseline_offset": None}
        # Through the validator, so that an override cannot build a card that a file could not.
        whole = card.model_dump() | changed | counts
        try:
            return SensorCard.model_validate(whole)
        except ValidationError as error:
            raise SiteError(f"{where}: {_first_fault(error, SensorCard)}") from error


class FilesEntry(Table):
    """Files that join the scenes of a source."""

    _needs_files: ClassVar[bool] = True

    paths: list[Glob] = []
    """Globs with ``{scene}``, by which each file finds its scene."""
    column: str = ""
    """Instead of ``paths`` where the source has ``lists``: the column that names these files."""

    @model_validator(mode="after")
    def _finds_its_scenes(self) -> FilesEntry:
        if (self.paths and self.column) or (self._needs_files and not (self.paths or self.column)):
            raise ValueError("needs either `paths` or, for a source with `lists`, `column`")
        bare = [glob for glob in self.paths if "scene" not in Pattern(glob).placeholders]
        if bare:
            raise ValueError(f"paths: {bare[0]!r} needs {{scene}}, by which a file finds its scene")
        return self


class AlsoEntry(FilesEntry):
    """One ``[[sources.also]]`` table: further bands of the same scenes, on a grid of their own."""

    bands: Annotated[list[str], Field(min_length=1)]
    """The bands that these files hold, in their order; with ``{band}`` in the globs, the bands to
    take."""


class MaskEntry(FilesEntry):
    """The table ``[sources.mask]``: one raster for each scene that says which pixels to leave out.

    Without ``paths`` and ``column`` it is the scene classification that a product itself holds.
    """

    _needs_files: ClassVar[bool] = False

    kind: MaskKind | None = None
    """A ready-made rule: clouds, their shadows and faults of Sentinel-2's SCL, Landsat's QA_PIXEL,
    HLS' Fmask, Planet's UDM2, MAJA's CLM or FORCE's QAI; or none, where a product holds a mask that
    is not wanted."""
    drop: list[Annotated[int, Field(ge=-32768, le=65535)]] = []
    """Classes to leave out, besides those of ``kind``."""
    drop_bits: list[Annotated[int, Field(ge=0, le=15)]] = []
    """Bits, 0 the lowest, any of which leaves a pixel out, besides those of ``kind``."""
    keep: list[Annotated[int, Field(ge=-32768, le=65535)]] = []
    """If not empty, all other values are left out; those of ``kind`` stay."""
    band: Annotated[int, Field(ge=1, le=64)] = 1
    """The mask's band, counted from 1."""
    required: bool = True
    """Whether a scene without a mask is a mistake; else it is used without one."""

    @model_validator(mode="after")
    def _drops_something(self) -> MaskEntry:
        if not (self.kind or self.drop or self.drop_bits or self.keep):
            raise ValueError(f"drops nothing: set `kind` ({', '.join(MASKS)}), `drop`, `drop_bits` or `keep`")
        if self.kind == "none" and self.model_fields_set != {"kind"}:
            raise ValueError("kind = 'none' leaves nothing out; remove the table's other keys")
        if any("{band}" in glob for glob in self.paths):
            raise ValueError("paths: a mask has no {band}; it is one file a scene")
        return self

    @property
    def rule(self) -> MaskRule | None:
        """The same as the reader takes it."""
        if self.kind == "none":
            return None
        ready = MASKS[self.kind] if self.kind else {}
        given = {"drop": self.drop, "drop_bits": self.drop_bits, "keep": self.keep}
        values = {key: tuple(sorted({*own, *ready.get(key, ())})) for key, own in given.items()}
        return MaskRule(**values, band=self.band)


class SourceEntry(SensorChoice):
    """One ``[[sources]]`` table: imagery that shares a sensor. Its images are in ``paths``,
    ``lists`` or a ``dataset``.

    With ``also``, ``bands`` are those of the files of ``paths`` alone.
    """

    paths: list[Glob] = []
    """Globs of image files. Those with the same ``{scene}`` are one scene; ``{band}`` is a band of
    the card."""
    lists: list[Glob] = []
    """Item lists that name the files: CSV, STAC items or item collections (.json), or Parquet."""
    column: Annotated[str, Field(min_length=1)] = "path"
    """Column of ``lists`` that names the image; dotted where fields lie in fields, as
    ``assets.visual.href``."""
    dataset: Annotated[str, AfterValidator(_is_class_name)] | None = None
    """``module:Class`` of a map-style dataset, such as ``torchgeo.datasets:EuroSAT``. It is
    imported and run."""
    args: dict[str, Any] = {}
    """Arguments of the dataset's class. A relative ``root`` begins at the site file."""
    also: list[AlsoEntry] = []
    """Files with further bands of the same scenes."""
    mask: MaskEntry | None = None
    """Rasters by which pixels are left out."""
    gsd_range_m: Annotated[tuple[FiniteFloat, FiniteFloat], AsTuple] | None = None
    """Scenes whose own pixels are smaller or larger, in metres, are skipped."""
    digests: str | None = None
    """File as `sha256sum` writes it. Files that differ from it, or are not in it, are skipped."""

    @model_validator(mode="after")
    def _keys_fit_together(self) -> SourceEntry:
        given = [key for key in ("paths", "lists", "dataset") if getattr(self, key)]
        if len(given) != 1:
            said = " and ".join(f"`{key}`" for key in given) or "none"
            raise ValueError(f"needs one of `paths`, `lists` and `dataset`, not {said}; write a source for each")
        allowed = {"paths": _OF_FILES, "lists": {*_OF_FILES, "column"}, "dataset": {"args"}}[given[0]]
        stray = sorted((self.model_fields_set & {*_OF_FILES, "column", "args"}) - allowed)
        if stray:
            raise ValueError(f"`{stray[0]}` does not go with `{given[0]}`")
        for entry in (*self.also, *([self.mask] if self.mask else [])):
            if (entry.paths or entry.column) and bool(entry.column) != bool(self.lists):
                raise ValueError(f"`also` and `mask` name files as the source does, with `{_NAMED_BY[given[0]]}`")
        if any("scene" in Pattern(glob).placeholders for glob in self.lists):
            raise ValueError("`lists` have no placeholders: each row is a scene")
        named = ["scene" in Pattern(glob).placeholders for glob in self.paths]
        if not all(named) and (any(named) or self.also or (self.mask and self.mask.paths)):
            raise ValueError("every glob of `paths` needs {scene} if one has it, or where there is `also` or `mask`")
        if self.gsd_range_m and not 0 <= self.gsd_range_m[0] <= self.gsd_range_m[1]:
            raise ValueError(f"gsd_range_m = {list(self.gsd_range_m)} must be two distances, the smaller one first")
        return self

    def card(self, where: str) -> SensorCard:
        """Return the card of the scenes, with the bands of ``also`` last. Raises SiteError
        beginning with ``where``."""
        named = self._named_card(where)
        lists = {f"{where}.bands": self.bands if self.bands is not None else named.names}
        lists |= {f"{where}.also[{i}].bands": entry.bands for i, entry in enumerate(self.also, start=1)}
        listed_in: dict[int, str] = {}
        for key, bands in lists.items():
            for band, position in zip(bands, named.positions(bands, key), strict=True):
                if position in listed_in:
                    first = listed_in[position].removeprefix(f"{where}.")
                    raise SiteError(
                        f"{key}: band {band!r} appears twice, first in {first}. "
                        "List the bands of each file set once: `bands` of the source are those of `paths`."
                    )
                listed_in[position] = key
        return self._overridden(named.model_copy(update={"bands": [named.bands[i] for i in listed_in]}), where)


_OF_FILES = {"also", "mask", "gsd_range_m", "digests"}
_NAMED_BY = {"paths": "paths", "lists": "column"}


class ChipsEntry(Table):
    """The table ``[chips]``: how chips lie in a scene; side by side unless it says otherwise."""

    overlap: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of a chip's side that it has in common with the next chip."""
    stride: Annotated[int, Field(ge=1)] | None = None
    """Pixels from one chip to the next."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> ChipsEntry:
        if self.overlap is not None and self.stride is not None:
            raise ValueError("`overlap` and `stride` say the same thing twice; keep one")
        return self

    @property
    def grid(self) -> ChipGrid:
        """The same as the reader takes it."""
        return ChipGrid(self.overlap or 0.0, self.stride)


class SiteFile(Table):
    """The whole site file."""

    name: Annotated[str, AfterValidator(_is_site_name)]
    """Short name of the institution in logs and reports: letters, digits, dots and hyphens."""
    description: str = ""
    """One sentence for the report."""
    sources: Annotated[list[SourceEntry], Field(min_length=1)]
    """Its imagery, one entry a sensor."""
    share_statistics: bool = False
    """Whether means and deviations of its bands may leave the machine, if a run asks for them."""
    share_overlap: bool = False
    """Whether the coordinator may know which share of the chips is also in its own sets."""
    chips: ChipsEntry = ChipsEntry()
    """How chips lie in a scene."""
    limits: ReadLimits = ReadLimits()
    """How much of it may be read."""


def read_strict_toml(path: Path, model: type[Model]) -> Model:
    """Parse ``path`` as ``model``. Raises SiteError naming the file and the wrong key with the
    nearest right one."""
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


def _first_fault(error: ValidationError, model: type[BaseModel]) -> str:
    """Say the first mistake of a pydantic report as `key: what is wrong, and the nearest right
    key`."""
    faults: list[Any] = list(error.errors(include_url=False, include_context=False))
    # A union reports each alternative; the branch that was meant is the one whose complaint lies
    # deepest.
    fault = max(faults, key=lambda f: (f["type"] == "extra_forbidden", len(f["loc"])))
    # pydantic names the branch of `sensor` among the keys, the card's with its validators around
    # it.
    where = [part for part in fault["loc"] if part != "str" and not str(part).rstrip("]").endswith("SensorCard")]
    key = "".join(f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in where).lstrip(".") or "file"
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}.{_known_key(str(where[-1]), _tables(model, where))}"
    if fault["type"] == "missing":
        return f"the key {key!r} is missing."
    said = fault["msg"].removeprefix("Value error, ")
    shown = repr(fault["input"])
    value = "" if isinstance(fault["input"], dict | list) or said.startswith(shown) else f" = {shown}"
    return f"{key}{value}: {said}."


def _tables(model: type[BaseModel], where: Sequence[Any]) -> list[type[BaseModel]]:
    """Return the tables that lead to a key, outermost first."""
    tables = [model]
    for part in where:
        field = tables[-1].model_fields.get(part) if isinstance(part, str) else None
        inner = _table_in(field.annotation) if field else None
        tables += [inner] if inner else []
    return tables


def _table_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model inside a type such as ``list[Model]`` or ``str | Model``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((inner for part in get_args(annotation) if (inner := _table_in(part))), None)


def _known_key(wrong: str, tables: Sequence[type[BaseModel]]) -> str:
    if any(wrong in table.model_fields for table in tables[:-1]):
        return " It belongs to the table around this one: in TOML it must stand above the inner table's [header]."
    return nearest(wrong, list(tables[-1].model_fields))
