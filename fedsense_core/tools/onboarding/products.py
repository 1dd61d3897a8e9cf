"""What names say: which product a path belongs to, which bands its files may be called by, and what
is no imagery."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from fedsense_core.data.sites.cards import CARDS
from fedsense_core.data.sites.sensors import Polarisation, SensorCard

POLARISATIONS: tuple[Polarisation, ...] = ("VV", "VH", "HH", "HV")
RTC = "sentinel1-rtc"
"""Radiometrically terrain corrected radar of HyP3 and OPERA: no card, as HyP3 offers three
scales."""
RADIANCE = "radiance-planetscope"
EUROSAT = "eurosat"

_PRODUCTS = (
    (r"HLS\.([LS])30\.T\d{2}[A-Z]{3}\.\d{7}T\d{6}\.v\d", r"hls-\g<1>30", "the name is that of a HLS product"),
    (
        r"(?<!\d)\d{8}_\d{6}(?:_\d{2})?_[0-9a-f]{4}_3B_(?:\w+_)?AnalyticMS_SR",
        "planetscope",
        "the name is that of PlanetScope surface reflectance",
    ),
    (
        r"(?<!\d)\d{8}_\d{6}(?:_\d{2})?_[0-9a-f]{4}_3B_(?:\w+_)?AnalyticMS",
        RADIANCE,
        "the name is that of PlanetScope radiances, which are no surface reflectance",
    ),
    (
        r"(?<!\d)\d{2}[A-Z]{3}\d{8}-[A-Z]\d[A-Z]S(?:_R\d+C\d+)?-\d{12}_\d{2}_P\d{3}",
        "worldview",
        "the name is that of Maxar's products",
    ),
    (
        r"GF([12])[A-D]?_(?:PMS|WFV)\d?_[EW][\d.]+_[NS][\d.]+_\d{8}_L\d[A-Z]\d+",
        r"gaofen\1",
        "the name is that of a Gaofen product",
    ),
    (
        r"(?:^|/)m_\d{7}_(?:ne|nw|se|sw)_\d{1,2}_(?:h|\d{1,3})_\d{8}",
        "naip",
        "the name is that of NAIP, aerial photographs of the USA",
    ),
    (
        r"S1[A-D]_(?:IW|EW|S\d)_\d{8}T\d{6}_[SD][VH][PRO]_RTC\d\d_[A-Z]_[gs]([pad])[uw][nf][ec][dm]",
        RTC + r"-\1",  # each scale is a source of its own
        "the name is that of Sentinel-1, terrain corrected by HyP3",
    ),
    (r"OPERA_L2_RTC-S1", RTC, "the name is that of OPERA's terrain corrected Sentinel-1"),
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
    (
        r"(?i:eurosat)|(?:^|/)(AnnualCrop|Forest|HerbaceousVegetation|Highway|Industrial|Pasture|PermanentCrop"
        r"|Residential|River|SeaLake)/\1_\d+\.",
        EUROSAT,
        "the path is that of EuroSAT",
    ),
    (r"(?i:sentinel[-_ ]?2|(?:^|[/_-])s2(?=[/_-]))", "sentinel2", "the path names Sentinel-2"),
    (r"(?i:sentinel[-_ ]?1|(?:^|[/_-])s1(?=[/_-]))", "sentinel1-grd", "the path names Sentinel-1"),
    (r"(?i:landsat[-_ ]?0?([45789]))", r"landsat\1", "the path names Landsat"),
    (r"(?i:(?:^|[/_-])modis(?=[/_-]))", "modis", "the path names MODIS"),
)
"""Expression, card (or only its beginning), reason. The first that fits counts."""
_BY_PRODUCT = re.compile(
    r"thumb|quick.?look|preview|browse|(?:^|[_.])(?:TCI|AOT|WVP|PVI|CLDPRB|SNWPRB|CLD|SNW|ANG)(?=[_.]|$)"
    r"|QA_RADSAT|QA_AEROSOL|QA_PIXEL_|[_.](?:VAA|VZA|SAA|SZA)(?=[_.]|$)|_ST_|_ATMOS_OPACITY|_CLOUD_QA"
    r"|_3B_(?:\w+_)?(?:Visual|DN_udm|udm(?!2))|-P\d[A-Z]S[_-]|-PAN\d?(?=[.]|$)"
)
"""Files beside the bands of a product: pictures for people, angles, temperatures, quality of other
kinds, and panchromatic bands, which no card has."""
_MASKS = {"scl": "sentinel2-scl", "qa_pixel": "landsat-qa", "fmask": "hls-fmask", "udm2": "planet-udm2"}
_ORDER = ("rgb", "aerial-rgbn", "sentinel2-l2a", "sentinel2-l1c", "landsat8-l2", "landsat7-l2", "sentinel1-grd")
"""Cards that band names alone may mean, the likeliest first. Others differ from these in nothing
that names tell."""
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


@lru_cache(maxsize=1 << 16)
def product_of(path: str) -> tuple[str, str]:
    """Return the card that a path names, or how such cards begin, and the reason; empty texts where
    it names none."""
    for expression, card, reason in _PRODUCTS:
        if found := re.search(expression, path):
            # Landsat 4 carried the same instrument as Landsat 5.
            return found.expand(card).lower().replace("landsat4", "landsat5"), reason
    return "", ""


def is_radar(product: str) -> bool:
    """Tell whether a product's bands are polarisations."""
    return product.startswith("sentinel1")


def is_by_product(name: str) -> bool:
    """Tell whether a file of this name lies beside the bands of a product without being one."""
    return _BY_PRODUCT.search(name) is not None


def hyp3_scale(path: str) -> str:
    """Return what the numbers of HyP3's terrain corrected radar are: ``power``, ``amplitude``,
    ``no`` for decibels.

    The eleventh part of a name says it: `gpuned` is gamma nought as power (`a` amplitude, `d`
    decibels). Empty for names of another kind. Source: HyP3's product guide, "Naming Convention".
    """
    found = re.search(r"_RTC\d\d_[A-Z]_[gs]([pad])[uw][nf][ec][dm]", path)
    return {"p": "power", "a": "amplitude", "d": "no"}[found[1]] if found else ""


@lru_cache
def labels_of(product: str) -> frozenset[str]:
    """Return names and codes, in lower case, of the bands that files of a product, or of any, may
    be called by."""
    names = cards_of(product) if product else list(CARDS)
    found = {label for name in names for label in labels(card_of(name))}
    return frozenset(found | {band.lower() for band in POLARISATIONS})


def cards_of(product: str) -> list[str]:
    """Return the cards that a product may have, the likeliest first; of no product, those that
    names of bands may mean."""
    if product in CARDS:
        return [product]
    return [name for name in _ORDER if name.startswith(product)] + sorted(
        name for name in CARDS if product and name not in _ORDER and name.startswith(product)
    )


def card_of(name: str) -> SensorCard:
    """Return a shipped card."""
    return SensorCard.model_validate(CARDS[name])


def labels(card: SensorCard) -> dict[str, int]:
    """Return names and codes in lower case with their positions; ``b4`` stands for ``b04`` too."""
    found = {}
    for i, band in enumerate(card.bands):
        for label in {band.name.lower(), band.code.lower()} - {""}:
            found[label] = i
            found[re.sub(r"^b0(?=\d$)", "b", label)] = i
    return found


def known_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Return band descriptions as labels in lower case, or none where one of them is no band of a
    shipped card."""
    plain = [plain_name(text) for text in texts]
    return tuple(plain) if plain and all(text in labels_of("") for text in plain) else ()


def plain_name(text: str) -> str:
    """Return a band's description as cards would write it, in lower case."""
    plain = re.sub(r"[\s-]+", "_", text.strip().lower())
    plain = re.sub(r"^(?:sr|toa|boa)_", "", plain)
    return _ALIASES.get(plain, plain)


def mask_kind(label: str) -> str:
    """Return the ready-made mask rule of a file with this label, or an empty text."""
    return _MASKS.get(label.lower(), "")


def mask_labels() -> list[str]:
    """Return the labels by which masks are known."""
    return list(_MASKS)
