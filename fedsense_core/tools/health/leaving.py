"""An institution leaves: what FedSense keeps of it here is deleted, and the log says so."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from fedsense_core.audit import FILE, AuditLog
from fedsense_core.errors import FedSenseError
from fedsense_core.tools.health.folder_size import size_of

WRITTEN_BY_PEOPLE = ("site.toml", "policy.toml")
MARKS = ("federation.toml", "institution.toml", "key.pub", FILE)
"""Each shows that a folder is an institution's."""


@dataclass(frozen=True)
class Leaving:
    """What leaving deletes, and what stays."""

    state: Path
    deleted: tuple[Path, ...]
    kept: tuple[Path, ...]
    """What a person wrote, and the audit log: it is the institution's evidence of what left."""
    bytes: int
    """Of what is deleted."""


def what_leaving_deletes(state: Path, *, everything: bool = False) -> Leaving:
    """Return what `leave` would do, for a person to confirm.

    Raises FedSenseError for a folder that is no institution's, or a link to one: nothing else must
    be deleted by mistake.
    """
    if state.is_symlink() or not any((state / name).is_file() for name in MARKS):
        raise FedSenseError(
            f"{state} is no institution's folder (none of {', '.join(MARKS)} is in it): name it with --state"
        )
    kept = () if everything else (*WRITTEN_BY_PEOPLE, FILE)
    found = sorted(state.iterdir())
    deleted = tuple(path for path in found if path.name not in kept)
    size = sum(size_of(path) if path.is_dir() and not path.is_symlink() else path.lstat().st_size for path in deleted)
    return Leaving(state, deleted, tuple(path for path in found if path.name in kept), size)


def leave(state: Path, *, everything: bool = False) -> Leaving:
    """Delete an institution's state: key, chips, what training keeps between rounds, Flower's
    files. Links are removed, never followed.

    The audit log stays, with a last line that says what was deleted, unless ``everything`` is to
    go. The coordinator still has to remove the key (`fedsense coordinator remove NAME`). Raises
    FedSenseError where something cannot be deleted.
    """
    leaving = what_leaving_deletes(state, everything=everything)
    if not everything and (state / FILE).exists():
        names = [path.name for path in leaving.deleted]
        AuditLog(state / FILE).append("left", {"deleted": names, "bytes": leaving.bytes})
    try:
        for path in leaving.deleted:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        if everything:
            state.rmdir()
    except OSError as error:
        raise FedSenseError(
            f"{error.filename or state} cannot be deleted ({error.strerror}): end the SuperNode first, and see whose "
            "the file is; the same command goes on"
        ) from error
    return leaving
