"""From a clone or an installed wheel to the bundle: the same bytes from the same release.

In a clone only what git tracks goes in, so that nothing that lies about becomes code at an
institution.
"""

from __future__ import annotations

import os
import subprocess
import tomllib
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from flwr.cli.build import build_fab_from_files

from fedsense_core.atomic_io import write_whole
from fedsense_core.config import resolve
from fedsense_core.errors import ConfigError
from fedsense_core.fingerprint import PACKAGES, PROJECT_FILES, TOOLS, bundle_files
from fedsense_core.tools.app_bundle.bundle import MANIFEST, Bundle, BundleError
from fedsense_core.tools.runner.app_folder import INSTALLED

HOME = (TOOLS / "__init__.py").as_posix()
"""Flower wants to see what its ``fab-exclude`` excludes."""
LIST_TRACKED = ("ls-files", "-z", "--", *PACKAGES)


@dataclass(frozen=True)
class Built:
    """A bundle, and what was not put into it."""

    bundle: Bundle
    left_out: tuple[str, ...]
    """Python files that lie in the packages, but that git does not track."""


def build(root: Path | None = None, flower_toml: Path | None = None) -> Built:
    """Build the bundle of the copy of FedSense below ``root``: by default the one that runs.

    ``flower_toml`` takes the place of the shipped file: settings of a federation that are lists or
    tables. Raises BundleError or ConfigError naming the file that is missing or wrong.
    """
    root = INSTALLED.parent if root is None else root
    paths = bundle_files(root)
    missing = [name for name in PROJECT_FILES if name not in paths]
    if missing or not any(name.startswith("client_app/") for name in paths):
        raise BundleError(
            f"{root}: no FedSense app: {', '.join(missing) or 'client_app/*.py'} is missing. Give the folder of a "
            "clone, or leave --app out"
        )
    tracked = _tracked(root)
    code = {name for name in paths if name not in PROJECT_FILES}
    stray = {name for name in code if paths[name].is_symlink() or (tracked is not None and name not in tracked)}
    files = {name: paths[name].read_bytes() for name in paths if name not in stray}
    if flower_toml is not None:
        files["flower.toml"] = _checked(flower_toml)
    _check_line_ends(root, files)
    bundle = Bundle.of_files(files)
    _check_with_flower(root, files)
    return Built(bundle, tuple(sorted(stray)))


def write_bundle(bundle: Bundle, folder: Path) -> Path:
    """Write ``bundle`` into ``folder`` under the name that Flower demands; return the file."""
    path = folder / bundle.file_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, bundle.content)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}. Choose another folder with --out") from None
    return path


def _tracked(root: Path) -> set[str] | None:
    """Return the names that git tracks; None where ``root`` is no clone."""
    if not (root / ".git").exists():
        return None
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(["git", "-C", str(root), *LIST_TRACKED], env=environment, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or b""
        raise BundleError(
            f"{root}: git cannot list its files ({said.decode(errors='replace').strip() or error}). Install git, or "
            "build from a copy without .git"
        ) from None
    return {os.fsdecode(name) for name in done.stdout.split(b"\0") if name}


def _checked(flower_toml: Path) -> bytes:
    """Return the bytes of a changed ``flower.toml`` whose settings make a run."""
    try:
        content = flower_toml.read_bytes()
        resolve({}, tomllib.loads(content.decode("utf-8")).get("fedsense", {}))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ConfigError) as error:
        raise ConfigError(f"--config {flower_toml}: {error}") from None
    return content


def _check_line_ends(root: Path, files: dict[str, bytes]) -> None:
    windows = sorted(name for name, content in files.items() if b"\r\n" in content)
    if windows:
        raise BundleError(
            f"{root / windows[0]} has Windows line ends (and {len(windows) - 1} more): the digest would be another "
            "than elsewhere. Clone again with `git clone --config core.autocrlf=input`"
        )


def _check_with_flower(root: Path, files: dict[str, bytes]) -> None:
    """Let Flower bundle the same files: its rules on names, sizes and ``pyproject.toml`` hold, and
    it leaves nothing out."""
    try:
        packed, _ = build_fab_from_files({HOME: b"", **files})
    except ValueError as error:
        raise BundleError(f"{root / 'pyproject.toml'}: Flower refuses the app: {error}") from None
    with zipfile.ZipFile(BytesIO(packed)) as archive:
        refused = sorted(set(files) - set(archive.namelist()) - {MANIFEST})
    if refused:
        raise BundleError(
            f"{root / refused[0]}: Flower leaves it out of a bundle (and {len(refused) - 1} more): rename it, or name "
            "it in fab-exclude of pyproject.toml"
        )
