"""What names say: which product a path belongs to, which bands its files may be called by, and what
is no imagery."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from fedsense_core.data.sites.cards import CARDS
from fedsense_core.data.sites.sensors import Polarisation, SensorCard, other_names

POLARISATIONS: tuple[Polarisation, ...] = ("VV", "VH", "HH", "HV")
RTC = "sentinel1-rtc"
"""How terrain corrected radar of Sentinel-1 begins: no card, as HyP3 offers three scales, each a
product of its own."""
PALSAR = "alos-palsar"
"""Yearly mosaics of ALOS and ALOS-2: no card, as bands of radar are HH and HV."""
COLOUR_INFRARED = "colour-infrared"
RADIANCE = "radiance-planetscope"
EUROSAT = "eurosat"
FORCE = "force:"
"""Before the card of the sensor: reflectance in units of 0.0001, whatever the card's is."""

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
    (r"IMG_PHR1[AB]_(?:P?MS)_\d{15}_", "pleiades", "the name is that of a Pleiades product"),
    (r"IMG_SPOT[67]_(?:P?MS)_\d{15}_", "spot67", "the name is that of a SPOT 6 or 7 product"),
    (r"(?:^|/)\d{7}_\d{4}-\d{2}-\d{2}_RE\d_3A_Analytic", "rapideye", "the name is that of a RapidEye tile"),
    (
        r"(?:^|[-_/])(?:IRC|IRRG|CIR)(?=[-_./])|(?:^|/)top_mosaic_09cm_area\d",
        COLOUR_INFRARED,
        "the name is that of colour infrared photographs, whose bands are near infrared, red and green",
    ),
    (
        r"(?:^|/)[NS]\d{2}[EW]\d{3}_\d{2}_(?:sl|date|linci|mask)(?=[_.])",
        PALSAR,
        "the name is that of JAXA's mosaics of PALSAR",
    ),
    (
        r"S1[A-D]_(?:IW|EW|S\d)_\d{8}T\d{6}_[SD][VH][PRO]_RTC(\d\d)_[A-Z]_[gs]([pad])[uw][nf][ec][dm]",
        RTC + r"-hyp3-\1-\2",
        "the name is that of Sentinel-1, terrain corrected by HyP3",
    ),
    (r"OPERA_L2_RTC-S1", f"{RTC}-opera", "the name is that of OPERA's terrain corrected Sentinel-1"),
    (
        r"(?:iw|ew|s\d)-[vh]{2}\.rtc\.tiff?$",
        f"{RTC}-planetary-computer",
        "the name is that of the Planetary Computer's terrain corrected Sentinel-1",
    ),
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
        r"SENTINEL2[A-D]_\d{8}-\d{6}-\d{3}_L2A_T\d{2}[A-Z]{3}_",
        "sentinel2-l2a",
        "the name is that of a Sentinel-2 product of MAJA",
    ),
    (r"(?<!\d)\d{8}_LEVEL2_SEN2[A-D]_(?:BOA|QAI)", FORCE + "sentinel2-l2a", "the name is that of FORCE's Sentinel-2"),
    (r"(?<!\d)\d{8}_LEVEL2_LND0([4-9])_(?:BOA|QAI)", FORCE + r"landsat\1-l2", "the name is that of FORCE's Landsat"),
    (
        r"L[CET]0?(\d)_(?:CU|AK|HI)_\d{6}_\d{8}_\d{8}_02_(?!TOA)",
        r"landsat\1-l2",
        "the name is that of Landsat Analysis Ready Data",
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
    (r"_S1(?:Hand|Weak|Perm)?[.]", "sentinel1-grd", "the name is that of radar of Sen1Floods11"),
    (r"(?i:landsat[-_ ]?0?([45789]))", r"landsat\1", "the path names Landsat"),
    (r"M[OY]D09(?:GA|A1)\.A\d{7}\.h\d\dv\d\d\.", "modis-sr", "the name is that of MODIS surface reflectance"),
    (r"(?i:(?:^|[/_-])modis(?=[/_-]))", "modis", "the path names MODIS"),
)
"""Expression, card (or only its beginning), reason. The first that fits counts."""
_BY_PRODUCT = re.compile(
    r"(?i:thumb|quick.?look|preview|browse)|^ICON_|(?:^|[_.])(?:TCI|AOT|WVP|PVI|CLDPRB|SNWPRB|CLD|SNW|ANG)(?=[_.]|$)"
    r"|QA_RADSAT|QA_AEROSOL|QA_PIXEL_|[_.](?:VAA|VZA|SAA|SZA)(?=[_.]|$)|_ST_|_ATMOS_OPACITY|_CLOUD_QA"
    r"|^(?:aot|wvp|visual)[.]|^ENMAP\d\d-.*-QL_|^M[OY]D09(?:GA|A1)(?!.*_sur_refl_)"
    r"|SENTINEL2.*_(?:ATB|EDG|MG2|SAT|IAB|DFP|DTF|WVC|QKL)_"
    r"|_3B_(?:\w+_)?(?:Visual|DN_udm|udm(?!2))|_3A_udm|-P\d[A-Z]S[_-]|-PAN\d?(?=[.]|$)|^IMG_[A-Z0-9]+_P_\d"
    r"|^10[0-9A-F]{14}-(?!visual|ms\.)|-(?:MSS|PAN)\d?(?:_thumb)?\.jpg$"
)
"""Files beside the bands of a product: pictures for people, angles, temperatures, quality of other
kinds, and panchromatic bands, which no card has."""
_MASKS = {
    "scl": "sentinel2-scl",
    "qa_pixel": "landsat-qa",
    "bqa": "landsat-c1-bqa",
    "fmask": "hls-fmask",
    "udm2": "planet-udm2",
    "clm": "maja-clm",
    "qai": "force-qai",
}
_MASKS_OF = {"fmask": "hls", "qai": FORCE, "bqa": "landsat"}
"""How products begin whose masks alone have these labels' rules."""
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
    return product.startswith("sentinel1") or product == PALSAR


def is_true_colour(name: str) -> bool:
    """Tell whether a file is a product's picture at the full size: imagery to those who have
    nothing else of it."""
    return re.search(r"(?:^|[_.])TCI(?=[_.]|$)|_3B_(?:\w+_)?Visual|^visual[.]", name) is not None


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
    """Return names, codes and what else files call bands, in lower case, with their positions."""
    found = other_names(card)
    for i, band in enumerate(card.bands):
        found |= dict.fromkeys({band.name.lower(), band.code.lower()} - {""}, i)
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


def is_mask_of_another(label: str, path: str) -> bool:
    """Tell whether the rule for masks of this label is that of another product than the path's.

    Fmask writes classes where HLS has bits: 4 is snow or cloud, by its version, and 5 water. BQA
    had other bits before Landsat's Collection 1.
    """
    return label in _MASKS_OF and not product_of(path)[0].startswith(_MASKS_OF[label])


def mask_labels() -> list[str]:
    """Return the labels by which masks are known."""
    return list(_MASKS)
