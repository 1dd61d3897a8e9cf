"""What a JPEG 2000 file claims, read before its library sees it.

The library sets memory aside for every tile that the header claims, and decodes 32-bit numbers of
all bands of a tile at once; a header of 100 bytes may claim gigabytes. The fields are those of the
SIZ marker segment, ISO/IEC 15444-1 (ITU-T T.800), A.5.1; boxes are in its annex I.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from fedsense_core.data.raster.formats import Unreadable
from fedsense_core.data.sites.limits import ReadLimits

_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_CODESTREAM = b"\xff\x4f\xff\x51"
"""Start of codestream, and the SIZ marker that must follow it."""
_MOST_BOXES = 256
"""Boxes before the codestream: a header, georeference, some metadata."""
_REWRITE = "rewrite it as a GeoTIFF: `gdal_translate -co TILED=YES -co COMPRESS=DEFLATE FILE NEW.tif`"
_FARTHEST = 1 << 40
_DECODED_BYTES = 4
"""Of one number of one band while it is decoded, whatever its type."""
_TILE_BYTES, _TILE_BAND_BYTES = 6 << 10, 1 << 10
"""What OpenJPEG sets aside for each claimed tile, and for each of its bands, when it opens a
file."""


@dataclass(frozen=True)
class Codestream:
    """The claims of a SIZ marker segment."""

    width: int
    height: int
    tile_width: int
    tile_height: int
    tiles: int
    bands: int
    same_size: bool
    """Whether no band is subsampled."""


def read_claims(file: BinaryIO) -> Codestream:
    """Return what a file's codestream claims. Raises Unreadable where there is none."""
    start = file.read(len(_SIGNATURE))
    if start == _SIGNATURE:
        _skip_to_codestream(file)
        start = file.read(4)
    else:
        file.seek(4)
    if start[:4] != _CODESTREAM:
        raise Unreadable("is no readable JPEG 2000 (it does not begin as one)")
    fixed = struct.Struct(">HH8IH")
    head = file.read(fixed.size)
    if len(head) < fixed.size:
        raise Unreadable("is no readable JPEG 2000 (it ends in its header)")
    _, _, x1, y1, x0, y0, tile_width, tile_height, tile_x0, tile_y0, bands = fixed.unpack(head)
    sampling = file.read(3 * bands)
    if len(sampling) < 3 * bands:
        raise Unreadable("is no readable JPEG 2000 (it ends in its header)")
    if not (x0 < x1 and y0 < y1 and tile_width and tile_height and tile_x0 <= x0 and tile_y0 <= y0 and bands):
        raise Unreadable("is no readable JPEG 2000 (its header claims impossible sides)")
    across, down = -(-(x1 - tile_x0) // tile_width), -(-(y1 - tile_y0) // tile_height)
    return Codestream(
        width=x1 - x0,
        height=y1 - y0,
        tile_width=min(tile_width, x1 - tile_x0),
        tile_height=min(tile_height, y1 - tile_y0),
        tiles=across * down,
        bands=bands,
        same_size=all(steps == 1 for i in range(bands) for steps in sampling[3 * i + 1 : 3 * i + 3]),
    )


def check_codestream(file: BinaryIO, limits: ReadLimits) -> Codestream:
    """Return the claims of a file whose opening and decoding stays within the limits. Raises
    Unreadable for another one."""
    claims = read_claims(file)
    if not claims.same_size:
        raise Unreadable(
            "has bands of several sizes, as for YCbCr 4:2:0; convert it with `gdal_translate FILE NEW.tif`"
        )
    if claims.width * claims.height > limits.max_file_pixels:
        raise Unreadable(f"claims {claims.width} x {claims.height} pixels, more than {limits.max_file_pixels}")
    held = claims.tiles * (_TILE_BYTES + claims.bands * _TILE_BAND_BYTES)
    if held > limits.max_block_bytes:
        raise Unreadable(
            f"claims {claims.tiles} tiles of {claims.bands} bands, for which {held} bytes would be set aside, more "
            f"than {limits.max_block_bytes}; {_REWRITE}"
        )
    return claims


def check_blocks(claims: Codestream, block: tuple[int, int], stored: int, limits: ReadLimits) -> None:
    """Refuse a file of ``stored`` bytes whose blocks (rows, columns) cannot be decoded one by one
    within the limits.

    Raises Unreadable. Of a picture without tiles GDAL decodes the part of a block, but holds all
    the compressed data.
    """
    tile = (claims.tile_height, claims.tile_width)
    sides = f"{claims.tile_width} x {claims.tile_height}"
    if claims.tiles > 1 and block != tile:
        # GDAL decodes very small ones together, and those that are not there become zeros.
        raise Unreadable(f"has tiles of {sides} pixels, too small; {_REWRITE}")
    rows, columns = block
    needed = rows * columns * claims.bands * _DECODED_BYTES + (stored if claims.tiles == 1 else 0)
    if needed > limits.max_block_bytes:
        what = f"tiles of {sides} pixels" if claims.tiles > 1 else "no tiles"
        raise Unreadable(
            f"has {what}, and decoding takes {needed} bytes, more than {limits.max_block_bytes}; {_REWRITE}"
        )


def _skip_to_codestream(file: BinaryIO) -> None:
    """Leave the file where its first codestream box's contents begin. Raises Unreadable."""
    for _ in range(_MOST_BOXES):
        start = file.tell()
        head = file.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        if length == 1:
            head += file.read(8)
            length = struct.unpack(">Q", head[8:])[0] if len(head) == 16 else 0
        if kind == b"jp2c":
            return
        if not len(head) <= length < _FARTHEST:  # 0 means to the end of the file
            break
        file.seek(start + length)
    raise Unreadable("is no readable JPEG 2000 (it has no codestream)")
