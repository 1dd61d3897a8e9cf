"""A disk without space, or one that can only be read, in words: which folder it holds, and which
option moves that."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from fedsense_core.errors import FedSenseError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""The disk is full, or what one user may have of it."""
READ_ONLY = (errno.EROFS,)
"""So Linux makes a disk that fails."""
REMEDIES = {
    NO_SPACE: "its disk is full. Free some space",
    READ_ONLY: "its disk can only be read. Look into the system's log, repair it and mount it for writing again",
}


class FullDisk(FedSenseError):
    """A folder could not be written: its disk has no space, or can only be read."""


@contextmanager
def naming_full_disk(folder: Path, moved_by: str, spare: str = "") -> Iterator[None]:
    """Raise FullDisk with ``folder``, what is wrong with its disk, and the option that moves it
    where what is done inside cannot write for that, however deep; ``spare`` is what nobody needs
    any more."""
    try:
        yield
    except FullDisk:
        raise  # named already, by who knew better
    except (OSError, SafetensorError, FedSenseError) as error:
        for numbers, remedy in REMEDIES.items():
            if _is_one_of(numbers, error):
                such = f", such as {spare}" if spare and numbers is NO_SPACE else ""
                raise FullDisk(f"{folder}: {remedy}{such}, or choose another folder: {moved_by}") from error
        raise


def _is_one_of(numbers: tuple[int, ...], error: BaseException | None) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in numbers
    if isinstance(error, SafetensorError):  # says it in words alone
        return any(f"(os error {number})" in str(error) for number in numbers)
    return error is not None and _is_one_of(numbers, error.__cause__)
