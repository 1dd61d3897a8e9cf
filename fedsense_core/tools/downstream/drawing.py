"""Rows of tiles as one PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from matplotlib.figure import Figure

from fedsense_core.atomic_io import write_whole
from fedsense_core.run_folder.formatting import clean
from fedsense_core.tools.reporting.canvas import INK
from fedsense_core.tools.reporting.tiles import Row

TILE_IN, SWATCH_IN = 1.7, 0.5
"""Height of a row of images, and of one of colours, in inches, with its captions."""
SWATCH_PIXELS = 16
"""Tiles of at most this side are colours of a legend."""
DPI = 120
WRONG = "#c02020"


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows of captioned tiles to a PNG; captions of tiles that disagree with the truth are
    red."""
    heights = [SWATCH_IN if row.tiles[0].image.shape[0] <= SWATCH_PIXELS else TILE_IN for row in rows]
    columns = max([1, *(len(row.tiles) for row, height in zip(rows, heights, strict=True) if height == TILE_IN)])
    figure = Figure(figsize=(max(4.5, TILE_IN * columns), sum(heights)), layout="constrained")
    strips = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for strip, row in zip(strips, rows, strict=True):
        cells = strip.subplots(1, max(len(row.tiles), columns if row.tiles[0].agrees is not None else 1), squeeze=False)
        for column, axes in enumerate(cells[0]):
            axes.axis("off")
            if column < len(row.tiles):
                tile = row.tiles[column]
                axes.imshow(tile.image, interpolation="nearest")
                colour = WRONG if tile.agrees is False else INK
                axes.set_title(_shortened(tile.caption), fontsize=6, color=colour, pad=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())


def _shortened(caption: str) -> str:
    """Return words without signs that matplotlib reads as mathematics, in at most two lines that
    fit over a tile."""
    lines = wrap(clean(caption), 26, max_lines=2, placeholder="…")
    return "\n".join(lines).replace("$", r"\$")
