"""Damage that disks, copies and people do to the files of a run: drawn from a seed, so that a
number names it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OTHER_JSON = (b"[]", b"null", b"3", b'"manifest"', b"{}", b'[{"format": 3}]', b'{"format": 3}', b"\xff\xfe{}", b"NaN")
"""What is JSON, or nearly, and not what was written."""
SECTOR = 512
"""Bytes that a disk loses together."""


@dataclass(frozen=True)
class Damage:
    """One corruption of files that lie in one folder or in several."""

    kind: str
    where: str
    """Path from the folder, for a message."""
    do: Callable[[], object]


def flipped(path: Path, draw: random.Random) -> Damage:
    """One bit of a file, as often in its first bytes as in all the rest."""
    size = path.stat().st_size
    place = draw.randrange(min(size, 2048)) if draw.random() < 0.5 else draw.randrange(size)
    bit = draw.randrange(8)

    def flip() -> None:
        content = bytearray(path.read_bytes())
        content[place] ^= 1 << bit
        path.write_bytes(content)

    return Damage("flip", f"{path.name} bit {bit} of byte {place}", flip)


def truncated(path: Path, draw: random.Random) -> Damage:
    """A file that ends too early, often empty or with one byte missing."""
    size = path.stat().st_size
    left = draw.choice([0, 1, 8, size - 1, draw.randrange(size), draw.randrange(size)])
    return Damage("truncate", f"{path.name} to {left} bytes", lambda: path.write_bytes(path.read_bytes()[:left]))


def longer(path: Path, draw: random.Random) -> Damage:
    """A file with something behind its end."""
    more = draw.choice([b"\0", b"\n{}", path.read_bytes(), draw.randbytes(SECTOR)])
    return Damage("longer", f"{path.name} by {len(more)} bytes", lambda: path.write_bytes(path.read_bytes() + more))


def lost_sectors(path: Path, draw: random.Random) -> Damage:
    """Some sectors of zeros, or of another file's bytes."""
    first = draw.randrange(max(1, path.stat().st_size // SECTOR)) * SECTOR
    content = bytearray(path.read_bytes())
    end = min(len(content), first + SECTOR * draw.randint(1, 4))
    content[first:end] = bytes(end - first) if draw.random() < 0.5 else draw.randbytes(end - first)
    return Damage("sectors", f"{path.name} bytes {first} to {end}", lambda: path.write_bytes(content))


def missing(path: Path, draw: random.Random) -> Damage:
    """A file that is not there, or a folder in its place."""

    def remove(folder: bool = draw.random() < 0.3) -> None:
        path.unlink()
        if folder:
            path.mkdir()

    return Damage("missing", path.name, remove)


def other_json(path: Path, draw: random.Random) -> Damage:
    """JSON that says something else."""
    content = draw.choice(OTHER_JSON)
    return Damage("other-json", f"{path.name} {content!r}", lambda: path.write_bytes(content))


def edited(path: Path, draw: random.Random) -> Damage:
    """One digit of a text that is another digit: still of the right form."""
    content = bytearray(path.read_bytes())
    digits = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    place = draw.choice(digits)
    content[place] = draw.choice([digit for digit in b"0123456789" if digit != content[place]])
    return Damage("edit", f"{path.name} digit at {place}", lambda: path.write_bytes(content))


def swapped(one: Path, other: Path) -> Damage:
    """Two files or folders of one name, each in the other's place."""

    def swap() -> None:
        aside = one.with_name(f"{one.name}.aside")
        one.rename(aside)
        other.rename(one)
        aside.rename(other)

    return Damage("swap", f"{one.name} and {other.parent.name}/{other.name}", swap)


def copied(source: Path, target: Path) -> Damage:
    """A file or folder in place of another, as a restored backup leaves it."""

    def copy() -> None:
        if source.is_dir():
            shutil.rmtree(target)
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)

    return Damage("copy", f"{source.parent.name}/{source.name} over {target.name}", copy)


def one_file(folder: Path, draw: random.Random) -> Damage:
    """Return some damage of one file of a folder."""
    path = draw.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    kinds = [flipped, flipped, flipped, truncated, longer, lost_sectors, missing]
    if path.suffix in (".json", ".jsonl"):
        kinds += [edited, edited, other_json]
    return draw.choice(kinds)(path, draw)


def two_folders(newest: Path, older: Path, draw: random.Random) -> list[Damage]:
    """Return damage of the newest of two checkpoints, of the older, of both, or of what lies
    where."""
    name = draw.choice(sorted(path.name for path in newest.iterdir()))
    choices: list[Callable[[], list[Damage]]] = [
        *[lambda: [one_file(newest, draw)]] * 6,
        lambda: [one_file(older, draw)],
        lambda: [one_file(newest, draw), one_file(older, draw)],
        lambda: [swapped(newest / name, older / name)],
        lambda: [copied(older / name, newest / name)],
        lambda: [copied(older, newest)],
        lambda: [swapped(newest, older)],
        lambda: [Damage("missing", newest.name, lambda: shutil.rmtree(newest))],
    ]
    return draw.choice(choices)()
