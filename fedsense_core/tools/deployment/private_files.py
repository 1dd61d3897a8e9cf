"""Keys and secrets on the disk: for one user alone from the first byte on."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fedsense_core.atomic_io import sync
from fedsense_core.tools.deployment.documents import DeploymentError

SECRET_BYTES = 48
"""Of the secret that a SuperExec shows: more than the HMAC-SHA256 that Flower makes of it needs."""


def private_folder(path: Path) -> Path:
    """Make a folder, or take an existing one, that no other user can enter."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only this user can read, whole or not at all; an older one is replaced."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


def write_secret(path: Path) -> None:
    """Write a new secret for a SuperExec, unless there is one."""
    if not path.exists():
        write_private(path, os.urandom(SECRET_BYTES))


def read_private(path: Path, remedy: str) -> bytes:
    """Return a key or a secret. Raises DeploymentError where it is missing, empty, or other users
    could read it."""
    try:
        content, mode = path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise DeploymentError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    if mode & 0o077:
        raise DeploymentError(
            f"{path} has mode {mode:04o}, so that other users of this machine may have read it: `chmod 600 {path}`, "
            "and if they should not be trusted, make it anew."
        )
    if not content:
        raise DeploymentError(f"{path} is empty: {remedy}")
    return content
