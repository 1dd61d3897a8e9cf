"""A disk without space, in words: which folder it holds, and which option moves that."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from fedsense_core.errors import FedSenseError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""The disk is full, or what one user may have of it."""


class FullDisk(FedSenseError):
    """A folder could not be written for want of space."""


@contextmanager
def naming_full_disk(folder: Path, moved_by: str) -> Iterator[None]:
    """Raise FullDisk with ``folder`` and the option that moves it where what is done inside fails
    for want of space, however deep."""
    try:
        yield
    except FullDisk:
        raise  # named already, by who knew better
    except (OSError, SafetensorError, FedSenseError) as error:
        if not _is_of_space(error):
            raise
        raise FullDisk(f"{folder}: its disk is full. Free some space, or choose another folder: {moved_by}") from error


def _is_of_space(error: BaseException | None) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in NO_SPACE
    if isinstance(error, SafetensorError):  # says it in words alone
        return any(f"(os error {number})" in str(error) for number in NO_SPACE)
    return error is not None and _is_of_space(error.__cause__)
