"""Crafted TIFFs: values at the edge, texts that are bombs, and pages beside the image."""

from __future__ import annotations

from typing import Any

import numpy as np
from hostile_tiffs import READ, TOLERATED, file, lying
from tiff_writer import (
    BITS,
    COMPRESSION,
    DOUBLE,
    FLOAT,
    GEO_DOUBLES,
    GEO_KEYS,
    GEO_TEXTS,
    HEIGHT,
    METADATA,
    NODATA,
    PHOTOMETRIC,
    PIXEL_SCALE,
    REFERENCE,
    SAMPLE_FORMAT,
    SUB_IFD,
    SUBFILE,
    TIE_POINTS,
    TRANSFORM,
    WIDTH,
    Field,
    double,
    long,
    page,
    short,
    text,
    tiff,
)


def _of(value: Any, dtype: str, outcome_pixel: Any = None) -> bytes:
    """Return an image of one value, with one pixel of another."""
    image = np.full((64, 64, 3), value, dtype)
    if outcome_pixel is not None:
        image[5, 5] = outcome_pixel
    kinds = {"f": 3, "i": 2, "u": 1}
    bits = image.itemsize * 8
    lies = {BITS: short(bits, bits, bits), SAMPLE_FORMAT: short(*[kinds[image.dtype.kind]] * 3)}
    return tiff(page(lies, blocks=[image.tobytes()]))


def _extremes() -> bytes:
    image = np.array([3.4e38, -3.4e38, 1e-45, 0.0], "float32")[np.random.default_rng(0).integers(0, 4, (64, 64, 3))]
    return tiff(page({BITS: short(32, 32, 32), SAMPLE_FORMAT: short(3, 3, 3)}, blocks=[image.tobytes()]))


def _with_nodata(value: str | bytes) -> bytes:
    return tiff(page({NODATA: text(value)}, blocks=[b"\7" * 64 * 64 * 3]))


VALUES = [
    file("all_nan", "floats of which none is a number", lambda: _of(np.nan, "float32")),
    file("all_infinite", "floats of which none is finite", lambda: _of(-np.inf, "float32")),
    file("one_pixel", "one valid pixel in a file of NaN", lambda: _of(np.nan, "float32", 7)),
    file("one_nan", "one NaN in a valid file", lambda: _of(7, "float32", np.nan), READ),
    file("one_infinity", "one infinity in a valid file", lambda: _of(7, "float32", np.inf), READ),
    file("largest_floats", "every value at the end of its range", lambda: _of(3.4e38, "float32"), READ),
    file("both_ends", "values at both ends of the range of floats", _extremes, READ),
    file("smallest_floats", "values of no deviation that can be divided by", lambda: _of(1e-45, "float32"), READ),
    file("largest_words", "saturated: every value is 65,535", lambda: _of(65535, "uint16"), READ),
    file("lowest_words", "every value is -32,768", lambda: _of(-32768, "int16"), READ),
    lying("all_nodata", "every pixel is nodata", {NODATA: text("7")}, READ),
    file("nothing_but_nodata", "every pixel is nodata", lambda: _with_nodata("7")),
    file("nodata_nan", "nodata is NaN in a file of bytes", lambda: _with_nodata("nan"), READ),
    file("nodata_beyond", "nodata is no number that a byte can hold", lambda: _with_nodata("1e999"), READ),
    file("nodata_negative", "nodata is below what a byte can hold", lambda: _with_nodata("-9999"), READ),
    file("nodata_text", "nodata is a word", lambda: _with_nodata("none"), READ),
    file("nodata_empty", "nodata is an empty text", lambda: _with_nodata(""), READ),
    file("nodata_long", "nodata is a megabyte of digits", lambda: _with_nodata("1" * (1 << 20)), READ),
    file("nodata_bytes", "nodata is in no encoding that is known", lambda: _with_nodata(b"\xff\xfe7"), READ),
]


def _geo(*keys: tuple[int, int, int, int], count: int | None = None) -> Field:
    return short(1, 1, 0, len(keys) if count is None else count, *[number for key in keys for number in key])


def _xml(inside: str) -> Field:
    return text(f"<GDALMetadata>{inside}</GDALMetadata>")


LAUGHS = "".join(f'<!ENTITY a{i + 1} "{f"&a{i};" * 10}">' for i in range(12))
PLACED = {PIXEL_SCALE: double(10, 10, 0), TIE_POINTS: double(0, 0, 0, 500000, 5000000, 0)}

TEXTS = [
    lying("scale_nan", "pixels of no size", {**PLACED, PIXEL_SCALE: double(float("nan"), float("nan"), 0)}, TOLERATED),
    lying(
        "scale_infinite", "pixels of endless size", {**PLACED, PIXEL_SCALE: double(float("inf"), 1e308, 0)}, TOLERATED
    ),
    lying("scale_zero", "pixels of size 0", {**PLACED, PIXEL_SCALE: double(0, 0, 0)}, TOLERATED),
    lying("place_nan", "lies nowhere", {**PLACED, TIE_POINTS: double(0, 0, 0, *[float("nan")] * 3)}, TOLERATED),
    lying("transform_nan", "a matrix of NaN", {TRANSFORM: double(*[float("nan")] * 16)}, TOLERATED),
    lying("transform_short", "a matrix of 3 numbers", {TRANSFORM: double(1, 2, 3)}, TOLERATED),
    lying("tie_points_many", "100,000 tie points", {TIE_POINTS: Field(DOUBLE, [1.0] * 600_000)}, TOLERATED),
    lying(
        "geo_keys_cut",
        "65,535 keys claimed, one there",
        {**PLACED, GEO_KEYS: _geo((1024, 0, 1, 1), count=65535)},
        TOLERATED,
    ),
    lying("geo_keys_odd", "a key directory of 5 numbers", {**PLACED, GEO_KEYS: short(1, 1, 0, 9, 7)}, TOLERATED),
    lying(
        "geo_code_unknown",
        "a reference system that nobody knows",
        {**PLACED, GEO_KEYS: _geo((1024, 0, 1, 1), (3072, 0, 1, 65000))},
        TOLERATED,
    ),
    lying(
        "geo_texts_far",
        "a key's text is behind the texts",
        {**PLACED, GEO_KEYS: _geo((1026, 34737, 60000, 60000)), GEO_TEXTS: text("a|")},
        TOLERATED,
    ),
    lying(
        "geo_doubles_far",
        "a key's number is behind the numbers",
        {**PLACED, GEO_KEYS: _geo((2057, 34736, 1, 60000)), GEO_DOUBLES: double(1)},
        TOLERATED,
    ),
    lying(
        "geo_text_absurd",
        "a megabyte of brackets for a reference system",
        {**PLACED, GEO_KEYS: _geo((1024, 0, 1, 1), (3073, 34737, 65535, 0)), GEO_TEXTS: text("PROJCS[" * (1 << 17))},
        TOLERATED,
    ),
    lying(
        "geo_text_bytes",
        "a reference system in no known encoding",
        {
            **PLACED,
            GEO_KEYS: _geo((1024, 0, 1, 1), (3072, 0, 1, 32767), (3073, 34737, 6, 0)),
            GEO_TEXTS: text(b"\xff\xfe\x80|\xe9\xe8"),
        },
        TOLERATED,
    ),
    lying(
        "xml_entities",
        "entities that expand to 10^12 letters",
        {
            METADATA: text(
                f'<!DOCTYPE x [<!ENTITY a0 "ha">{LAUGHS}]><GDALMetadata><Item name="x">&a12;</Item></GDALMetadata>'
            )
        },
        TOLERATED,
    ),
    lying(
        "xml_file",
        "an entity that is a file of this machine",
        {
            METADATA: text(
                '<!DOCTYPE x [<!ENTITY a SYSTEM "/etc/passwd">]><GDALMetadata><Item name="x">&a;</Item></GDALMetadata>'
            )
        },
        TOLERATED,
    ),
    lying("xml_deep", "200,000 elements, each within the one before", {METADATA: _xml("<a>" * 200_000)}, TOLERATED),
    lying(
        "xml_wide",
        "5,000 items: GDAL takes time by the square of their number",
        {METADATA: _xml("".join(f'<Item name="{i}">x</Item>' for i in range(5_000)))},
        TOLERATED,
    ),
    lying("xml_open", "elements that never end", {METADATA: text('<GDALMetadata><Item name="x')}, TOLERATED),
    lying(
        "xml_bytes",
        "items in no known encoding",
        {METADATA: text(b'<GDALMetadata><Item name="x">\xff\xfe</Item></GDALMetadata>')},
        TOLERATED,
    ),
    lying(
        "xml_description_bytes",
        "a band's name in no known encoding",
        {
            METADATA: text(
                b'<GDALMetadata><Item name="N" sample="0" role="description">\xff\xfe\x80</Item></GDALMetadata>'
            )
        },
        TOLERATED,
    ),
    lying(
        "xml_description_long",
        "a band's name is a megabyte",
        {METADATA: _xml(f'<Item name="DESCRIPTION" sample="0" role="description">{"r" * (1 << 20)}</Item>')},
        TOLERATED,
    ),
    lying(
        "xml_sample_far",
        "an item of band 2^31 - 1",
        {METADATA: _xml('<Item name="x" sample="2147483647" role="scale">1e999</Item>')},
        TOLERATED,
    ),
    lying(
        "xml_scale_nan",
        "a scale that is no number",
        {METADATA: _xml('<Item name="SCALE" sample="0" role="scale">nan</Item>')},
        TOLERATED,
    ),
    lying(
        "xml_chip_size",
        "chips of 10^40 pixels by the mosaic's tag",
        {METADATA: _xml(f'<Item name="FEDSENSE_CHIP_SIZE">{"9" * 40}</Item>')},
        TOLERATED,
    ),
    lying(
        "xml_chip_size_odd",
        "a mosaic of chips of 7 pixels",
        {METADATA: _xml('<Item name="FEDSENSE_CHIP_SIZE">7</Item>')},
    ),
    lying("reference_nan", "black and white are NaN", {REFERENCE: Field(FLOAT, [float("nan")] * 6)}, TOLERATED),
]


def _second(lies: dict[int, Field | None], **shape: Any) -> bytes:
    return tiff(page(), page(lies, **shape))


def _giant_mask() -> bytes:
    sides = {322: long(46336), 323: long(46336)}
    return tiff(page(), page({**MASK, **sides}, tile=64, bands=1))


MASK = {SUBFILE: long(4), PHOTOMETRIC: short(4), BITS: short(1), SAMPLE_FORMAT: None}

PAGES = [
    file("mask_smaller", "a mask of other sides than its image", lambda: _second(MASK, side=16, bands=1), TOLERATED),
    file(
        "mask_larger",
        "a mask that claims 30,000 x 30,000 pixels",
        lambda: _second({**MASK, WIDTH: long(30000), HEIGHT: long(30000)}, bands=1),
        TOLERATED,
    ),
    file("mask_giant_tile", "a mask of the right sides in one tile of 2.2 GB", _giant_mask),
    file(
        "mask_absent",
        "a mask whose bits are nowhere",
        lambda: _second({**MASK, 273: long(1 << 30)}, bands=1),
        TOLERATED,
    ),
    file(
        "mask_of_nothing",
        "a mask that leaves no pixel",
        lambda: _second({**MASK, COMPRESSION: short(1)}, bands=1, blocks=[bytes(64 * 64)]),
    ),
    file("overview_larger", "an overview larger than its image", lambda: _second({SUBFILE: long(1)}, side=128), READ),
    file(
        "overview_huge",
        "an overview that claims terapixels",
        lambda: _second({SUBFILE: long(1), WIDTH: long(1 << 20), HEIGHT: long(1 << 20)}),
        READ,
    ),
    file("overview_broken", "an overview whose directory is noise", lambda: tiff(page(), then=4), READ),
    file(
        "sub_pages_far",
        "parts of the page lie behind the end",
        lambda: tiff(page({SUB_IFD: long(1 << 30, 1 << 31)})),
        READ,
    ),
]
