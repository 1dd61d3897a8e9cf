"""Crafted cases: other formats by a GeoTIFF's name, pictures that lie, odd names, and things that
are no files."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from hostile_tiffs import READ, SKIPPED, TOLERATED, UNLISTED, Hostile, file
from jpeg2000_files import SIZ, jpeg2000, lying
from rasterio.io import MemoryFile
from tiff_writer import page, tiff


def picture(driver: str, side: int = 64) -> bytes:
    """Return a right PNG, JPEG or BMP of ``side`` x ``side`` pixels."""
    image = np.random.default_rng(5).integers(1, 250, (3, side, side)).astype("uint8")
    with MemoryFile() as memory:
        with memory.open(driver=driver, count=3, width=side, height=side, dtype="uint8") as out:
            out.write(image)
        return bytes(memory.read())


def _vrt(target: str) -> bytes:
    """Return a VRT, which makes GDAL open any other file or address."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}"><SimpleSource><SourceFilename relativeToVRT="0">{target}'
        f"</SourceFilename><SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
        for i in (1, 2, 3)
    )
    return f'<VRTDataset rasterXSize="64" rasterYSize="64">{bands}</VRTDataset>'.encode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _chunk(b"IEND", b"")


def _rows(count: int) -> bytes:
    return _chunk(b"IDAT", zlib.compress(bytes(count), 9))


def _jpeg_of(width: int, height: int) -> bytes:
    whole = bytearray(picture("JPEG"))
    start = whole.index(b"\xff\xc0")
    whole[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(whole)


def _jp2() -> bytes:
    return jpeg2000(np.random.default_rng(5).integers(1, 250, (3, 64, 64)).astype("uint8"), tile=32)


def _zipped(content: bytes) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("x.tif", content)
    return memory.getvalue()


GIF = b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;"
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(500)
NETCDF = b"CDF\x01" + bytes(500)
WMS = b'<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/</ServerUrl></Service></GDAL_WMS>'
TILE_INDEX = b'{"type": "STACTA", "tiles": "/vsicurl/http://127.0.0.1:9/"}'

FORMATS = [
    *[
        file(f"{n.lower()}_as_tiff", f"a right {n} picture under another name", lambda n=n: picture(n))
        for n in ("PNG", "JPEG", "BMP")
    ],
    file("gif_as_tiff", "a GIF that claims 65,535 x 65,535", lambda: GIF),
    file("hdf5_as_tiff", "an HDF5 container", lambda: HDF5),
    file("netcdf_as_tiff", "a netCDF container", lambda: NETCDF),
    file("vrt_of_file", "a VRT that leads to a file of this machine", lambda: _vrt("/etc/passwd")),
    file("vrt_of_neighbour", "a VRT that leads to the right file beside it", lambda: _vrt("../0good.tif")),
    file("vrt_of_address", "a VRT that leads to the network", lambda: _vrt("http://127.0.0.1:9/x.tif")),
    file(
        "vrt_of_curl",
        "a VRT that leads to the network by GDAL's own file system",
        lambda: _vrt("/vsicurl/http://127.0.0.1:9/x.tif"),
    ),
    file("vrt_by_suffix", "the same under its own name", lambda: _vrt("../0good.tif"), suffix=".vrt"),
    file("wms_as_tiff", "a map server's description", lambda: WMS),
    file("stac_as_tiff", "a tile index of the network", lambda: TILE_INDEX),
    file("zip_as_tiff", "an archive with a right file in it", lambda: _zipped(tiff(page()))),
    file("zip_by_suffix", "the same under its own name", lambda: _zipped(tiff(page())), suffix=".zip"),
    file("gzip_as_tiff", "a right file, compressed once more", lambda: gzip.compress(tiff(page()))),
    file("gzip_by_suffix", "the same under its own name", lambda: gzip.compress(tiff(page())), suffix=".tif.gz"),
    file("text_as_tiff", "a text", lambda: b"Dear reader,\n" * 100),
    file("html_as_tiff", "the error page that a failed download leaves", lambda: b"<!DOCTYPE html><html>404</html>"),
    file("tiff_as_png", "a right TIFF under a PNG's name", lambda: tiff(page()), TOLERATED, suffix=".png"),
    file("tiff_as_jpeg", "a right TIFF under a JPEG's name", lambda: tiff(page()), TOLERATED, suffix=".jpg"),
    file("tiff_without_suffix", "a right TIFF whose name says nothing", lambda: tiff(page()), TOLERATED, suffix=""),
    file("vrt_as_png", "a VRT under a PNG's name", lambda: _vrt("../0good.tif"), suffix=".png"),
]

_JP2 = {"suffix": ".jp2"}
JPEG2000 = [
    file("jp2_right", "a right JPEG 2000: the pattern of those below", _jp2, TOLERATED, **_JP2),
    file("jp2_head_alone", "100 bytes of a header", lambda: _jp2()[:100], **_JP2),
    file("jp2_boxes_alone", "all boxes, and of the picture its start", lambda: _jp2()[: _jp2().index(SIZ) + 2], **_JP2),
    file("jp2_giant", "2^31 pixels squared", lambda: lying(_jp2(), x1=1 << 31, y1=1 << 31), **_JP2),
    file(
        "jp2_giant_tile",
        "a tile of 65,536 pixels squared, 48 GB decoded",
        lambda: lying(_jp2(), x1=1 << 16, y1=1 << 16, tile_width=1 << 16, tile_height=1 << 16),
        **_JP2,
    ),
    file("jp2_tiny_tiles", "4,096 tiles of a pixel", lambda: lying(_jp2(), tile_width=1, tile_height=1), **_JP2),
    file(
        "jp2_most_tiles",
        "65,025 tiles, which take 600 MB before a pixel is read",
        lambda: lying(_jp2(), x1=16320, y1=16320, tile_width=64, tile_height=64),
        **_JP2,
    ),
    file("jp2_grown", "a picture larger than its tiles", lambda: lying(_jp2(), x1=1024, y1=1024), **_JP2),
    file("jp2_moved", "its corner lies behind its end", lambda: lying(_jp2(), x0=1 << 20), **_JP2),
    file("jp2_box_loop", "a box of no length before the picture", lambda: _jp2()[:12] + bytes(8) + _jp2()[12:], **_JP2),
    file("jp2_box_far", "a box that ends behind the file", lambda: _jp2()[:12] + b"\x7f\xff\xff\xfffree", **_JP2),
    file("jp2_empty", "nothing", lambda: b"", **_JP2),
    file("jp2_as_tiff", "a right JPEG 2000 under a TIFF's name", _jp2),
]

PICTURES = [
    file("png_right", "a right PNG: the pattern of those below", lambda: picture("PNG"), TOLERATED, suffix=".png"),
    file(
        "jpeg_right_alone",
        "a right JPEG: the pattern of those below",
        lambda: picture("JPEG"),
        TOLERATED,
        suffix=".jpg",
    ),
    file(
        "png_giant",
        "a PNG of 100 bytes that claims 2^31 - 1 squared",
        lambda: _png(0x7FFFFFFF, 0x7FFFFFFF, _rows(10)),
        suffix=".png",
    ),
    file("png_wide", "a PNG of one row of 2^31 - 1 pixels", lambda: _png(0x7FFFFFFF, 1, _rows(10)), suffix=".png"),
    file(
        "png_large",
        "a PNG of 100 bytes that claims 30,000 x 30,000",
        lambda: _png(30000, 30000, _rows(10)),
        suffix=".png",
    ),
    file(
        "png_bomb",
        "PNG rows that expand to 20 MB in a picture of 64 x 64",
        lambda: _png(64, 64, _rows(20 << 20)),
        TOLERATED,
        suffix=".png",
    ),
    file(
        "png_bomb_text",
        "a compressed text that expands to 20 MB",
        lambda: _png(64, 64, _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes([65]) * (20 << 20))), _rows(64 * 193)),
        TOLERATED,
        suffix=".png",
    ),
    file(
        "png_bomb_profile",
        "a colour profile that expands to 20 MB",
        lambda: _png(64, 64, _chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(20 << 20))), _rows(64 * 193)),
        TOLERATED,
        suffix=".png",
    ),
    file(
        "png_texts",
        "5,000 texts",
        lambda: _png(64, 64, *[_chunk(b"tEXt", b"a\0b")] * 5000, _rows(64 * 193)),
        TOLERATED,
        suffix=".png",
    ),
    file("png_empty", "a PNG without rows", lambda: _png(64, 64), suffix=".png"),
    file("png_zero", "a PNG of no columns", lambda: _png(0, 64, _rows(10)), suffix=".png"),
    file(
        "png_palette_missing",
        "a PNG of colours that are nowhere",
        lambda: _png(64, 64, _rows(64 * 65), colour=3),
        suffix=".png",
    ),
    file("png_depth", "a PNG of 3-bit samples", lambda: _png(64, 64, _rows(10000), depth=3), suffix=".png"),
    file("png_chunk_huge", "a part of 2^31 - 1 bytes", lambda: _png(64, 64, b"\x7f\xff\xff\xffIDAT"), suffix=".png"),
    file("png_cut", "a PNG that breaks off", lambda: picture("PNG")[:3000], suffix=".png"),
    file("jpeg_giant", "a JPEG that claims 65,500 x 65,500", lambda: _jpeg_of(65500, 65500), suffix=".jpg"),
    file("jpeg_zero", "a JPEG of no rows", lambda: _jpeg_of(64, 0), suffix=".jpg"),
    file("jpeg_half", "a JPEG that breaks off", lambda: picture("JPEG")[:1500], TOLERATED, suffix=".jpg"),
    file("jpeg_header", "a JPEG of two bytes", lambda: b"\xff\xd8", suffix=".jpg"),
]


def _named(name: str, why: str, file_name: str | bytes, outcome: str = READ) -> Hostile:
    """Return the case of a right file with an odd name."""
    data = tiff(page())
    return Hostile(name, why, lambda folder: _write(os.fsencode(folder) + b"/" + os.fsencode(file_name), data), outcome)


def _write(path: bytes, data: bytes) -> None:
    with open(path, "wb") as out:  # noqa: PTH123 (a Path is a text, and some of these names are none)
        out.write(data)


NAMES = [
    _named("name_newline", "a line break in the name", "a\nb.tif"),
    _named("name_emoji", "letters beyond the plain ones", "snow ☃ 🛰.tif"),
    _named("name_escape", "a terminal's control letters", "\x1b[31mred\x07.tif"),
    _named("name_not_utf8", "a name in no known encoding", b"caf\xe9.tif", TOLERATED),
    _named("name_long", "as long as a name may be", "n" * 251 + ".tif"),
    _named("name_glob", "letters that mean something in patterns", "[a-z]*?{x}.tif"),
    _named("name_quotes", "letters that mean something in site files", "a\"b'c\\d.tif"),
    _named("name_archive", "looks like a file in an archive", "x.zip!y.tif"),
    _named("name_driver", "looks like a command to GDAL", "GTIFF_DIR:1:x.tif"),
    _named("name_address", "looks like an address", "https:x.tif?y=1#z"),
    _named("name_hidden", "begins with a dot, as side files of other systems do", ".tif", UNLISTED),
]


def _linked(name: str, why: str, target: str, outcome: str) -> Hostile:
    return Hostile(name, why, lambda folder: (folder / "x.tif").symlink_to(target), outcome)


def _locked(folder: Path) -> None:
    (folder / "x.tif").write_bytes(tiff(page()))
    (folder / "x.tif").chmod(0)


PLACES = [
    Hostile(
        "fifo", "a pipe that nobody writes to: reading it waits for ever", lambda d: os.mkfifo(d / "x.tif"), UNLISTED
    ),
    Hostile("folder", "a folder with a file's name", lambda d: (d / "x.tif").mkdir(), UNLISTED),
    _linked("link_dangling", "a link to nothing", "nowhere.tif", UNLISTED),
    _linked("link_loop", "a link to itself", "x.tif", UNLISTED),
    _linked("link_endless", "a link to a device that never ends", "/dev/zero", UNLISTED),
    _linked("link_outside", "a link to a file of this machine that is no image", "/etc/passwd", SKIPPED),
    _linked("link_kernel", "a link to a file of no size that has contents", "/proc/version", SKIPPED),
    _linked("link_neighbour", "a link to the right file beside it, which is listed once", "../0good.tif", UNLISTED),
    Hostile("locked", "a file that may not be read; an administrator may", _locked, TOLERATED),
]
