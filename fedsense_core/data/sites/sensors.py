"""Sensor cards: what a file's bands are, so that imagery of different sensors meets by band
name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, assert_never

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fedsense_core.config import AsTuple
from fedsense_core.data.sites.cards import CARDS
from fedsense_core.errors import SiteError, nearest

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Polarisation = Literal["VV", "VH", "HH", "HV"]
"""Of a radar band: sent and received, vertical or horizontal."""
_COMMON_NAMES = {
    "red_edge_1": "rededge1",
    "red_edge_2": "rededge2",
    "red_edge_3": "rededge3",
    "nir_narrow": "nir08",
    "water_vapour": "nir09",
    "swir_1": "swir16",
    "swir_2": "swir22",
}
"""Of Sentinel-2 in Earth Search, and of Landsat, whose only near infrared is ``nir08`` there."""
NodataBands = Literal["all", "any"]
"""In which of the bands that are read nodata makes a pixel invalid."""


def _auto_is_none(given: Any) -> Any:
    return None if given == "auto" else given


AddOffset = Annotated[FiniteFloat | None, BeforeValidator(_auto_is_none)]
"""Number that is added to every stored count, before ``scale``; None, written ``auto``, goes by
files and products."""


def _is_plain(name: str) -> str:
    if not name or name != name.strip() or "," in name:
        raise ValueError("a band name is a word without commas or outer spaces")
    return name


def _is_in_micrometres(wavelength_um: float) -> float:
    if not 0.2 < wavelength_um < 20:
        raise ValueError(f"must lie between 0.2 and 20 micrometres; {wavelength_um:g} nm are {wavelength_um / 1000:g}")
    return wavelength_um


class Band(BaseModel):
    """One band: optical, with a central wavelength, or radar, with a polarisation."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, AfterValidator(_is_plain)]
    """What the band is called everywhere in FedSense: ``red``, ``green``, ``blue``, ``nir``,
    ``swir_1``, ..."""
    wavelength_um: Annotated[FiniteFloat, AfterValidator(_is_in_micrometres)] | None = None
    """Central wavelength of an optical band, in micrometres (665 nm is 0.665)."""
    polarisation: Polarisation | None = None
    """Of a radar band, which has no optical wavelength."""
    code: str = ""
    """The sensor's own name of it, such as ``B04``."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> Band:
        if (self.wavelength_um is None) == (self.polarisation is None):
            raise ValueError(
                f"band {self.name!r} needs either wavelength_um (optical, in micrometres) or polarisation (radar)"
            )
        return self


class SensorCard(BaseModel):
    """The bands of one kind of product, in file order, and how its numbers are to be read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    bands: Annotated[list[Band], Field(min_length=1, max_length=64)]
    """In the order in which a file holds them."""
    gsd_m: Annotated[FiniteFloat, Field(gt=0)]
    """Ground sample distance, in metres a pixel."""
    scale: FiniteFloat = 1.0
    """physical value = stored value * scale + offset."""
    offset: FiniteFloat = 0.0
    """See ``scale``."""
    nodata: FiniteFloat | None = None
    """Stored value that means "no measurement", besides what the file itself declares."""
    nodata_bands: NodataBands = "all"
    """A pixel is invalid where all the bands that are read hold nodata; ``any`` where the value is
    no possible measurement."""
    file_nodata: bool = True
    """Whether nodata values that files declare count; their masks and alpha do in any case."""
    add_offset: AddOffset = None
    """Number that is added to every stored count, before ``scale``, in place of an offset that
    files or products state."""
    kind: Literal["optical", "sar"] = "optical"
    """What the sensor measures: reflected light, or the radar's own echo."""
    decibels: Literal["no", "amplitude", "power"] = "no"
    """Turn radar amplitudes into 20 log10, or powers into 10 log10, when chips are cut; ``no``
    leaves numbers alone."""
    baseline_offset: FiniteFloat | None = None
    """Counts that products of Sentinel-2 baseline 04.00 and later carry on top, by whose metadata
    or names they are subtracted; None for other sensors."""
    expected: Annotated[tuple[FiniteFloat, FiniteFloat], AsTuple] | None = None
    """Between which physical values nearly all pixels lie, in decibels where ``decibels`` makes
    them; `fedsense data check` warns of others."""

    @model_validator(mode="after")
    def _range_and_decibels_make_sense(self) -> SensorCard:
        if self.expected is not None and self.expected[0] >= self.expected[1]:
            raise ValueError(f"expected = {list(self.expected)} must be two numbers, the smaller one first")
        if self.decibels != "no" and not self.is_radar:
            raise ValueError(f"decibels = {self.decibels!r} is for radar; add kind = 'sar' or leave it out")
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> SensorCard:
        known = [label for band in self.bands for label in {band.name, band.code} if label]
        twice = sorted({label for label in known if known.count(label) > 1})
        if twice:
            raise ValueError(f"band {twice[0]!r} appears twice")
        wrong = [band.name for band in self.bands if (band.polarisation is not None) != self.is_radar]
        if wrong:
            needed = "a polarisation" if self.is_radar else "a wavelength_um"
            raise ValueError(f"band {wrong[0]!r} of a card of kind {self.kind!r} needs {needed}")
        return self

    @property
    def is_radar(self) -> bool:
        """Whether bands are polarisations of a radar's echo, not wavelengths of light."""
        match self.kind:
            case "sar":
                return True
            case "optical":
                return False
            case unknown:
                assert_never(unknown)

    @property
    def names(self) -> list[str]:
        """Band names in file order."""
        return [band.name for band in self.bands]

    def position(self, name: str) -> int | None:
        """Return the 0-based position of the band with this name or code, or None."""
        return next((i for i, band in enumerate(self.bands) if name and name in (band.name, band.code)), None)

    def positions(self, names: Sequence[str], where: str) -> tuple[int, ...]:
        """Return the 0-based positions of the named bands.

        Raises SiteError, beginning with ``where``, for a band that this card does not hold.
        """
        return tuple(self._position_or_raise(name, where) for name in names)

    def only(self, names: Sequence[str], where: str) -> SensorCard:
        """Return a card for files that hold just these bands, in this order. Raises as `positions`
        does."""
        chosen = self.positions(names, where)
        twice = next((name for name, i in zip(names, chosen, strict=True) if chosen.count(i) > 1), None)
        if twice is not None:
            raise SiteError(f"{where}: band {twice!r} appears twice.")
        return self.model_copy(update={"bands": [self.bands[i] for i in chosen]})

    def _position_or_raise(self, name: str, where: str) -> int:
        found = self.position(name)
        if found is None:
            known = [f"{band.name} ({band.code})" if band.code else band.name for band in self.bands]
            raise SiteError(
                f"{where}: there is no band {name!r}; the files hold {', '.join(known)}.{self._nearest_band(name)}"
            )
        return found

    def _nearest_band(self, name: str) -> str:
        """Return a hint. B8 is B08 on the cards, and not B8A, which is nearer as a text."""
        padded = re.sub(r"(?<=\D)(\d)$", r"0\1", name)
        labels = [label for band in self.bands for label in (band.name, band.code) if label]
        return f" Did you mean {padded!r}?" if padded in labels else nearest(name, labels)


def other_names(card: SensorCard) -> dict[str, int]:
    """Return what files call the card's bands besides names and codes, in lower case, with their
    positions: B4 for B04, and the common names of STAC catalogues (the extension `eo`)."""
    known = {label.lower() for band in card.bands for label in (band.name, band.code)}
    found: dict[str, int] = {}
    for i, band in enumerate(card.bands):
        common = "nir08" if band.name == "nir" and "nir_narrow" not in known else _COMMON_NAMES.get(band.name, "")
        for name in (re.sub(r"^b0(?=\d$)", "b", band.code.lower()), common):
            if name and name not in known:
                found[name] = i
    return found


def shipped_card(name: str, where: str) -> SensorCard:
    """Return the sensor card of that name that ships with FedSense. Raises SiteError, beginning
    with ``where``."""
    if name not in CARDS:
        known = sorted(CARDS)
        raise SiteError(
            f"{where}: unknown sensor card {name!r}.{nearest(name, known)} Shipped cards: {', '.join(known)}. "
            "Or write the card into the site file, as a table with `bands` and `gsd_m`."
        )
    card: dict[str, Any] = CARDS[name]
    return SensorCard.model_validate(card)
