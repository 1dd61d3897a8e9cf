"""The crafted corpus: everything that an institution's folder should not hold, and may.

Each case is a small folder with one thing in it. The tables, with the reason for each case, are in
``hostile_tiffs`` (directories that lie), ``hostile_blocks`` (compressed data), ``hostile_values``
(numbers, texts and further pages) and ``hostile_files`` (other formats, odd names, and things that
are no files).
"""

from __future__ import annotations

from pathlib import Path

from hostile_blocks import BLOCKS
from hostile_files import FORMATS, JPEG2000, NAMES, PICTURES, PLACES
from hostile_tiffs import BANDS, SIZES, STRUCTURES, TABLES, Hostile
from hostile_values import PAGES, TEXTS, VALUES
from tiff_writer import page, tiff

CASES: dict[str, Hostile] = {
    case.name: case
    for table in (
        STRUCTURES,
        SIZES,
        BANDS,
        TABLES,
        BLOCKS,
        VALUES,
        TEXTS,
        PAGES,
        FORMATS,
        JPEG2000,
        PICTURES,
        NAMES,
        PLACES,
    )
    for case in table
}
"""Every crafted case, by name."""


def write_good(path: Path) -> None:
    """Write the file that lies beside all cases and must not suffer from them."""
    path.write_bytes(tiff(page()))


def write_crafted(folder: Path) -> None:
    """Write each case into a folder of its own name."""
    for case in CASES.values():
        (folder / case.name).mkdir()
        case.make(folder / case.name)
