"""Which sensor made a raster: by the names of products, by the bands' own names, by their number
and type."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedsense_core.data.chips.statistics import MAX_BANDS
from fedsense_core.data.sites.cards import CARDS
from fedsense_core.data.sites.sensors import Band, Polarisation, SensorCard
from fedsense_core.tools.onboarding.survey import Look

Peek = Callable[[int], NDArray[np.float64]]
"""Returns some pixels of the band with this 1-based number."""

_PRODUCTS = (
    (
        r"S2[A-D]_MSIL1C|S2[A-D]_.*_L1C(?=[_./])",
        "sentinel2-l1c",
        "the name is that of a Sentinel-2 product of level 1C",
    ),
    (
        r"S2[A-D]_MSIL2A|S2[A-D]_.*_L2A(?=[_./])",
        "sentinel2-l2a",
        "the name is that of a Sentinel-2 product of level 2A",
    ),
    (
        r"L[COETM]0?(\d)_L([12])[A-Z]{2}_\d{6}_\d{8}",
        r"landsat\1-l\2",
        "the name is that of a Landsat Collection 2 product",
    ),
    (r"(?i:S1[A-D][_-](?:IW|EW|S\d)[_-]GRD)", "sentinel1-grd", "the name is that of a Sentinel-1 GRD product"),
    (r"T\d{2}[A-Z]{3}_\d{8}T\d{6}(?=[_.])", "sentinel2", "the name is that of a Sentinel-2 granule"),
    (r"(?i:sentinel[-_ ]?2|(?:^|[/_-])s2(?=[/_-]))", "sentinel2", "the path names Sentinel-2"),
    (r"(?i:sentinel[-_ ]?1|(?:^|[/_-])s1(?=[/_-]))", "sentinel1-grd", "the path names Sentinel-1"),
    (r"(?i:landsat[-_ ]?0?([45789]))", r"landsat\1", "the path names Landsat"),
    (r"(?i:(?:^|[/_-])modis(?=[/_-]))", "modis", "the path names MODIS"),
)
"""Expression, card (or only its beginning), reason. The first that fits counts."""
_ALIASES = {
    "near_infrared": "nir",
    "nir08": "nir",
    "nir_1": "nir",
    "nir8a": "nir_narrow",
    "swir1": "swir_1",
    "swir2": "swir_2",
    "swir16": "swir_1",
    "swir22": "swir_2",
    "rededge1": "red_edge_1",
    "rededge2": "red_edge_2",
    "rededge3": "red_edge_3",
}
_ORDER = ("rgb", "aerial-rgbn", "sentinel2-l2a", "sentinel2-l1c", "landsat8-l2", "landsat7-l2", "sentinel1-grd")
"""Cards that band names alone may mean, the likeliest first. Others differ from these in nothing
that names tell."""
_WIDE = ("uint16", "int16")
_RADAR: tuple[Polarisation, ...] = ("VV", "VH", "HH", "HV")


@dataclass(frozen=True)
class Guess:
    """What is put into a source of the draft."""

    reason: str
    """Why, in words."""
    sensor: str = ""
    """Name of a shipped card; empty for a custom one."""
    bands: tuple[str, ...] | None = None
    """Names of the bands in file order where they are not just the card's."""
    custom_bands: tuple[Band, ...] = ()
    """Bands of a custom card."""
    keys: tuple[tuple[str, str | float], ...] = ()
    """Further keys of a custom card."""
    gsd_m: float | None = None
    missing: str = ""
    """What only the user knows; the source is then left commented out."""

    @property
    def title(self) -> str:
        """The card, in words."""
        if self.missing:
            return "to complete"
        return self.sensor or "custom card"


def product_of(path: str) -> tuple[str, str]:
    """Return the card that a path names, or how such cards begin, and the reason; empty texts where
    it names none."""
    for expression, card, reason in _PRODUCTS:
        if found := re.search(expression, path):
            name = found.expand(card)
            # Landsat 4 carried the same instrument as Landsat 5.
            return name.replace("landsat4", "landsat5"), reason
    return "", ""


@lru_cache
def labels_of(product: str) -> frozenset[str]:
    """Return names and codes, in lower case, of the bands that files of a product, or of any, may
    be called by."""
    names = _cards(product) if product else list(CARDS)
    labels = {label for name in names for label in _labels(card_of(name))}
    return frozenset(labels | {band.lower() for band in _RADAR})


def card_of(name: str) -> SensorCard:
    """Return a shipped card."""
    return SensorCard.model_validate(CARDS[name])


def known_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Return band descriptions as labels in lower case, or none where one of them is no band of a
    shipped card."""
    plain = [_plain(text) for text in texts]
    return tuple(plain) if plain and all(text in labels_of("") for text in plain) else ()


def guess(path: str, look: Look, labels: Sequence[str] = (), peek: Peek = lambda band: np.zeros(0)) -> Guess:
    """Return the likeliest card of the files that look like ``look``.

    ``labels`` are the bands of one-file-a-band scenes; else the file's own descriptions count.
    """
    product, why = product_of(path)
    named = tuple(labels) or known_names(look.texts)
    found = None
    if bands := tuple(band for label in named for band in _RADAR if band.lower() == label):
        found = _radar(why or f"the bands are called {', '.join(bands)}", look, bands, peek)
    elif named:
        found = _by_names(product, why, look, named, "the file names" if labels else "the band descriptions")
    elif product:
        found = _by_product(product, why, look, peek)
    found = found or _by_form(look, peek) or _by_wavelengths(look) or _unknown(look)
    return replace(found, gsd_m=_own_gsd(found, look))


def mask_kind(label: str) -> str:
    """Return the ready-made mask rule of a file with this label, or an empty text."""
    return {"scl": "sentinel2-scl", "qa_pixel": "landsat-qa"}.get(label.lower(), "")


def _by_names(product: str, why: str, look: Look, named: tuple[str, ...], where: str) -> Guess:
    fitting = [name for name in _cards(product) if all(label in _labels(card_of(name)) for label in named)]
    if product not in CARDS:
        fitting = [name for name in fitting if _fits_form(card_of(name), look)]
    # Names of colours alone say nothing of who made 16-bit files: it takes a code such as B04, or
    # the pixels' size.
    if not product and look.gsd_m is None and not any(map(str.isdigit, "".join(named))):
        fitting = [name for name in fitting if card_of(name).scale == 1]
    if fitting:
        card = card_of(fitting[0])
        names = tuple(card.names[_labels(card)[label]] for label in named)
        reason = f"{why}; " if why else ""
        reason += f"{where} say {', '.join(names)}"
        if not product and card.scale != 1:
            size = f", pixels are {look.gsd_m:.3g} m" if look.gsd_m else ""
            reason += f", the type is {look.dtype}{size}; sensor and level are guesses"
        elif product not in CARDS and card.scale != 1:
            reason += "; the level is a guess: reflectance of the ground is taken"
        return Guess(reason, fitting[0], names if names != tuple(card.names) else None)
    if bands := _typical(named):
        reason = f"{where} say {', '.join(band.name for band in bands)}, but no shipped card looks like these files"
        return Guess(f"{reason}; the wavelengths are typical ones, put your sensor's", custom_bands=bands)
    return Guess(f"{where} say {', '.join(named)}", missing="which sensor this is")


def _by_product(product: str, why: str, look: Look, peek: Peek) -> Guess | None:
    names = _cards(product)
    cards = [card_of(name) for name in names]
    for name, card in zip(names, cards, strict=True):
        if product not in CARDS and not _fits_form(card, look):
            continue
        if card.is_radar and look.bands in (1, 2):
            return _radar(why, look, _RADAR[: look.bands], peek)
        if len(card.bands) == look.bands:
            return Guess(f"{why}, and there are {look.bands} bands", name)
    if look.is_rgb and look.dtype == "uint8":
        return Guess(f"{why}, as an 8-bit picture in red, green and blue", "rgb")
    if product not in CARDS:
        return None
    known = ", ".join(cards[0].names)
    missing = f"which of the bands these {look.bands} are, in the files' order. The card has {known}"
    return Guess(
        f"{why}, but there are {look.bands} bands without names", names[0], ("?",) * look.bands, missing=missing
    )


def _by_form(look: Look, peek: Peek) -> Guess | None:
    if look.dtype == "uint8" and look.bands == 3:
        colours = "called red, green and blue" if look.is_rgb else "taken to be red, green and blue"
        return Guess(f"3 bands of 8 bits, {colours}", "rgb")
    if look.dtype == "uint8" and look.bands == 4:
        if look.has_alpha and np.isin(peek(4), (0, 255)).all():
            return Guess("3 bands of 8 bits, called red, green and blue, and a fourth of transparency", "rgb")
        return Guess("4 bands of 8 bits, taken to be red, green, blue and near infrared", "aerial-rgbn")
    if look.dtype in _WIDE and look.bands == 13:
        return Guess("13 bands of 16 bits, as only Sentinel-2 level 1C has them", "sentinel2-l1c")
    if look.dtype in _WIDE and look.bands == 12 and _near(look.gsd_m, 10.0):
        return Guess("12 bands of 16 bits and 10 m pixels, as Sentinel-2 level 2A has them", "sentinel2-l2a")
    if look.is_rgb and look.bands == 3:
        bands = _typical(("red", "green", "blue"))
        return Guess(
            f"3 bands of type {look.dtype}, called red, green and blue; the wavelengths are typical ones",
            custom_bands=bands,
        )
    return None


def _by_wavelengths(look: Look) -> Guess | None:
    waves = [wave for wave in look.wavelengths_um if wave is not None]
    if len(waves) != look.bands or look.bands > MAX_BANDS:
        return None
    names = [_plain(text) or f"band_{i}" for i, text in enumerate(look.texts, start=1)]
    if len(set(names)) < len(names) or any("," in name for name in names):
        names = [f"band_{i}" for i in range(1, look.bands + 1)]
    bands = tuple(Band(name=name, wavelength_um=wave) for name, wave in zip(names, waves, strict=True))
    return Guess("the files themselves say the central wavelength of each band", custom_bands=bands)


def _unknown(look: Look) -> Guess:
    one = look.bands == 1
    bands = "the band's central wavelength" if one else f"the central wavelengths of these {look.bands} bands"
    said = [text for text in look.texts if text]
    if look.bands > MAX_BANDS:
        bands = f"files of fewer bands, as a card has at most {MAX_BANDS}; and then {bands}"
    reason = f"{look.bands} band{'s' * (not one)} of type {look.dtype} fit no shipped card"
    if said:
        reason += f"; the files call them {', '.join(said[:12])}"
    return Guess(reason, missing=f"{bands}, in micrometres, and names such as red, green, blue, nir")


def _radar(why: str, look: Look, bands: tuple[Polarisation, ...], peek: Peek) -> Guess:
    values = peek(1)
    if look.dtype in _WIDE:
        reason, sensor, decibels = "integers are amplitudes as ESA distributes them", "sentinel1-grd", "amplitude"
    elif (values < 0).any():
        reason, sensor, decibels = "there are negative values, so that they are decibels", "sentinel1-grd-db", "no"
    else:
        reason, sensor, decibels = "floats without a negative value are taken to be calibrated powers", "", "power"
    reason = f"{why}; {reason}"
    if sensor and set(bands) <= set(card_of(sensor).names):
        return Guess(reason, sensor, bands if list(bands) != card_of(sensor).names else None)
    custom_bands = tuple(Band(name=band, polarisation=band) for band in bands)
    return Guess(reason, custom_bands=custom_bands, keys=(("kind", "sar"), ("decibels", decibels)))


def _cards(product: str) -> list[str]:
    """Return the cards that a product may have, the likeliest first."""
    if product in CARDS:
        return [product]
    return [name for name in _ORDER if name.startswith(product)] + sorted(
        name for name in CARDS if product and name not in _ORDER and name.startswith(product)
    )


def _fits_form(card: SensorCard, look: Look) -> bool:
    if card.is_radar:
        return look.dtype in _WIDE
    if card.expected == (0.0, 255.0):
        return look.dtype == "uint8"
    return look.dtype in _WIDE and (look.gsd_m is None or _near(look.gsd_m, card.gsd_m))


def _near(gsd_m: float | None, expected: float) -> bool:
    return gsd_m is not None and 0.6 * expected <= gsd_m <= 2.1 * expected


def _own_gsd(found: Guess, look: Look) -> float | None:
    """Return the files' pixel size where the card does not say it already."""
    if look.gsd_m is None:
        return None
    rounded = float(f"{look.gsd_m:.3g}")
    if found.sensor and abs(rounded / card_of(found.sensor).gsd_m - 1) < 0.05:
        return None
    return rounded


def _typical(names: Sequence[str]) -> tuple[Band, ...]:
    """Return bands of these names with Sentinel-2's wavelengths, or none where a name is not among
    them."""
    card = card_of("sentinel2-l1c")
    found = [next((band for band in card.bands if band.name == name), None) for name in names]
    return tuple(band.model_copy(update={"code": ""}) for band in found if band) if all(found) else ()


def _plain(text: str) -> str:
    """Return a band's description as cards would write it, in lower case."""
    plain = re.sub(r"[\s-]+", "_", text.strip().lower())
    plain = re.sub(r"^(?:sr|toa|boa)_", "", plain)
    return _ALIASES.get(plain, plain)


def _labels(card: SensorCard) -> dict[str, int]:
    """Return names and codes in lower case with their positions; ``b4`` stands for ``b04`` too."""
    labels = {}
    for i, band in enumerate(card.bands):
        for label in {band.name.lower(), band.code.lower()} - {""}:
            labels[label] = i
            labels[re.sub(r"^b0(?=\d$)", "b", label)] = i
    return labels
