"""Where a run keeps its files, and which site files a party reads."""

from __future__ import annotations

import re
from pathlib import Path

from fedsense_core.config import Config
from fedsense_core.data import Chips, load_site, open_chips, open_sources, sample_labelled, sample_public, sample_sites
from fedsense_core.data.chips.ingest import Progress
from fedsense_core.errors import ConfigError, SiteError

SAMPLE = "sample"


def run_folder(config: Config) -> Path:
    """Return the folder of the run. ``auto`` is under the home directory: a daemon's working
    directory is anybody's."""
    if config.run.folder == "auto":
        return Path.home() / ".fedsense" / "runs" / f"{config.preset}-seed{config.run.seed}"
    path = Path(config.run.folder).expanduser()
    if not path.is_absolute():
        raise ConfigError(
            f"run.folder = {config.run.folder!r} must be an absolute path: apps run in Flower's own folder"
        )
    return path


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


def open_site(path: Path, config: Config, cache: Path, progress: Progress | None = None) -> tuple[Chips, ...]:
    """Open the chips of a site file as the run reads them: all together, or each sensor apart where
    bands may differ.

    ``progress`` hears of every scene. Raises SiteError where nothing is usable.
    """
    site, data = load_site(path), config.data
    if config.conditioned:
        return open_sources(site, data.bands, data.chip_size, cache, progress=progress)
    return (open_chips(site, data.bands, data.chip_size, cache, progress=progress),)


def safe_name(text: str) -> str:
    """Return ``text`` as one harmless path component: names may come from another party."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._")[:64] or "unnamed"
