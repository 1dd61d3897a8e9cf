"""Files whose bands hold no measurements, or not those of their sensor card: the latter are skipped
and named where few of a source are such, and an error where it must be the card that is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rasterio.enums import ColorInterp

from fedsense_core.data.sites.schema import Skipped
from fedsense_core.errors import SiteError

MOST_OTHER = 0.1
"""Largest share of a source's scenes that is skipped: of more, the card fits too little to be
right."""
ADVICE = "Name the right card, or list the files' bands in their order under `bands` in the site file."


class OtherBands(SiteError):
    """A file holds other bands than its sensor card says."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}. {ADVICE}")
        self.path = path
        self.reason = reason

    def of_scene(self, name: str) -> str:
        """Return the reason as it is said of the scene that is named after file ``name``."""
        return self.reason if name == str(self.path) else f"{self.path.name} {self.reason}"


def no_measurements(file: Any) -> str:
    """Say why the numbers of an open file are no measurements, or return an empty text."""
    if ColorInterp.palette in file.colorinterp:
        return "has a colour table: its numbers are entries of that (labels, or a picture of few colours)"
    # GDAL makes red, green and blue of it by a rule of thumb.
    if file.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE") == "CMYK":
        return "is in the colours of printing (CMYK); convert it to red, green and blue with its colour profile"
    return ""


def check_share(skipped: Sequence[Skipped], scenes: int) -> None:
    """Raise SiteError, naming the first one, where more than `MOST_OTHER` of a source's scenes have
    other bands."""
    others = [item for item in skipped if item.other_bands]
    if len(others) > MOST_OTHER * scenes:
        so_many = f" So it is with {len(others)} of {scenes} scenes." if len(others) > 1 else ""
        raise SiteError(f"{others[0].path}: {others[0].reason}.{so_many} {ADVICE}")
