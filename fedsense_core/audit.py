"""The audit log of an institution: what was asked of it and what left it, one line each, chained.

``audit.jsonl`` is appended to and never rewritten. Each line is a JSON object that ends with the
digest of the line before, ``previous``, and its own, ``digest``: the SHA-256 of the line's bytes up
to that last entry, closed by ``}``. So whoever changes, removes or inserts a line must write all
later ones anew, and a digest that was noted elsewhere shows it. A line is on the disk before what
it tells of leaves. A process that is killed while it writes leaves a torn last line, which the next
writer cuts off and names.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedsense_core.atomic_io import sync
from fedsense_core.errors import FedSenseError

FILE = "audit.jsonl"
"""Name of the log in an institution's state folder."""
START = "0" * 64
"""``previous`` of the first line."""
MAX_LINE = 2**18
"""Bytes of a line; what is longer is no line of ours."""
MAX_TEXT = 2_000
"""Characters of a text in a line: most are another party's words."""
DIGEST = re.compile(rb',"digest":"([0-9a-f]{64})"\}\Z')


class AuditError(FedSenseError):
    """The audit log cannot be written, or is not what was written."""


class BrokenChain(AuditError):
    """A line of the log is not what was written."""


@dataclass(frozen=True)
class Entry:
    """One line that holds."""

    number: int
    digest: str
    said: dict[str, Any]
    """All of the line but ``line``, ``previous`` and ``digest``."""

    @property
    def event(self) -> str:
        """What happened, in one word."""
        return str(self.said.get("event", ""))


@dataclass(frozen=True)
class Verdict:
    """What became of a look at a whole log."""

    entries: int
    """Lines that hold, from the first on."""
    digest: str
    """Of the last of them; ``START`` where there is none."""
    problem: str = ""
    """The first bad line and what is wrong with it; empty where all hold."""
    torn: int = 0
    """Bytes after the last whole line: of a writer that was killed."""


class AuditLog:
    """The log in one file. Several processes may append to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: str, said: Mapping[str, Any]) -> Entry:
        """Add a line and wait until it is on the disk.

        Raises AuditError where it cannot be written, or where the line before is damaged: a chain
        that is broken already would prove nothing.
        """
        try:
            with self._held() as descriptor:
                return self._append(descriptor, event, said)
        except OSError as error:
            raise AuditError(
                f"{self.path} cannot be written ({error.strerror or error}), and nothing leaves without a line in the "
                "audit log: free some space there, or give its folder to the user that runs the SuperNode"
            ) from error

    def entries(self) -> Iterator[Entry]:
        """Yield the lines from the first on. Raises AuditError at the first one that does not
        hold."""
        previous, number = START, 0
        try:
            with self.path.open("rb") as file:
                while line := file.readline(MAX_LINE + 1):
                    number += 1
                    if len(line) > MAX_LINE:
                        raise self._bad(f"line {number}", f"it has more than {MAX_LINE} bytes")
                    if not line.endswith(b"\n"):
                        return
                    entry = self._read(line[:-1], number, previous)
                    previous = entry.digest
                    yield entry
        except FileNotFoundError:
            raise AuditError(
                f"{self.path} does not exist: no round has been asked for here, or the path is another"
            ) from None
        except OSError as error:
            raise AuditError(f"{self.path} cannot be read ({error.strerror or error})") from error

    def verify(self) -> Verdict:
        """Return whether the whole chain holds, and where it does not. Raises AuditError where
        there is no log to read."""
        count, digest = 0, START
        try:
            for entry in self.entries():
                count, digest = entry.number, entry.digest
        except BrokenChain as error:
            return Verdict(count, digest, str(error))
        return Verdict(count, digest, torn=self._torn())

    def _append(self, descriptor: int, event: str, said: Mapping[str, Any]) -> Entry:
        size, torn = os.fstat(descriptor).st_size, self._torn()
        if torn:
            size -= torn
            os.ftruncate(descriptor, size)
        previous, number = self._last(size)
        told = [("torn", {"bytes": torn, "note": "the line before was torn: its writer was killed"})] if torn else []
        entries, content = [], b""
        for kind, what in [*told, (event, said)]:
            number += 1
            line, previous = _line(number, kind, what, previous)
            entries.append(Entry(number, previous, {"event": kind, **what}))
            content += line
        _write(descriptor, content)
        return entries[-1]

    def _last(self, size: int) -> tuple[str, int]:
        """Return digest and number of the last line. Raises AuditError where it does not hold by
        itself."""
        if not size:
            return START, 0
        with self.path.open("rb") as file:
            file.seek(max(0, size - MAX_LINE))
            line = file.read(min(size, MAX_LINE))[:-1].rpartition(b"\n")[2]
        return (entry := self._read(line)).digest, entry.number

    def _read(self, line: bytes, number: int | None = None, previous: str | None = None) -> Entry:
        """Return one line without its end; its number and the digest before are checked where they
        are given."""
        at = "its last line" if number is None else f"line {number}"
        found = DIGEST.search(line)
        if not found:
            raise self._bad(at, "it ends with no digest")
        digest = found[1].decode()
        if hashlib.sha256(line[: found.start()] + b"}").hexdigest() != digest:
            raise self._bad(at, "it does not have the digest at its end: it was changed")
        try:
            said = dict(json.loads(line))
            own, before = int(said.pop("line")), str(said.pop("previous"))
        except (ValueError, TypeError, KeyError) as error:
            raise self._bad(at, f"it is no entry ({error})") from None
        if number is not None and own != number:
            raise self._bad(at, f"it says that it is line {own}: lines before it were removed or added")
        if previous is not None and before != previous:
            raise self._bad(at, "it does not follow on the line before, which was changed or removed")
        del said["digest"]
        return Entry(own, digest, said)

    def _bad(self, where: str, why: str) -> BrokenChain:
        return BrokenChain(
            f"{self.path}, {where}: {why}. Keep the file, find out who could write to it, and move it away: the "
            "next round begins a new one"
        )

    def _torn(self) -> int:
        """Return the bytes after the last whole line."""
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            file.seek(max(0, size - MAX_LINE))
            return len(file.read().rpartition(b"\n")[2])

    @contextmanager
    def _held(self) -> Iterator[int]:
        """Open the file for this process alone, and make it where it is not."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if is_new:
                sync(self.path.parent)
            yield descriptor
        finally:
            os.close(descriptor)


def _line(number: int, event: str, said: Mapping[str, Any], previous: str) -> tuple[bytes, str]:
    """Return a line with its end, and its digest."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = {"line": number, "time": time, "event": event, **_plain(said), "previous": previous}
    body = json.dumps(entry, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    digest = hashlib.sha256(body).hexdigest()
    return body[:-1] + f',"digest":"{digest}"}}\n'.encode(), digest


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON can say it, with texts cut: most of them are another party's."""
    if isinstance(value, Mapping):
        return {str(key)[:MAX_TEXT]: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value[:MAX_TEXT] if isinstance(value, str) else value


def _write(descriptor: int, content: bytes) -> None:
    """Write all or raise, and wait for the disk; what a full disk took of it is cut off again."""
    before, left = os.fstat(descriptor).st_size, memoryview(content)
    try:
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, before)
        raise
