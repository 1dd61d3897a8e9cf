"""Files in ZIP archives: ``/data/a.zip/a.SAFE/x.jp2`` stands for a member of the archive
``/data/a.zip``.

Such paths are made here alone, of names that an archive lists. Format: PKWARE's APPNOTE.TXT 6.3,
sections 4.3 and 4.4.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

SUFFIX = ".zip"
DIRECTORY_BYTES = 2 << 20
"""Largest directory of an archive: the list of its members is held in memory. That of a Sentinel-2
product has 40 kB."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
"""Bit of a member's flags."""
_END, _END_64, _LOCATOR_64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_END_BYTES, _COMMENT_BYTES = 22, 65535


class BadArchive(Exception):
    """Why an archive, or a member of it, is not read."""


@dataclass(frozen=True)
class Member:
    """One file of an archive."""

    size: int
    """Bytes that it claims to have."""
    stored: int
    """Bytes that it takes in the archive."""


def archive_of(path: Path) -> Path | None:
    """Return the archive that ``path`` lies in, or None for a path of the file system."""
    if SUFFIX not in str(path).lower():  # the cheap look first
        return None
    return next((up for up in path.parents if up.suffix.lower() == SUFFIX and up.is_file()), None)


def on_disk(path: Path) -> Path:
    """Return the file of the file system that holds ``path``: itself, or its archive."""
    return archive_of(path) or path


def gdal_name(path: Path) -> str:
    """Return what GDAL calls a file or a member. Raises BadArchive where there is no such
    member."""
    archive = archive_of(path)
    if archive is None:
        return str(path)
    _member(archive, path)
    if "{" in str(archive) or "}" in str(archive):
        raise BadArchive("lies in an archive with a brace in its path; rename it")
    return f"/vsizip/{{{archive}}}/{path.relative_to(archive).as_posix()}"


def is_file(path: Path) -> bool:
    """Tell whether ``path`` is a file, or a member of a readable archive."""
    archive = archive_of(path)
    if archive is None:
        return path.is_file()
    try:
        return path.relative_to(archive).as_posix() in members(archive)
    except BadArchive:
        return False


def stored_bytes(path: Path) -> int:
    """Return the bytes that a file or a member takes on disk. Raises BadArchive or OSError."""
    archive = archive_of(path)
    return path.stat().st_size if archive is None else _member(archive, path).stored


def read_start(path: Path, most: int) -> bytes:
    """Return the first ``most`` bytes of a file or a member, or all of a shorter one. Raises
    BadArchive or OSError."""
    archive = archive_of(path)
    if archive is None:
        with path.open("rb") as file:
            return file.read(most)
    _member(archive, path)
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(path.relative_to(archive).as_posix()) as member:
            return member.read(most)
    except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise BadArchive(f"cannot be unpacked ({error})") from error


def members(archive: Path) -> dict[str, Member]:
    """Return the files of an archive by name. Raises BadArchive, naming what is wrong with it."""
    try:
        stat = archive.stat()
        return _members(archive, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise BadArchive(f"cannot be read ({error.strerror})") from error


@lru_cache(maxsize=64)
def _members(archive: Path, size: int, mtime_ns: int) -> dict[str, Member]:
    with archive.open("rb") as file:
        directory = _directory_bytes(file, size)
    if directory > DIRECTORY_BYTES:
        raise BadArchive(f"has a directory of {directory} bytes, more than {DIRECTORY_BYTES}; unpack it")
    try:
        with zipfile.ZipFile(archive) as opened:
            listed = opened.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise BadArchive(f"is no readable ZIP archive ({error})") from error
    found: dict[str, Member] = {}
    for info in listed:
        if info.is_dir():
            continue
        _check(info)
        if info.filename in found:
            raise BadArchive(f"holds {info.filename!r} twice; unpack it")
        found[info.filename] = Member(info.file_size, info.compress_size)
    return found


def _check(info: zipfile.ZipInfo) -> None:
    name = info.filename
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in info.orig_filename or ".." in parts or not name.isprintable():
        raise BadArchive(f"holds the name {name!r}, which leads out of it or cannot be written; unpack it elsewhere")
    if info.flag_bits & _ENCRYPTED:
        raise BadArchive(f"is encrypted ({name!r}); unpack it")
    if info.compress_type not in _METHODS:
        raise BadArchive(
            f"holds {name!r} compressed by method {info.compress_type}, neither stored nor deflated; unpack it"
        )


def _directory_bytes(file: BinaryIO, size: int) -> int:
    """Return the bytes of an archive's directory, by the record at its end. Raises BadArchive."""
    tail_at = max(0, size - _END_BYTES - _COMMENT_BYTES)
    file.seek(tail_at)
    tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) - end < _END_BYTES:
        raise BadArchive("is no readable ZIP archive (it has no end; copy it again)")
    directory = int(struct.unpack_from("<I", tail, end + 12)[0])
    locator = tail_at + end - 20
    if directory != 0xFFFFFFFF or locator < 0:
        return directory
    file.seek(locator)
    found = file.read(20)
    if found[:4] != _LOCATOR_64:
        return directory
    file.seek(min(size, struct.unpack_from("<Q", found, 8)[0]))
    record = file.read(56)
    if record[:4] != _END_64 or len(record) < 56:
        raise BadArchive("is no readable ZIP archive (its large directory is not where it says)")
    return int(struct.unpack_from("<Q", record, 40)[0])


def _member(archive: Path, path: Path) -> Member:
    name = path.relative_to(archive).as_posix()
    found = members(archive).get(name)
    if found is None:
        raise BadArchive(f"is not in the archive {archive.name}")
    return found
