"""Files and folders that are written whole or not at all: aside, synced to the disk, then
renamed."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fedsense_core.errors import CheckpointError


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a folder to fill; on leaving without an error it replaces ``target``, and survives a
    power cut."""
    temporary, replaced = (target.parent / f".{word}-{target.name}" for word in ("writing", "replaced"))
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for path in (*temporary.iterdir(), temporary):
        sync(path)
    if target.exists():
        target.rename(replaced)
    temporary.rename(target)
    sync(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process. Raises CheckpointError where another one holds it; a dead
    one holds nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f".{folder.name}.lock"
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CheckpointError(
                f"{folder} is in use by another run: wait for it, stop it (`flwr stop RUN_ID`), or choose another "
                "run.folder"
            ) from None
        yield  # the empty file stays: whoever removed it could take it from under the next one


def write_whole(path: Path, content: bytes) -> None:
    """Replace the file ``path`` by ``content``: a reader, and a power cut, meet the old file or the
    new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write an array as `numpy.save` does, and wait until it is on the disk.

    On a full disk numpy's own writing can lose the end of a file without an error.
    """
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    path.write_bytes(content.getbuffer())
    sync(path)


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
