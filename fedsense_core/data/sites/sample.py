"""Where the sample federation lies: its rasters ship with the clone and the wheel, never in
Flower's bundle."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from fedsense_core.errors import SiteError

SAMPLE_VARIABLE = "FEDSENSE_SAMPLE"
"""Environment variable that names the sample folder outright."""
_PLACE = Path("fedsense_core", "sample")


def sample_folder() -> Path:
    """Return the folder `fedsense_core/sample` that really holds the rasters.

    Looks at FEDSENSE_SAMPLE, then beside this file, then along ``sys.path``: Flower runs a copy of
    this package without rasters, while the installed package or the clone is still on the path.
    Raises SiteError when it is nowhere.
    """
    named = os.environ.get(SAMPLE_VARIABLE)
    if named:
        return _named_folder(Path(named))
    tried = list(dict.fromkeys(_candidates()))
    for folder in tried:
        if _holds_rasters(folder):
            return folder
    raise SiteError(
        f"The sample imagery is in none of {', '.join(map(str, tried))}. "
        f"Install FedSense from its repository, or set {SAMPLE_VARIABLE} to its folder {_PLACE.as_posix()}."
    )


def sample_sites() -> list[Path]:
    """Return the site files of the sample's institutions, sorted."""
    return sorted((sample_folder() / "sites").glob("*.toml"))


def sample_public() -> Path:
    """Return the site file of the sample's public, unlabelled imagery."""
    return sample_folder() / "public.toml"


def sample_labelled() -> Path:
    """Return the folder of the sample's labelled set."""
    return sample_folder() / "labelled"


def _candidates() -> Iterator[Path]:
    for parent in Path(__file__).resolve().parents:
        yield parent / _PLACE
    for entry in sys.path:
        yield Path(entry or ".").resolve() / _PLACE


def _holds_rasters(folder: Path) -> bool:
    return (folder / "public.toml").is_file() and next(folder.glob("*/*.tif"), None) is not None


def _named_folder(folder: Path) -> Path:
    folder = folder.resolve()
    if not _holds_rasters(folder):
        raise SiteError(f"{SAMPLE_VARIABLE}={folder}: holds no sample imagery. Correct it or unset it.")
    return folder
