"""Lists that name files: item lists as CSV, STAC JSON or Parquet, and digests as `sha256sum` writes
them."""

from __future__ import annotations

import csv
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from fedsense_core.data.sites.products import is_product
from fedsense_core.errors import SiteError, nearest

LIST_BYTES = 1 << 26
"""A list of 64 MiB names some 400,000 files; anything larger was given by mistake, or is a trap."""
LIST_ROWS = 1 << 20
"""Parquet packs rows so well that the size of the file says nothing about their number."""
SHOWN = 8
"""Columns that a message names."""

Row = tuple[str, Mapping[str, Any]]
"""Its position in the list (``line 3``), and its fields, which may hold further fields."""


def listed_files(path: Path, columns: Sequence[str], where: str) -> Iterator[list[Path | None]]:
    """Yield for each row of an item list the file that each of ``columns`` names, or None where it
    names none.

    A column is the name of a CSV column, or a dotted path into JSON objects and Parquet structs,
    such as ``assets.visual.href``. The first of ``columns`` must name a file in every row, the
    others in at least one. Raises SiteError beginning with ``where`` and naming list, row and value
    for anything else than files of this machine.
    """
    seen: set[str] = set()
    for position, fields in _rows(path, columns, where):
        texts = [_field(fields, column) for column in columns]
        if texts[0] is None:
            known = list(_leaves(fields))
            raise SiteError(
                f"{where}: {path}, {position}: has no value in {columns[0]!r}.{nearest(columns[0], known)} "
                f"Set `column` to one of its fields: {_some(known)}."
            )
        seen.update(column for column, text in zip(columns, texts, strict=True) if text is not None)
        yield [None if text is None else _local_file(text, path, f"{where}: {path}, {position}") for text in texts]
    if not seen:
        raise SiteError(f"{where}: {path}: lists nothing.")
    never = [column for column in columns if column not in seen]
    if never:
        raise SiteError(f"{where}: {path}: no row has a value in {never[0]!r}. Correct `column`.")


def read_digests(path: Path, where: str) -> dict[Path, str]:
    """Return the SHA-256 of each file, in lower-case hex, as a list in the format of `sha256sum`
    gives them.

    Its paths begin at its own folder. Raises SiteError, beginning with ``where``, naming the line.
    """
    digests: dict[Path, str] = {}
    for number, line in enumerate(_text(path, where).splitlines(), start=1):
        fields = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line)
        if fields is None:
            raise SiteError(
                f"{where}: {path}, line {number}: {line[:80]!r} is no line of `sha256sum`: 64 hexadecimal digits, two "
                "spaces, a path. Write the list anew with `sha256sum FILES > SHA256SUMS`."
            )
        file = (path.parent / fields[2]).resolve()
        if digests.setdefault(file, fields[1].lower()) != fields[1].lower():
            raise SiteError(f"{where}: {path}, line {number}: {fields[2]} has another digest in an earlier line.")
    if not digests:
        raise SiteError(f"{where}: {path}: lists no digest.")
    return digests


def _rows(path: Path, columns: Sequence[str], where: str) -> Iterator[Row]:
    readers: dict[str, Callable[[Path, Sequence[str], str], Iterator[Row]]] = {
        ".csv": _csv_rows,
        ".json": _json_rows,
        ".geojson": _json_rows,
        ".parquet": _parquet_rows,
        ".geoparquet": _parquet_rows,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise SiteError(f"{where}: {path}: is no item list; their names end in {', '.join(readers)}.")
    return reader(path, columns, where)


def _csv_rows(path: Path, columns: Sequence[str], where: str) -> Iterator[Row]:
    reader = csv.DictReader(_text(path, where).splitlines(keepends=True))
    try:
        _check_columns(columns, list(reader.fieldnames or ()), f"{where}: {path}")
        for fields in reader:
            yield f"line {reader.line_num}", fields
    except csv.Error as error:
        raise SiteError(f"{where}: {path}, line {reader.line_num}: is not valid CSV ({error}).") from error


def _json_rows(path: Path, columns: Sequence[str], where: str) -> Iterator[Row]:
    """Yield the items of a STAC item collection, one item, or a plain list of objects."""
    try:
        content = json.loads(_text(path, where))
    except (ValueError, RecursionError) as error:
        raise SiteError(f"{where}: {path}: is not valid JSON ({error}).") from error
    items = content.get("features", [content]) if isinstance(content, dict) else content
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise SiteError(f"{where}: {path}: must be a STAC item, a STAC item collection, or a list of objects.")
    for number, item in enumerate(items, start=1):
        yield f"item {number}", item


def _parquet_rows(path: Path, columns: Sequence[str], where: str) -> Iterator[Row]:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise SiteError(
            f'{where}: {path}: reading Parquet needs pyarrow. Install it: python -m pip install "fedsense[tables]".'
        ) from error
    _check_size(path, where)
    try:
        # pyarrow's errors are ValueErrors, OSErrors and NotImplementedErrors.
        with parquet.ParquetFile(path) as file:
            _check_columns(columns, [file.schema.column(i).path for i in range(len(file.schema))], f"{where}: {path}")
            if file.metadata.num_rows > LIST_ROWS:
                raise SiteError(f"{where}: {path}: has {file.metadata.num_rows} rows, more than {LIST_ROWS}. Split it.")
            rows: list[dict[str, Any]] = file.read(columns=list(columns), use_threads=False).to_pylist()
    except (ValueError, OSError, NotImplementedError) as error:
        raise SiteError(f"{where}: {path}: is no readable Parquet file ({error}).") from error
    for number, fields in enumerate(rows, start=1):
        yield f"row {number}", fields


def _check_columns(columns: Sequence[str], known: list[str], where: str) -> None:
    for column in columns:
        if column not in known:
            raise SiteError(
                f"{where}: has no column {column!r}.{nearest(column, known)} Set `column` to one of: {_some(known)}."
            )


def _check_size(path: Path, where: str) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SiteError(f"{where}: {path}: cannot be read ({error.strerror}).") from error
    if size > LIST_BYTES:
        raise SiteError(f"{where}: {path}: larger than {LIST_BYTES} bytes. Split it.")


def _text(path: Path, where: str) -> str:
    _check_size(path, where)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SiteError(f"{where}: {path}: cannot be read as UTF-8 text ({error}).") from error


def _field(fields: Mapping[str, Any], column: str) -> str | None:
    """Follow a dotted column into nested fields; a name may itself hold dots. Empty texts are no
    values."""
    parts = column.split(".")
    for end in range(len(parts), 0, -1):
        value = fields.get(".".join(parts[:end]))
        if end == len(parts) and isinstance(value, str) and value:
            return value
        inner = _field(value, ".".join(parts[end:])) if isinstance(value, Mapping) and end < len(parts) else None
        if inner is not None:
            return inner
    return None


def _leaves(fields: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all texts."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            yield f"{prefix}{name}"


def _some(names: Sequence[str]) -> str:
    # Links first: they are what is looked for, and STAC items have dozens of other fields.
    links_first = sorted(names, key=lambda name: not name.endswith("href"))
    return ", ".join(links_first[:SHOWN]) + (", ..." if len(names) > SHOWN else "") if names else "none"


def _local_file(text: str, path: Path, where: str) -> Path:
    """Return the file that a list means. Raises SiteError for what is on no disk of this
    machine."""
    name = text
    if text.startswith("file:"):
        address = urlsplit(text)
        name = url2pathname(address.path) if address.netloc in ("", "localhost") else text
    if name.startswith("/vsi") or re.match(r"\w{2,}:", name) or "\0" in name:
        raise SiteError(f"{where}: {text!r} is not on this machine. Nothing is downloaded: fetch it, list the file.")
    file = (path.parent / name).resolve()
    if not (file.is_file() or is_product(file)):
        raise SiteError(f"{where}: {text!r}: there is no file {file}. Relative paths begin at the list's own folder.")
    return file
