"""Which sensor made a raster: by the names of products, by the bands' own names, by their number
and type."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedsense_core.data.chips.statistics import MAX_BANDS
from fedsense_core.data.sites.cards import CARDS
from fedsense_core.data.sites.sensors import Band, Polarisation, SensorCard
from fedsense_core.tools.onboarding.products import (
    COLOUR_INFRARED,
    EUROSAT,
    FORCE,
    PALSAR,
    POLARISATIONS,
    RADIANCE,
    card_of,
    cards_of,
    hyp3_scale,
    is_radar,
    known_names,
    labels,
    plain_name,
    product_of,
)
from fedsense_core.tools.onboarding.survey import Look

Peek = Callable[[int], NDArray[np.float64]]
"""Returns some pixels of the band with this 1-based number."""
Keys = tuple[tuple[str, str | float], ...]

_COUNTS = ("uint16", "int16", "uint32", "int32")
_FLOATS = ("float32", "float64")
_EUROSAT_ORDER = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
"""EuroSAT's files have band 8A last, unlike the products that they were cut from."""
PALSAR_SCALE = ("scale", 7.07946e-05)
"""10^(-83/20), by which JAXA's amplitudes are calibrated (dataset description of the mosaics)."""
LEAST_DECIBELS = -100.0
"""No echo is weaker: what is below is a fill that the file does not declare."""
_FORCE_FILL = ("nodata", -9999.0)
MOST_REFLECTANCE = 2.0
"""98 % of the pixels of reflectances are below this; of counts they are far above."""


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
    keys: Keys = ()
    """Further keys of a custom card, or of the source where the card is a shipped one."""
    gsd_m: float | None = None
    missing: str = ""
    """What only the user knows; the source is then left commented out."""

    @property
    def title(self) -> str:
        """The card, in words."""
        if self.missing:
            return "to complete"
        return self.sensor or "custom card"


def guess(
    path: str,
    look: Look,
    labels: Sequence[str] = (),
    peek: Peek = lambda band: np.zeros(0),
    satellite: str = "",
) -> Guess:
    """Return the likeliest card of the files that look like ``look``.

    ``labels`` are the bands of one-file-a-band scenes; else the file's own descriptions count.
    ``satellite`` is what metadata beside the file call it.
    """
    product, why = product_of(path)
    named = tuple(labels) or known_names(look.texts)
    found = None
    if bands := tuple(band for label in named for band in POLARISATIONS if band.lower() == label):
        found = _radar(path, why or f"the bands are called {', '.join(bands)}", look, bands, peek)
    elif named:
        found = _by_names(product, why, look, named, "the file names" if labels else "the band descriptions", peek)
    elif product:
        found = _by_maker(product, why, look, satellite) or _by_product(path, product, why, look, peek)
    found = found or _by_form(look, peek) or _by_wavelengths(look) or _unknown(look)
    return found if found.gsd_m is not None else replace(found, gsd_m=_own_gsd(path, found, look))


def _by_names(product: str, why: str, look: Look, named: tuple[str, ...], where: str, peek: Peek) -> Guess:
    fitting = [name for name in cards_of(product) if all(label in labels(card_of(name)) for label in named)]
    is_coded = all(re.fullmatch(r"b\d{1,2}a?", label) for label in named)
    # Names of colours are given to floats of any kind.
    form = numbers_of(look, peek, is_radar=False) if product or is_coded or look.dtype not in _FLOATS else ""
    if product not in CARDS:
        fitting = [name for name in fitting if _fits_form(card_of(name), look, form)]
    # Names of colours alone say nothing of who made 16-bit files: it takes a code such as B04, or
    # the pixels' size.
    if not product and look.gsd_m is None and not any(map(str.isdigit, "".join(named))):
        fitting = [name for name in fitting if card_of(name).scale == 1]
    if fitting:
        card = card_of(fitting[0])
        names = tuple(card.names[labels(card)[label]] for label in named)
        reason = f"{why}; " if why else ""
        reason += f"{where} say {', '.join(names)}"
        if form == "reflectance":
            reason += ", and the values are reflectances already"
        if not product and card.scale != 1:
            size = f", pixels are {look.gsd_m:.3g} m" if look.gsd_m else ""
            reason += f", the type is {look.dtype}{size}; sensor and level are guesses"
        elif product not in CARDS and card.scale != 1:
            reason += "; the level is a guess: reflectance of the ground is taken"
        keys = _as_reflectance(card) if form == "reflectance" else ()
        return Guess(reason, fitting[0], names if names != tuple(card.names) else None, keys=keys)
    if bands := _typical(named):
        reason = f"{where} say {', '.join(band.name for band in bands)}, but no shipped card looks like these files"
        return Guess(f"{reason}; the wavelengths are typical ones, put your sensor's", custom_bands=bands)
    return Guess(f"{where} say {', '.join(named)}", missing="which sensor this is")


def _by_maker(product: str, why: str, look: Look, satellite: str) -> Guess | None:
    """Return the card of products whose number of bands alone says what they hold."""
    if product == "worldview" and look.bands == 8:
        if satellite in ("WV02", "WV03"):
            return Guess(f"{why}; the metadata beside it say {satellite}", f"worldview{satellite[-1]}")
        return Guess(
            f"{why}, and there are 8 bands, as WorldView-2 and 3 have them, within some nm of each other; the card "
            "that is taken is a guess",
            "worldview2",
        )
    if product == "worldview" and look.bands == 4:
        bands = _typical(("blue", "green", "red", "nir"))
        reason = f"{why}; the 4 bands are taken to be blue, green, red and near infrared, with typical wavelengths"
        return Guess(f"{reason}{f' ({satellite})' if satellite else ''}", custom_bands=bands, keys=(("nodata", 0.0),))
    if product == RADIANCE:
        card = next((card_of(name) for name in cards_of("planetscope") if len(card_of(name).bands) == look.bands), None)
        if card is not None:
            reason = f"{why}: the numbers are taken as they are"
            return Guess(reason, custom_bands=tuple(card.bands), keys=(("nodata", 0.0),))
    if product == EUROSAT and look.bands == 13:
        card = card_of("sentinel2-l1c")
        names = tuple(card.names[i] for i in card.positions(_EUROSAT_ORDER, EUROSAT))
        return Guess(f"{why}, whose 13 bands of level 1C have B8A last", "sentinel2-l1c", names, gsd_m=10.0)
    if product == EUROSAT and look.bands == 3 and look.dtype == "uint8":
        return Guess(f"{why}, as pictures of 10 m pixels", "rgb", gsd_m=10.0)
    if product == COLOUR_INFRARED and look.bands == 3 and look.dtype == "uint8":
        return Guess(why, "aerial-rgbn", ("nir", "red", "green"))
    if product.startswith(FORCE):
        return _by_force(product.removeprefix(FORCE), why, look)
    if product == "naip" and look.bands == 3:
        return Guess(f"{why}; 3 bands are taken to be red, green and blue", "naip", ("red", "green", "blue"))
    return None


def _by_force(sensor: str, why: str, look: Look) -> Guess | None:
    """Return the card and bands of FORCE's files: without those that serve its correction, in units
    of 0.0001. Source: its documentation, "Level 2 Processing System", "Output Format"."""
    card = card_of(sensor)
    names = tuple(name for name in card.names if name not in ("coastal", "water_vapour"))
    if len(names) != look.bands:
        return None
    keys: list[tuple[str, str | float]] = [("scale", 1e-4)] if card.scale != 1e-4 else []
    keys += [("offset", 0.0)] if card.offset else []
    return Guess(
        f"{why}, in units of 0.0001, and there are {look.bands} bands", sensor, names, keys=(*keys, _FORCE_FILL)
    )


def _by_product(path: str, product: str, why: str, look: Look, peek: Peek) -> Guess | None:
    if is_radar(product):
        if look.bands == 2 and look.dtype != "uint8":
            return _radar(path, f"{why}; two bands are taken to be VV and VH", look, POLARISATIONS[:2], peek)
        missing = f"which polarisation each of the {look.bands} bands has, if any: VV, VH, HH or HV"
        return Guess(f"{why}, but the bands have no names", missing=missing)
    names = cards_of(product)
    cards = [card_of(name) for name in names]
    for name, card in zip(names, cards, strict=True):
        if product not in CARDS and not _fits_form(card, look, numbers_of(look, peek, is_radar=False)):
            continue
        if len(card.bands) == look.bands:
            keys = _as_reflectance(card) if numbers_of(look, peek, is_radar=False) == "reflectance" else ()
            already = ", and the values are reflectances already" if keys else ""
            return Guess(f"{why}, and there are {look.bands} bands{already}", name, keys=keys)
    if look.is_rgb and look.dtype == "uint8" and (found := _by_form(look, peek)):
        return replace(found, reason=f"{why}; {found.reason}")
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
    if look.dtype in ("uint16", "int16") and look.bands == 13:
        return Guess("13 bands of 16 bits, as only Sentinel-2 level 1C has them", "sentinel2-l1c")
    if look.dtype in ("uint16", "int16") and look.bands == 12 and _near(look.gsd_m, 10.0):
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
    names = [plain_name(text) or f"band_{i}" for i, text in enumerate(look.texts, start=1)]
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


def _radar(path: str, why: str, look: Look, bands: tuple[Polarisation, ...], peek: Peek) -> Guess:
    scale, sensor = hyp3_scale(path), ""
    keys: Keys = ()
    if product_of(path)[0] == PALSAR:
        reason, scale = "gamma nought in decibels is 20 log10 of its numbers minus 83", "amplitude"
        keys = (PALSAR_SCALE,)
    elif scale:
        said = {"power": "powers", "amplitude": "amplitudes", "no": "decibels"}[scale]
        reason = f"the letter behind the first of its processing codes says {said}"
    elif look.dtype in _COUNTS:
        reason, sensor, scale = "integers are amplitudes as ESA distributes them", "sentinel1-grd", "amplitude"
    elif numbers_of(look, peek, is_radar=True) == "decibels":
        reason, sensor, scale = "most values are negative, so that they are decibels", "sentinel1-grd-db", "no"
    else:
        reason, scale = "floats that are not negative are taken to be calibrated powers", "power"
    reason = f"{why}; {reason}"
    if sensor and set(bands) <= set(card_of(sensor).names):
        return Guess(reason, sensor, bands if list(bands) != card_of(sensor).names else None)
    custom_bands = tuple(Band(name=band, polarisation=band) for band in bands)
    return Guess(reason, custom_bands=custom_bands, keys=(("kind", "sar"), ("decibels", scale), *keys))


def numbers_of(look: Look, peek: Peek, is_radar: bool) -> str:
    """Return what the numbers are: ``bytes``, ``counts``, ``reflectance``, of radar ``decibels`` or
    ``powers``; an empty text where nothing says it."""
    if look.dtype == "uint8":
        return "bytes"
    if look.dtype in _COUNTS:
        return "counts"
    values = peek(1)
    values = values[values != 0]
    if is_radar:
        values = values[values > LEAST_DECIBELS]
        return ("decibels" if np.median(values) < 0 else "powers") if len(values) else ""
    if look.dtype not in _FLOATS or not len(values):
        return ""
    most = float(np.percentile(values, 98))
    return "reflectance" if 0 < most <= MOST_REFLECTANCE else "counts" if most > 50 * MOST_REFLECTANCE else ""


def _as_reflectance(card: SensorCard) -> Keys:
    """Return the keys by which a source's numbers are reflectances, whatever its card's are."""
    keys: list[tuple[str, str | float]] = [("scale", 1.0)] if card.scale != 1 else []
    keys += [("offset", 0.0)] if card.offset else []
    return tuple(keys)


def _fits_form(card: SensorCard, look: Look, form: str) -> bool:
    if card.is_radar:
        return look.dtype in _COUNTS
    if card.expected == (0.0, 255.0):
        return form == "bytes"
    return form in ("counts", "reflectance") and (look.gsd_m is None or _near(look.gsd_m, card.gsd_m))


def _near(gsd_m: float | None, expected: float) -> bool:
    return gsd_m is not None and 0.6 * expected <= gsd_m <= 2.1 * expected


def _own_gsd(path: str, found: Guess, look: Look) -> float | None:
    """Return the files' pixel size where the card does not say it already."""
    if look.gsd_m is None:
        # Gaofen's wide camera, in files that are not georeferenced yet.
        return 16.0 if found.sensor.startswith("gaofen") and "_WFV" in path else None
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
