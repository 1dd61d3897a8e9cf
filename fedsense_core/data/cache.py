"""Chips cut once and kept: a memory-mapped `.npy` and a small JSON record, both put in place whole.

Layout: `<cache_dir>/<site>-<what was asked>/<state of the sources>.npy` and `.json`. The JSON is written last, so that
its presence means that the pair is complete. Two processes may build the same entry: each writes files of its own name,
and the last rename wins with equal contents.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fedsense_core.data.cutting import Cut, FileChips, Request, cut_site
from fedsense_core.data.holdings import Site
from fedsense_core.data.rasters import Skipped
from fedsense_core.data.statistics import Moments
from fedsense_core.errors import SiteError

Array = NDArray[Any]

CACHE_FORMAT = 1
"""Part of every entry's name: raise it when the meaning of the files changes."""
NPY_HEADER_BYTES = 128
"""Room for the `.npy` header, which can only be written when the number of chips is known."""


def cached_cut(site: Site, request: Request, cache_dir: Path) -> tuple[Array, Cut]:
    """Return the memory-mapped chips (n, C, S, S) of ``site``, cutting them unless its files are as they were.

    Raises SiteError as `cut_site` does, and when the cache folder cannot be written.
    """
    folder, entry = _entry(site, request, cache_dir)
    found = _load(folder, entry, request)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _build(site, request, folder, entry)
        _forget_others(folder, entry)
    except OSError as error:
        raise SiteError(
            f"{folder}: the chip cache cannot be written ({error.strerror}). "
            "Give a cache folder with write permission and free space."
        ) from error
    found = _load(folder, entry, request)
    if found is None:
        raise SiteError(f"{folder / entry}: the chip cache changed while it was read. Delete the folder and try again.")
    return found


def _entry(site: Site, request: Request, cache_dir: Path) -> tuple[Path, str]:
    """Return the entry's folder, named after what is asked, and its name, after the state of the source files."""
    cards = [source.card.model_dump() for source in site.sources]
    paths = [[str(path) for path in source.files] for source in site.sources]
    asked = _digest([CACHE_FORMAT, str(site.path), request.bands, request.size, request.limits.model_dump()])
    states = [[_state(path) for path in source.files] for source in site.sources]
    return Path(cache_dir) / f"{site.name}-{asked}", _digest([cards, paths, states])


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


def _state(path: Path) -> list[int]:
    """Return size and time of change of a file; a file that has just vanished is found missing by its reader."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def _load(folder: Path, entry: str, request: Request) -> tuple[Array, Cut] | None:
    """Return a complete entry, or None: a missing, foreign or damaged one is cut anew."""
    try:
        cut = _cut_from_json(json.loads((folder / f"{entry}.json").read_text(encoding="utf-8")))
        values = np.load(folder / f"{entry}.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    shape = (cut.count, len(request.bands), request.size, request.size)
    return (values, cut) if (values.shape, str(values.dtype)) == (shape, cut.dtype) else None


def _build(site: Site, request: Request, folder: Path, entry: str) -> None:
    with _replacing(folder / f"{entry}.npy") as file:
        sink = _NpySink(file, request)
        cut = cut_site(site, request, sink)
        sink.finish(cut)
    with _replacing(folder / f"{entry}.json") as file:
        file.write(json.dumps(_cut_to_json(cut)).encode())


@contextlib.contextmanager
def _replacing(path: Path) -> Any:
    """Yield a new file that takes the place of ``path`` when all went well, and vanishes when not."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix="writing-")
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


class _NpySink:
    """Writes chips behind a header that is filled in last."""

    def __init__(self, file: BinaryIO, request: Request) -> None:
        self._file = file
        self._shape = (len(request.bands), request.size, request.size)
        self._file.seek(NPY_HEADER_BYTES)
        self._chip_bytes = 0

    def append(self, chips: Array) -> None:
        self._chip_bytes = chips[0].nbytes
        self._file.write(np.ascontiguousarray(chips).data)

    def truncate(self, count: int) -> None:
        self._file.seek(NPY_HEADER_BYTES + count * self._chip_bytes)
        self._file.truncate()

    def finish(self, cut: Cut) -> None:
        shape = (cut.count, *self._shape)
        fields = f"{{'descr': {np.dtype(cut.dtype).str!r}, 'fortran_order': False, 'shape': {shape}, }}"
        magic = np.lib.format.magic(1, 0)
        room = NPY_HEADER_BYTES - len(magic) - 2
        self._file.seek(0)
        self._file.write(magic + room.to_bytes(2, "little") + fields.encode().ljust(room - 1) + b"\n")


def _forget_others(folder: Path, entry: str) -> None:
    """Remove entries of an earlier state of the sources."""
    for path in folder.iterdir():
        if path.suffix in (".npy", ".json") and path.stem != entry:
            # Another process may have removed it, or may hold it open where that forbids removal.
            with contextlib.suppress(OSError):
                path.unlink()


def _cut_to_json(cut: Cut) -> dict[str, Any]:
    moments = [{"count": m.count, "mean": m.mean.tolist(), "squares": m.squares.tolist()} for m in cut.moments]
    return {
        "dtype": cut.dtype,
        "files": [asdict(file) for file in cut.files],
        "moments": moments,
        "skipped": [asdict(item) for item in cut.skipped],
    }


def _cut_from_json(fields: dict[str, Any]) -> Cut:
    return Cut(
        dtype=str(fields["dtype"]),
        files=tuple(FileChips(**file) for file in fields["files"]),
        moments=tuple(
            Moments(int(m["count"]), np.array(m["mean"], np.float64), np.array(m["squares"], np.float64))
            for m in fields["moments"]
        ),
        skipped=tuple(Skipped(**item) for item in fields["skipped"]),
    )
