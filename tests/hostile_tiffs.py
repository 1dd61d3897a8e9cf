"""Crafted TIFFs: directories that lie. Each has a name, the reason why it is here, and what shall
become of it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tiff_writer import (
    BITS,
    COMPRESSION,
    DATE,
    EXTRA,
    HEIGHT,
    LONG,
    LONG8,
    METADATA,
    NODATA,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    RATIONAL,
    ROWS,
    SAMPLE_FORMAT,
    SAMPLES,
    STRIP_COUNTS,
    STRIP_OFFSETS,
    SUB_IFD,
    SUBFILE,
    SUBSAMPLING,
    TILE_COUNTS,
    TILE_HEIGHT,
    TILE_OFFSETS,
    TILE_WIDTH,
    UNDEFINED,
    WIDTH,
    Field,
    Page,
    double,
    long,
    page,
    pixels,
    short,
    text,
    tiff,
)

SKIPPED, READ, STOPPED, UNLISTED, TOLERATED = "skipped", "read", "stopped", "unlisted", "tolerated"
"""What shall become of a file: it is named and left out; it is right imagery in spite of its
oddity; it contradicts the sensor card, which ends the site by design; it is no file to begin with;
or GDAL makes harmless numbers of it, perhaps wrong ones, or refuses it, as its version likes: only
a digest list tells such a file from a good one."""


@dataclass(frozen=True)
class Hostile:
    """One crafted case: a folder with a file in it, or with something that looks like one."""

    name: str
    why: str
    make: Callable[[Path], None]
    """Puts it into an empty folder."""
    outcome: str = SKIPPED


def file(name: str, why: str, content: Callable[[], bytes], outcome: str = SKIPPED, suffix: str = ".tif") -> Hostile:
    """Return the case of one file of that content."""
    return Hostile(name, why, lambda folder: (folder / f"x{suffix}").write_bytes(content()) and None, outcome)


def lying(name: str, why: str, lies: dict[int, Field | None], outcome: str = SKIPPED, **shape: int) -> Hostile:
    """Return the case of a TIFF that would be right but for some entries of its directory."""
    return file(name, why, lambda: tiff(page(lies, **shape)), outcome)


def _many_pages(count: int) -> bytes:
    return tiff(*[page()] * count)


def _sub_pages() -> bytes:
    """Return a page whose sub-directory is the page itself."""
    whole = tiff(page())
    return tiff(page({SUB_IFD: long(struct.unpack_from("<I", whole, 4)[0])}))


def _all_transparent() -> bytes:
    return tiff(page({PHOTOMETRIC: short(2), EXTRA: short(2)}, bands=4, blocks=[b"\x07\x08\x09\0" * 64 * 64]))


def _small_giant() -> bytes:
    """Return one tile of 27,000 x 27,000 pixels that is not there."""
    sides = {tag: long(27008) for tag in (WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT)}
    return tiff(page({**sides, TILE_OFFSETS: long(0), TILE_COUNTS: long(0)}, tile=64, blocks=[b""]))


def _sparse(side: int, tile: int = 256) -> bytes:
    """Return tables of tiles of which only the first entry is there, by claim."""
    count = (side // tile) ** 2
    tables = {TILE_OFFSETS: Field(LONG, [0], count=count, at=0), TILE_COUNTS: Field(LONG, [0], count=count, at=0)}
    tiles = {TILE_WIDTH: long(tile), TILE_HEIGHT: long(tile)}
    return tiff(page({WIDTH: long(side), HEIGHT: long(side), **tiles, **tables}, tile=64))


BIG, NEGATIVE = 0x7FFFFFFF, 0xFFFFFFFF

STRUCTURES = [
    file("empty", "no bytes at all", lambda: b""),
    file("two_bytes", "the byte order and nothing more", lambda: b"II"),
    file("header_only", "points at a directory past the end", lambda: b"II*\0\x08\0\0\0"),
    file("half_header", "the header breaks off", lambda: b"II*\0\x08"),
    file("wrong_version", "43 in the classic layout", lambda: b"II+\0" + tiff(page())[4:]),
    file("unknown_version", "no TIFF has this number", lambda: b"II\x2c\0" + tiff(page())[4:]),
    file("order_swapped", "says big-endian, is little-endian", lambda: b"MM\0*" + tiff(page())[4:]),
    file("directory_at_zero", "the first directory is the header", lambda: b"II*\0\0\0\0\0" + tiff(page())[8:]),
    file("directory_at_end", "the first directory is far outside", lambda: b"II*\0\xf0\xff\xff\xff" + tiff(page())[8:]),
    file("directory_cut", "breaks off within the directory", lambda: tiff(page())[:-20]),
    file(
        "pixels_missing",
        "the directory is first, the pixels were cut off",
        lambda: tiff(page({STRIP_OFFSETS: long(1 << 20)})),
    ),
    file("no_entries", "a directory of no entries", lambda: tiff(Page({}))),
    file("many_entries", "65,535 entries claimed, none there", lambda: b"II*\0\x08\0\0\0\xff\xff"),
    file("loop", "the only page is followed by itself", lambda: tiff(page(), then=-1), READ),
    file("long_loop", "the third page is followed by the first", lambda: tiff(page(), page(), page(), then=-1)),
    file("many_pages", "2,000 pages, of which the first is imagery", lambda: _many_pages(2000)),
    file("sub_page_loop", "a page that is part of itself", _sub_pages, READ),
    file("big_header_cut", "BigTIFF whose header breaks off", lambda: tiff(page(), big=True)[:12]),
    file("big_offset_size", "BigTIFF with offsets of 9 bytes", lambda: b"II+\0\x09\0" + tiff(page(), big=True)[6:]),
    file("big_directory_far", "BigTIFF whose directory is at 2^63", lambda: b"II+\0\x08\0\0\0" + b"\0" * 7 + b"\x80"),
    file(
        "big_entries", "2^64 - 1 entries claimed", lambda: b"II+\0\x08\0\0\0\x10" + bytes(7) + b"\xff" * 8 + bytes(64)
    ),
    file("big_endian", "big-endian BigTIFF: rare, and right", lambda: tiff(page(), order=">", big=True), READ),
    file("appended", "a megabyte of noise behind a right file", lambda: tiff(page(), tail=pixels() * 85), READ),
]

SIZES = [
    lying("width_zero", "no columns", {WIDTH: long(0)}),
    lying("height_zero", "no rows", {HEIGHT: long(0)}),
    lying("width_missing", "no width at all", {WIDTH: None}),
    lying("width_negative", "2^32 - 1 columns", {WIDTH: long(NEGATIVE)}),
    lying("both_huge", "2^31 - 1 squared: 4.6e18 pixels", {WIDTH: long(BIG), HEIGHT: long(BIG), ROWS: long(1)}),
    lying("product_wraps", "65,536 squared is 0 in 32 bits", {WIDTH: long(65536), HEIGHT: long(65536)}),
    lying("tall_strip", "one strip of 2^31 - 1 rows", {HEIGHT: long(BIG), ROWS: long(BIG)}),
    lying("wide_row", "one row of 2^31 - 1 columns", {WIDTH: long(BIG), HEIGHT: long(1), ROWS: long(1)}),
    lying("rows_zero", "strips of no rows", {ROWS: long(0)}),
    lying("rows_missing", "one strip by the standard's default", {ROWS: None}, TOLERATED),
    lying("rows_huge", "more rows a strip than the image has", {ROWS: long(NEGATIVE)}, TOLERATED),
    lying("rows_one", "64 strips by one entry, one strip by the table", {ROWS: long(1)}, TOLERATED),
    lying(
        "tile_huge",
        "one tile of 2.2 GB in a file of 12 kB",
        {TILE_WIDTH: long(46336), TILE_HEIGHT: long(46336)},
        tile=64,
    ),
    lying(
        "tile_wraps",
        "a tile whose bytes wrap around 32 bits",
        {TILE_WIDTH: long(65536), TILE_HEIGHT: long(65536)},
        tile=64,
    ),
    lying("tile_negative", "a tile of 2^32 - 16 columns", {TILE_WIDTH: long(NEGATIVE - 15)}, tile=64),
    lying("tile_line", "a tile of 16 x 2^31 - 16", {TILE_WIDTH: long(16), TILE_HEIGHT: long(BIG - 15)}, tile=64),
    lying("tile_zero", "a tile of no columns", {TILE_WIDTH: long(0)}, tile=64),
    lying("tile_odd", "a tile side that is no multiple of 16", {TILE_WIDTH: long(17)}, TOLERATED, tile=64),
    lying("tile_height_missing", "half a tile size", {TILE_HEIGHT: None}, tile=64),
    lying(
        "both_strips_and_tiles",
        "strips by some entries, tiles by others",
        {TILE_WIDTH: long(32), TILE_HEIGHT: long(32)},
        TOLERATED,
    ),
    file("gigabyte_tile", "252 bytes that claim one 2.2 GB block", _small_giant),
    file(
        "sparse_terabytes", "a directory of a few bytes that claims terabytes of absent tiles", lambda: _sparse(1 << 20)
    ),
    file("sparse_within", "absent tiles of a plausible size, much more than the file has", lambda: _sparse(8192)),
    file("sparse_many", "four million absent tiles of 16 x 16 pixels", lambda: _sparse(32768, 16)),
]


BANDS = [
    lying("bands_zero", "no samples", {SAMPLES: short(0)}),
    lying("bands_65535", "65,535 bands claimed", {SAMPLES: short(65535), BITS: short(8)}, STOPPED),
    lying("bands_four", "one band more than the card has", {}, STOPPED, bands=4),
    lying("bands_one", "two bands fewer than the card has", {}, STOPPED, bands=1),
    lying("bands_two_types", "8, 16 and 32 bits in one file", {BITS: short(8, 16, 32)}),
    *[lying(f"bits_{n}", f"samples of {n} bits", {BITS: short(n, n, n)}) for n in (0, 12, 24, 64, 128, 65535)],
    *[
        lying(f"bits_{n}_too_few", f"samples of {n} bits, read as bytes", {BITS: short(n, n, n)}, TOLERATED)
        for n in (1, 2, 4, 7)
    ],
    lying("bits_missing", "one bit by the standard's default", {BITS: None}, TOLERATED),
    lying("int64", "integers of 64 bits", {BITS: short(64, 64, 64), SAMPLE_FORMAT: short(2, 2, 2)}),
    lying("double", "floats of 64 bits", {BITS: short(64, 64, 64), SAMPLE_FORMAT: short(3, 3, 3)}),
    lying("half", "floats of 16 bits", {BITS: short(16, 16, 16), SAMPLE_FORMAT: short(3, 3, 3)}),
    lying("complex_integers", "pairs of 16-bit integers", {BITS: short(32, 32, 32), SAMPLE_FORMAT: short(5, 5, 5)}),
    lying("complex_floats", "pairs of floats", {BITS: short(64, 64, 64), SAMPLE_FORMAT: short(6, 6, 6)}),
    lying(
        "format_undefined", "samples of no declared kind count as integers", {SAMPLE_FORMAT: short(4, 4, 4)}, TOLERATED
    ),
    lying("format_unknown", "kind 99 of sample", {SAMPLE_FORMAT: short(99, 99, 99)}),
    lying("formats_mixed", "integers and floats in one file", {SAMPLE_FORMAT: short(1, 3, 2)}),
    lying("planar_zero", "neither interleaved nor planar", {PLANAR: short(0)}),
    lying("planar_of_one_strip", "three planes, but one strip", {PLANAR: short(2)}, TOLERATED),
    lying("palette_without_colours", "indexes into a table that is not there", {PHOTOMETRIC: short(3)}, TOLERATED),
    lying(
        "photometric_unknown", "colours of an unknown kind are still samples", {PHOTOMETRIC: short(60000)}, TOLERATED
    ),
    lying("photometric_missing", "colours of no declared kind are still samples", {PHOTOMETRIC: None}, READ),
    lying("cielab", "not red, green and blue, but the card says so", {PHOTOMETRIC: short(8)}, TOLERATED),
    lying("ycbcr_plain", "luma and chroma that are not compressed", {PHOTOMETRIC: short(6)}, TOLERATED),
    lying("ycbcr_zero", "subsampled by 0", {PHOTOMETRIC: short(6), SUBSAMPLING: short(0, 0)}),
    lying("extra_too_many", "more extra samples than samples", {EXTRA: short(*[1] * 200)}, TOLERATED),
    lying(
        "alpha_of_three",
        "the third of the card's three bands is called alpha",
        {PHOTOMETRIC: short(1), EXTRA: short(0, 2)},
        READ,
    ),
    file("alpha_besides", "an alpha band besides the card's that is nowhere opaque", _all_transparent),
]

TABLES = [
    lying("offset_past_end", "the strip lies behind the end", {STRIP_OFFSETS: long(1 << 30)}),
    lying("offset_wraps", "the strip begins at 2^32 - 1", {STRIP_OFFSETS: long(NEGATIVE)}),
    lying(
        "offset_zero",
        "the strip is absent, so it reads as zeros",
        {STRIP_OFFSETS: long(0), STRIP_COUNTS: long(0)},
        TOLERATED,
    ),
    lying("count_zero", "a strip of no bytes", {STRIP_COUNTS: long(0)}, TOLERATED),
    lying("count_short", "a strip of half its bytes", {STRIP_COUNTS: long(6144)}, TOLERATED),
    lying("count_huge", "a strip of 4 GB", {STRIP_COUNTS: long(NEGATIVE)}, TOLERATED),
    lying("counts_missing", "a strip of unknown length", {STRIP_COUNTS: None}, TOLERATED),
    lying("offsets_missing", "strips that are nowhere", {STRIP_OFFSETS: None}),
    lying("offsets_of_floats", "offsets are floats", {STRIP_OFFSETS: double(8.0)}, TOLERATED),
    lying("offsets_are_text", "offsets are a text", {STRIP_OFFSETS: text("here")}, TOLERATED),
    lying(
        "table_past_end",
        "the table of offsets lies behind the end",
        {TILE_OFFSETS: Field(LONG, [0] * 4, at=1 << 30)},
        TOLERATED,
        tile=32,
    ),
    lying(
        "table_huge", "a table of 2^31 offsets", {TILE_OFFSETS: Field(LONG, [0] * 4, count=1 << 31)}, TOLERATED, tile=32
    ),
    lying(
        "table_wraps",
        "a table of 2^30 offsets of 8 bytes",
        {TILE_OFFSETS: Field(LONG8, [0] * 4, count=1 << 30)},
        TOLERATED,
        tile=32,
    ),
    lying(
        "table_short", "one offset for four tiles", {TILE_OFFSETS: long(8), TILE_COUNTS: long(3072)}, TOLERATED, tile=32
    ),
    lying("overlapping", "four tiles on the same bytes", {TILE_OFFSETS: long(8, 8, 8, 8)}, READ, tile=32),
    lying("tile_in_header", "a tile that is the header", {TILE_OFFSETS: long(0, 1, 2, 3)}, TOLERATED, tile=32),
    lying("width_is_text", "the width is a text", {WIDTH: text("64")}),
    lying("width_is_fraction", "the width is a fraction", {WIDTH: Field(RATIONAL, [64])}),
    lying("width_twice", "two widths", {WIDTH: long(64, 4096)}, TOLERATED),
    lying("width_of_none", "a width of no values", {WIDTH: Field(LONG, [], count=0)}),
    lying("kind_unknown", "a field of type 99, which is ignored", {DATE: Field(99, b"abcdefgh")}, TOLERATED),
    lying("predictor_unknown", "predictor 77 without compression is never used", {PREDICTOR: short(77)}, TOLERATED),
    lying("text_without_end", "a text without an end mark", {DATE: Field(2, b"2020:01:01 00:00:00")}, READ),
    lying("text_huge", "a text of 2^31 bytes is not there", {DATE: Field(2, b"2020:01:01", count=1 << 31)}, TOLERATED),
    lying("text_not_utf8", "a text in no encoding that is known", {DATE: text(b"\xff\xfe\x80caf\xe9")}, READ),
    lying("undefined_blob", "a megabyte in an unknown field", {65000: Field(UNDEFINED, bytes(1 << 20))}, TOLERATED),
    lying("compression_unknown", "scheme 65,000", {COMPRESSION: short(65000)}),
    lying("overview_first", "the first page says that it is an overview", {SUBFILE: long(1)}, TOLERATED),
    lying("nodata_field_of_numbers", "nodata is a number, not a text", {NODATA: short(7)}, TOLERATED),
    lying("metadata_field_of_numbers", "metadata are numbers, not a text", {METADATA: long(1, 2, 3)}, TOLERATED),
]
