"""Good rasters, damaged at random as disks, transfers and enemies damage them. Seeded: the same
files every time."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile_files import picture
from jpeg2000_files import SIZ, jpeg2000
from rasterio.io import MemoryFile

Generator = np.random.Generator
SIDE = 64
INTERESTING = (0, 1, 2, 7, 8, 16, 255, 256, 32767, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
"""Numbers at which widths, offsets and counts go wrong."""
KINDS = (1, 2, 3, 4, 5, 7, 9, 11, 12, 13, 16, 18, 99)
"""Types of TIFF fields, and one that is none."""


def _geotiff(dtype: str, masked: bool = False, **profile: Any) -> bytes:
    """Return a GeoTIFF of 3 bands with smooth contents, as imagery has."""
    image = _smooth(dtype)
    shape = {"driver": "GTiff", "count": 3, "width": SIDE, "height": SIDE, "dtype": dtype, "crs": "EPSG:32632"}
    with MemoryFile() as memory:
        with memory.open(**(shape | profile)) as out:
            out.write(image)
            out.update_tags(AREA="somewhere")
            if masked:
                out.write_mask((np.indices((SIDE, SIDE)).sum(axis=0) > 4).astype("uint8") * 255)
        return bytes(memory.read())


def _smooth(dtype: str) -> np.ndarray[Any, Any]:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return np.stack([(x * (band + 1) + y * 2) % 240 + 5 for band in range(3)]).astype(dtype)


TILED = {"tiled": True, "blockxsize": 32, "blockysize": 32}


def originals() -> dict[str, tuple[str, bytes]]:
    """Return good files by name, each with its suffix."""
    return {
        "deflate": (".tif", _geotiff("uint16", compress="deflate", **TILED)),
        "lzw": (".tif", _geotiff("uint8", compress="lzw", predictor=2, blockysize=16)),
        "zstd": (".tif", _geotiff("float32", masked=True, compress="zstd", **TILED)),
        "big": (".tif", _geotiff("uint8", BIGTIFF="YES", nodata=6, **TILED)),
        "png": (".png", picture("PNG")),
        "jpeg": (".jpg", picture("JPEG")),
        "jp2": (".jp2", jpeg2000(_smooth("uint8"), tile=32)),
    }


def flip_bits(data: bytearray, random: Generator, _: bytes) -> None:
    for place in random.integers(0, len(data) * 8, random.integers(1, 9)):
        data[place // 8] ^= 1 << place % 8


def overwrite(data: bytearray, random: Generator, _: bytes) -> None:
    """Put a run of one byte, or of noise, anywhere."""
    start, length = random.integers(0, len(data)), int(random.integers(1, 65))
    run = random.bytes(length) if random.random() < 0.5 else bytes([random.choice([0, 255])]) * length
    data[start : start + length] = run[: len(data) - start]


def cut(data: bytearray, random: Generator, _: bytes) -> None:
    """Lose the end."""
    del data[random.integers(0, len(data)) :]


def remove(data: bytearray, random: Generator, _: bytes) -> None:
    """Lose a part, so that everything behind it moves."""
    start = random.integers(0, len(data))
    del data[start : start + random.integers(1, 257)]


def splice(data: bytearray, random: Generator, other: bytes) -> None:
    """Go on with another file from some place on."""
    data[random.integers(0, len(data)) :] = other[random.integers(0, len(other)) :]


def swap(data: bytearray, random: Generator, _: bytes) -> None:
    """Copy one part of the file over another one."""
    source, target = random.integers(0, len(data), 2)
    length = int(random.integers(1, 513))
    part = data[source : source + length]
    data[target : target + len(part)] = part[: len(data) - target]


def lie(data: bytearray, random: Generator, _: bytes) -> None:
    """Change one number of a header: a TIFF directory's entry, or a word at the beginning of
    another format."""
    if data[:2] == b"II":
        places = _entries(data)
        place, size = places[random.integers(len(places))]
        what = random.integers(4)
        if what == 0:
            struct.pack_into("<H", data, place + 2, random.choice(KINDS))
        else:
            start = place + (4 if what == 1 else 4 + (size - 4) // 2)
            _put(data, start, "<", random)
    elif SIZ in data:
        # The first 80 bytes of the codestream hold sides, tiles, bands and how they are coded.
        _put(data, data.index(SIZ) + int(random.integers(4, 80)), ">", random)
    else:
        _put(data, int(random.integers(2, 40)), ">", random)


def _put(data: bytearray, place: int, order: str, random: Generator) -> None:
    word = random.choice(["H", "I"])
    number = int(random.choice(INTERESTING)) if random.random() < 0.7 else int(random.integers(1 << 16))
    struct.pack_into(order + word, data, place, number % (1 << 8 * struct.calcsize(word)))


def _entries(data: bytearray) -> list[tuple[int, int]]:
    """Return place and size of each entry in every directory of a right little-endian TIFF."""
    big = data[2] == 43
    link, word, count_word, size = (8, "<Q", "<Q", 20) if big else (4, "<I", "<H", 12)
    found = []
    while start := struct.unpack_from(word, data, link)[0]:
        first = start + struct.calcsize(count_word)
        count = struct.unpack_from(count_word, data, start)[0]
        found += [(first + i * size, size) for i in range(count)]
        link = first + count * size
    return found


MUTATIONS: tuple[Callable[[bytearray, Generator, bytes], None], ...]
MUTATIONS = (flip_bits, overwrite, cut, remove, splice, swap, lie, lie)
"""Lies are the likeliest to get far, so there are twice as many."""


def seal(data: bytes) -> bytes:
    """Return a PNG whose parts carry right checksums again: anybody can compute them."""
    parts, place = [data[:8]], 8
    while place + 12 <= len(data):
        end = place + 8 + struct.unpack_from(">I", data, place)[0]
        body = data[place + 4 : end]
        parts += [data[place : place + 4], body, struct.pack(">I", zlib.crc32(body))]
        place = end + 4
    return b"".join(parts)


def write_mutated(folder: Path, count: int, seed: int) -> None:
    """Write ``count`` damaged files, named ``m0000-lzw-cut.tif`` and so on."""
    random = np.random.default_rng(seed)
    good = originals()
    names = list(good)
    for number in range(count):
        name = names[number % len(names)]
        suffix, whole = good[name]
        data = bytearray(whole)
        mutation = MUTATIONS[number // len(names) % len(MUTATIONS)]
        mutation(data, random, good[names[random.integers(len(names))]][1])
        if suffix == ".png" and random.random() < 0.7:
            data = bytearray(seal(data))
        (folder / f"m{number:04}-{name}-{mutation.__name__}{suffix}").write_bytes(data)
