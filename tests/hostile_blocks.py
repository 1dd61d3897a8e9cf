"""Crafted TIFFs: blocks that expand to more or to less than they claim, or that are no blocks of
their scheme."""

from __future__ import annotations

import functools
import struct
import zlib
from typing import Any

import numpy as np
from hostile_files import picture
from hostile_tiffs import READ, TOLERATED, file, lying
from rasterio.io import MemoryFile
from tiff_writer import (
    BITS,
    COMPRESSION,
    HEIGHT,
    JPEG_TABLES,
    PHOTOMETRIC,
    PREDICTOR,
    SUBSAMPLING,
    TILE_COUNTS,
    TILE_OFFSETS,
    UNDEFINED,
    WIDTH,
    Field,
    long,
    page,
    short,
    tiff,
)

LZW, OLD_JPEG, JPEG, DEFLATE, PACKBITS, LERC, ZSTD, WEBP = 5, 6, 7, 8, 32773, 34887, 50000, 50001
SCHEMES = {"lzw": LZW, "deflate": DEFLATE, "zstd": ZSTD, "lerc": LERC, "webp": WEBP}


def _written(image: np.ndarray[Any, Any], **profile: Any) -> bytes:
    """Return the TIFF that GDAL makes of ``image`` (bands, height, width)."""
    bands, height, width = image.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": image.dtype, "interleave": "pixel"}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", **(shape | profile)) as out:
            out.write(image)
        return bytes(memory.read())


@functools.cache
def _block(scheme: str, side: int) -> bytes:
    """Return one compressed tile of ``side`` x ``side`` pixels, 3 bands, of nearly one value: it
    expands a lot."""
    image = np.full((3, side, side), 7, "uint8")
    image[:, 0, 0] = 1
    data = _written(image, tiled=True, blockxsize=side, blockysize=side, compress=scheme, photometric="rgb")
    with MemoryFile(data) as memory, memory.open() as out:
        start, size = (int(out.get_tag_item(f"BLOCK_{what}_0_0", "TIFF", 1)) for what in ("OFFSET", "SIZE"))
    return data[start : start + size]


def _bomb(scheme: str) -> bytes:
    """Return a tile of 64 x 64 pixels by claim, whose bytes expand to 1024 x 1024."""
    return tiff(page({COMPRESSION: short(SCHEMES[scheme])}, tile=64, blocks=[_block(scheme, 1024)]))


def _short(scheme: str) -> bytes:
    """Return a tile of 64 x 64 pixels by claim, whose bytes hold 16 x 16."""
    return tiff(page({COMPRESSION: short(SCHEMES[scheme])}, tile=64, blocks=[_block(scheme, 16)]))


def _noise(number: int) -> bytes:
    return tiff(page({COMPRESSION: short(number)}))


def _deep_bomb() -> bytes:
    """Return deflate that expands to 64 MB, a thousand times its size."""
    return tiff(page({COMPRESSION: short(DEFLATE)}, tile=64, blocks=[zlib.compress(bytes(64 << 20), 1)]))


def _jpeg(lies: dict[int, Field | None], cut: int | None = None) -> bytes:
    """Return a tile that is a whole JPEG stream, with its own tables."""
    whole = picture("JPEG")[:cut]
    return tiff(
        page(
            {COMPRESSION: short(JPEG), PHOTOMETRIC: short(6), SUBSAMPLING: short(2, 2), **lies}, tile=64, blocks=[whole]
        )
    )


def _tiled_claim(scheme: str, side: int) -> bytes:
    """Return tables of tiles that all lie on the same few bytes: megabytes of tables that claim
    gigabytes."""
    tiles = (side // 256) ** 2
    block = _block(scheme, 256)
    tables = {TILE_OFFSETS: long(*[8] * tiles), TILE_COUNTS: long(*[len(block)] * tiles)}
    sides = {WIDTH: long(side), HEIGHT: long(side), COMPRESSION: short(SCHEMES[scheme])}
    return tiff(page({**sides, **tables}, tile=256, blocks=[block]))


def _packbits(block: bytes) -> bytes:
    return tiff(page({COMPRESSION: short(PACKBITS)}, blocks=[block]))


def _jpeg_claim() -> bytes:
    whole = bytearray(picture("JPEG"))
    start = whole.index(b"\xff\xc0")  # the frame's header: length, precision, height, width
    whole[start + 5 : start + 9] = struct.pack(">HH", 65500, 65500)
    return tiff(page({COMPRESSION: short(JPEG)}, tile=64, blocks=[bytes(whole)]))


def _jpeg_scans(count: int) -> bytes:
    """Return a JPEG that repeats the same empty refinement, each of which goes over the whole
    image."""
    frame = b"\xff\xc2" + struct.pack(">HBHHB", 17, 8, 64, 64, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    tables = b"\xff\xdb\0\x43\0" + b"\1" * 64 + b"\xff\xc4\0\x14\0" + b"\1" + b"\0" * 15 + b"\0"
    scan = b"\xff\xda\0\x0c\3\1\0\2\0\3\0\0\0\0" + b"\0" * 24
    return tiff(
        page({COMPRESSION: short(JPEG)}, tile=64, blocks=[b"\xff\xd8" + tables + frame + scan * count + b"\xff\xd9"])
    )


def _old_jpeg() -> bytes:
    stream = {513: long(0), 514: long(1 << 30), 512: short(1), PHOTOMETRIC: short(6)}
    return tiff(page({COMPRESSION: short(OLD_JPEG), **stream}))


BLOCKS = [
    *[
        file(f"bomb_{n}", f"{n} that expands to 3 MB in a tile of 12 kB", lambda n=n: _bomb(n), TOLERATED)
        for n in SCHEMES
    ],
    file("bomb_deflate_64", "deflate that expands a thousandfold", _deep_bomb, TOLERATED),
    file("bomb_packbits", "PackBits that never ends", lambda: _packbits(b"\x81\x07" * 500_000), TOLERATED),
    *[file(f"short_{n}", f"{n} that expands to less than the tile", lambda n=n: _short(n)) for n in SCHEMES],
    file("short_packbits", "PackBits that ends in the middle of a run", lambda: _packbits(b"\x81\x07\x7f")),
    *[
        file(f"noise_{n}", f"bytes that are no {why}", lambda n=n: _noise(n))
        for n, why in {
            2: "fax",
            3: "fax",
            4: "fax",
            LZW: "LZW",
            OLD_JPEG: "JPEG of the old kind",
            JPEG: "JPEG",
            DEFLATE: "deflate",
            32766: "NeXT picture",
            32809: "ThunderScan",
            32909: "PixarLog",
            34676: "SGI log",
            34677: "SGI log",
            34712: "JPEG 2000",
            34887: "LERC",
            34925: "LZMA",
            ZSTD: "ZSTD",
            WEBP: "WebP",
            50002: "JPEG XL",
        }.items()
    ],
    file(
        "same_bytes_1024", "a thousand tiles on the same bytes, far beyond the file", lambda: _tiled_claim("zstd", 8192)
    ),
    file("jpeg_right", "JPEG in a tile: the pattern of those below", lambda: _jpeg({}), READ),
    file("jpeg_cut", "JPEG that breaks off", lambda: _jpeg({}, 100)),
    file(
        "jpeg_larger",
        "a JPEG of other sides than its tile",
        lambda: tiff(page({COMPRESSION: short(JPEG)}, tile=64, blocks=[picture("JPEG", 128)])),
        TOLERATED,
    ),
    file("jpeg_huge", "a JPEG in a tile that claims 65,500 x 65,500 pixels", _jpeg_claim),
    file(
        "jpeg_tables_noise", "tables that are none", lambda: _jpeg({JPEG_TABLES: Field(UNDEFINED, bytes(range(200)))})
    ),
    file(
        "jpeg_tables_empty",
        "tables of no bytes",
        lambda: _jpeg({JPEG_TABLES: Field(UNDEFINED, b"", count=0)}),
        TOLERATED,
    ),
    file(
        "jpeg_subsampled",
        "chroma is subsampled 16 times by claim",
        lambda: _jpeg({PHOTOMETRIC: short(6), SUBSAMPLING: short(16, 16)}),
    ),
    file("jpeg_of_words", "JPEG of 16-bit samples", lambda: _jpeg({BITS: short(16, 16, 16)})),
    file("jpeg_scans", "a progressive JPEG of thousands of scans", lambda: _jpeg_scans(5000)),
    file("old_jpeg_loop", "old JPEG whose stream is the file itself", _old_jpeg),
    lying(
        "predictor_of_packbits",
        "a predictor that the scheme does not know",
        {COMPRESSION: short(PACKBITS), PREDICTOR: short(2)},
        TOLERATED,
    ),
    lying(
        "predictor_float_of_bytes", "the floats' predictor on bytes", {COMPRESSION: short(DEFLATE), PREDICTOR: short(3)}
    ),
    lying("predictor_77", "an unknown predictor", {COMPRESSION: short(LZW), PREDICTOR: short(77)}),
]
