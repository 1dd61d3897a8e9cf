"""TIFF files put together by hand, so that they can lie: any tag, any type, any count, any offset,
either byte order.

A library that writes only valid files cannot make the files that a reader must survive. Layout of
what `tiff` writes: header, then the blocks of all pages, then each page's values that do not fit
into its entries, then its directory (TIFF 6.0, sections 2 and 8; BigTIFF has 8-byte counts and
offsets).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

BYTE, ASCII, SHORT, LONG, RATIONAL, SBYTE, UNDEFINED, SSHORT, SLONG = range(1, 10)
FLOAT, DOUBLE, IFD, LONG8, SLONG8, IFD8 = 11, 12, 13, 16, 17, 18
"""Types of a field's values."""
LETTERS = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I", RATIONAL: "Q", SBYTE: "b", UNDEFINED: "B", SSHORT: "h"}
LETTERS |= {SLONG: "i", FLOAT: "f", DOUBLE: "d", IFD: "I", LONG8: "Q", SLONG8: "q", IFD8: "Q"}

SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS, STRIP_COUNTS, PLANAR = 273, 274, 277, 278, 279, 284
DATE, PREDICTOR, COLOUR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 306, 317, 320, 322, 323, 324, 325
SUB_IFD, EXTRA, SAMPLE_FORMAT, JPEG_TABLES, SUBSAMPLING, REFERENCE = 330, 338, 339, 347, 530, 532
PIXEL_SCALE, TIE_POINTS, TRANSFORM, GEO_KEYS, GEO_DOUBLES, GEO_TEXTS = 33550, 33922, 34264, 34735, 34736, 34737
METADATA, NODATA = 42112, 42113
"""Numbers of tags."""


@dataclass(frozen=True)
class Field:
    """One entry of a directory."""

    kind: int
    values: bytes | Sequence[float]
    count: int | None = None
    """What the entry claims, if not the number of ``values``."""
    at: int | None = None
    """Where in the file it claims that its values lie, if not where they do."""


@dataclass(frozen=True)
class Page:
    """One image: its directory and its strips or tiles."""

    fields: Mapping[int, Field]
    blocks: Sequence[bytes] = ()
    offsets_in: int = STRIP_OFFSETS
    counts_in: int = STRIP_COUNTS
    lies: Mapping[int, Field | None] = field(default_factory=dict)
    """Entries that replace the right ones; None leaves one out."""


def short(*values: int) -> Field:
    return Field(SHORT, values)


def long(*values: int) -> Field:
    return Field(LONG, values)


def double(*values: float) -> Field:
    return Field(DOUBLE, values)


def text(value: str | bytes) -> Field:
    """Return a text, with its end mark."""
    return Field(ASCII, (value.encode() if isinstance(value, str) else value) + b"\0")


def pixels(bands: int = 3, side: int = 64, dtype: str = "uint8") -> bytes:
    """Return the samples of an image, bands interleaved."""
    values = np.random.default_rng(side).integers(1, 250, (side, side, bands))
    return values.astype(np.dtype(dtype).newbyteorder("<")).tobytes()


def page(
    lies: Mapping[int, Field | None] | None = None,
    *,
    side: int = 64,
    bands: int = 3,
    bits: int = 8,
    tile: int | None = None,
    blocks: Sequence[bytes] | None = None,
) -> Page:
    """Return an image of ``side`` x ``side`` pixels, in one strip or in tiles of ``tile``, right
    but for ``lies``."""
    fields = {
        WIDTH: long(side),
        HEIGHT: long(side),
        BITS: short(*[bits] * bands),
        COMPRESSION: short(1),
        PHOTOMETRIC: short(2 if bands == 3 else 1),
        SAMPLES: short(bands),
        PLANAR: short(1),
    }
    if bands > 3:
        fields[EXTRA] = short(*[0] * (bands - 1))
    if tile is None:
        whole = [pixels(bands, side, f"uint{bits}")] if blocks is None else blocks
        return Page(fields | {ROWS: long(side)}, whole, lies=lies or {})
    tiles = [pixels(bands, tile, f"uint{bits}")] * (-(-side // tile)) ** 2 if blocks is None else blocks
    fields |= {TILE_WIDTH: long(tile), TILE_HEIGHT: long(tile)}
    return Page(fields, tiles, TILE_OFFSETS, TILE_COUNTS, lies or {})


def tiff(*pages: Page, order: str = "<", big: bool = False, then: int | None = None, tail: bytes = b"") -> bytes:
    """Return a file of these pages. The last one's link to a next page is ``then``; -1 leads back
    to the first."""
    word, head = ("Q", 16) if big else ("I", 8)
    body = bytearray(head)
    places = [_add_blocks(body, one.blocks) for one in pages]
    links: list[int] = []
    starts: list[int] = []
    for one, offsets in zip(pages, places, strict=True):
        right = {one.offsets_in: Field(LONG8 if big else LONG, offsets)} if offsets else {}
        right |= {one.counts_in: Field(LONG8 if big else LONG, [len(b) for b in one.blocks])} if offsets else {}
        wanted = {**one.fields, **right, **one.lies}
        entries = [_entry(body, tag, item, order, big) for tag, item in sorted(wanted.items()) if item is not None]
        body += b"\0" * (len(body) % 2)
        starts.append(len(body))
        body += struct.pack(order + ("Q" if big else "H"), len(entries)) + b"".join(entries)
        links.append(len(body))
        body += bytes(struct.calcsize(order + word))
    last = (starts[0] if then == -1 else then) or 0
    for link, target in zip(links, [*starts[1:], last], strict=True):
        struct.pack_into(order + word, body, link, target)
    mark = b"II" if order == "<" else b"MM"
    fixed = struct.pack(order + "HHH", 43, 8, 0) if big else struct.pack(order + "H", 42)
    body[:head] = mark + fixed + struct.pack(order + word, starts[0])
    return bytes(body) + tail


def _add_blocks(body: bytearray, blocks: Sequence[bytes]) -> list[int]:
    offsets = []
    for block in blocks:
        offsets.append(len(body))
        body += block
    body += b"\0" * (len(body) % 2)
    return offsets


def _entry(body: bytearray, tag: int, item: Field, order: str, big: bool) -> bytes:
    """Return one directory entry; values that do not fit into it go to the end of ``body``."""
    if isinstance(item.values, bytes):
        packed, number = item.values, len(item.values)
    else:
        packed = struct.pack(f"{order}{len(item.values)}{LETTERS[item.kind]}", *item.values)
        number = len(item.values)
    word, room = ("Q", 8) if big else ("I", 4)
    if len(packed) > room or item.at is not None:
        place = len(body) if item.at is None else item.at
        body += packed + b"\0" * (len(packed) % 2)
        packed = struct.pack(order + word, place)
    claimed = number if item.count is None else item.count
    return struct.pack(order + "HH" + word, tag, item.kind, claimed) + packed.ljust(room, b"\0")
