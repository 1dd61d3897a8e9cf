"""Small JPEG 2000 files as Sentinel-2 products hold them, and lies about them.

A band of a product is one component of 15 bits in unsigned 16, lossless, in tiles, with GMLJP2
georeference (S2-PDGS-TAS-DI-PSD 14.9, section 3.8).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

SIZ = b"\xff\x4f\xff\x51"
_FIELDS = {"x1": 8, "y1": 12, "x0": 16, "y0": 20, "tile_width": 24, "tile_height": 28}
"""Offsets from the start of the codestream, ITU-T T.800, A.5.1."""


def jpeg2000(image: np.ndarray[Any, Any], tile: int = 64, metres: float = 10, **options: Any) -> bytes:
    """Return an image (bands, height, width) as a lossless JP2 file."""
    bands, height, width = image.shape
    profile: dict[str, Any] = {"driver": "JP2OpenJPEG", "count": bands, "height": height, "width": width}
    profile |= {"dtype": image.dtype, "crs": "EPSG:32632", "transform": from_origin(5e5, 5e6, metres, metres)}
    profile |= {"QUALITY": "100", "REVERSIBLE": "YES", "YCBCR420": "NO", "YCC": "NO"}
    profile |= {"tiled": True, "blockxsize": tile, "blockysize": tile, "GeoJP2": "NO", "GMLJP2": "YES"}
    profile |= {"NBITS": 15} if image.dtype == np.uint16 else {}
    with MemoryFile(ext=".jp2") as memory:
        with memory.open(**(profile | options)) as out:
            out.write(image)
        return bytes(memory.read())


def write_jpeg2000(path: Path, image: np.ndarray[Any, Any], **options: Any) -> Path:
    """Write an image as `jpeg2000` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg2000(image, **options))
    return path


def lying(data: bytes, **fields: int) -> bytes:
    """Return a file whose SIZ marker claims other numbers."""
    changed, start = bytearray(data), data.index(SIZ)
    for name, value in fields.items():
        struct.pack_into(">I", changed, start + _FIELDS[name], value)
    return bytes(changed)


def tile_parts(data: bytes) -> tuple[list[int], int]:
    """Return where each tile-part of a file begins, and where the last one ends (A.4.2)."""
    place, found = data.index(b"\xff\x90", data.index(SIZ)), []
    while data[place : place + 2] == b"\xff\x90":
        found.append(place)
        place += struct.unpack_from(">I", data, place + 6)[0]
    return found, place
