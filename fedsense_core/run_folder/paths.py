"""Paths of a run: its folder, and names that may be part of a path."""

from __future__ import annotations

import re
from pathlib import Path

from fedsense_core.config import Config
from fedsense_core.errors import ConfigError


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


def safe_name(text: str) -> str:
    """Return ``text`` as one harmless path component: names may come from another party."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._")[:64] or "unnamed"
