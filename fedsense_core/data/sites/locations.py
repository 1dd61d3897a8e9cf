"""Where site files and the labelled set lie: those that the settings name, and those of the sample.

The sample's rasters ship with the clone and the wheel, never in Flower's bundle.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from fedsense_core.config import Config
from fedsense_core.errors import SiteError

SAMPLE = "sample"
"""What the settings say for the shipped imagery."""
SAMPLE_VARIABLE = "FEDSENSE_SAMPLE"
"""Environment variable that names the sample folder outright."""
_IN_PACKAGE = Path("fedsense_core", "sample")


def site_files(config: Config) -> list[Path]:
    """Return the site files of a simulation in name order."""
    if config.federation.sites == SAMPLE:
        return sample_sites()
    folder = Path(config.federation.sites).expanduser()
    found = sorted(folder.glob("*.toml"))
    if not found:
        raise SiteError(f"federation.sites = {str(folder)!r} holds no site files (*.toml); see docs/institutions.md")
    return found


def public_file(config: Config) -> Path:
    """Return the site file of the public imagery."""
    return sample_public() if config.federation.public == SAMPLE else Path(config.federation.public).expanduser()


def labelled_folder(config: Config) -> Path | None:
    """Return the folder of the labelled set, or None where probes are turned off."""
    if not config.federation.labelled:
        return None
    return sample_labelled() if config.federation.labelled == SAMPLE else Path(config.federation.labelled).expanduser()


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
        f"Install FedSense from its repository, or set {SAMPLE_VARIABLE} to its folder {_IN_PACKAGE.as_posix()}."
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
        yield parent / _IN_PACKAGE
    for entry in sys.path:
        yield Path(entry or ".").resolve() / _IN_PACKAGE


def _holds_rasters(folder: Path) -> bool:
    return (folder / "public.toml").is_file() and next(folder.glob("*/*.tif"), None) is not None


def _named_folder(folder: Path) -> Path:
    folder = folder.resolve()
    if not _holds_rasters(folder):
        raise SiteError(f"{SAMPLE_VARIABLE}={folder}: holds no sample imagery. Correct it or unset it.")
    return folder
