"""One Flower app bundle (FAB): its bytes, their name, and what stands in it."""

from __future__ import annotations

import hashlib
import io
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fedsense_core.errors import FedSenseError
from fedsense_core.fingerprint import digest_of_contents

APP_ID = "@fedsense/fedsense"
"""Publisher and name in pyproject.toml, under which Flower knows the app."""
MANIFEST = ".info/CONTENT"
LARGEST_BUNDLE = 10 * 2**20
"""Bytes: what a SuperLink takes (`FAB_MAX_SIZE`), packed and unpacked."""
DATE = (2024, 10, 1, 0, 0, 0)
"""Of every file in the archive, as in Flower's own: times of a checkout are nobody's code."""
UNIX = 3
"""``create_system``, which Python else takes from the machine."""
UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, RuntimeError, EOFError, OSError)
"""What Python raises for archives that are none; 40,000 mutated ones raised nothing else."""


class BundleError(FedSenseError):
    """A bundle, a signature, a key or a list of trusted signers is unusable or does not fit."""


@dataclass(frozen=True)
class Bundle:
    """The bytes that travel to every node and are signed."""

    content: bytes
    source: str = "the bundle"
    """Where it came from, for messages."""

    @classmethod
    def read(cls, path: Path) -> Bundle:
        """Read a ``.fab`` file. Raises BundleError where there is none or it is too large."""
        try:
            size = path.stat().st_size
            if size > LARGEST_BUNDLE:
                raise BundleError(f"{path}: {size:,} bytes, but Flower takes at most {LARGEST_BUNDLE:,}")
            return cls(path.read_bytes(), str(path))
        except OSError as error:
            raise BundleError(
                f"{path}: {error.strerror or error}. Give the .fab file that `fedsense app build` wrote"
            ) from None

    @classmethod
    def of_files(cls, files: Mapping[str, bytes]) -> Bundle:
        """Pack files by name: the same files make the same bytes on every machine.

        Nothing is compressed (what a compressor writes depends on its release), and neither times
        nor permissions nor the operating system are in it.
        """
        names = ["pyproject.toml", *sorted(set(files) - {"pyproject.toml"})]
        lines = [f"{name},{hashlib.sha256(files[name]).hexdigest()},{8 * len(files[name])}" for name in names]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name in names:
                archive.writestr(_entry(name), files[name])
            archive.writestr(_entry(MANIFEST), "\n".join(lines).encode())
        return cls(packed.getvalue())

    @cached_property
    def digest(self) -> str:
        """The hex SHA-256 of the bytes: what is signed, and by what Flower calls a bundle."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def files(self) -> dict[str, bytes]:
        """What stands in the bundle, by name, without Flower's list of contents."""
        try:
            with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
                entries = archive.infolist()
                names = [entry.filename for entry in entries]
                if len(set(names)) < len(names):
                    raise BundleError(f"{self.source}: a file is in it twice; build it again")
                if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
                    raise BundleError(f"{self.source}: it is packed in a way that Flower does not pack; build it again")
                if sum(entry.file_size for entry in entries) > LARGEST_BUNDLE:
                    raise BundleError(f"{self.source}: unpacked it is larger than {LARGEST_BUNDLE:,} bytes")
                return {name: archive.read(name) for name in names if name != MANIFEST}
        except UNREADABLE as error:
            raise BundleError(f"{self.source}: no bundle ({error}); build it with `fedsense app build`") from None

    @cached_property
    def code(self) -> str:
        """The digest that server and clients compare (`fedsense_core.fingerprint`)."""
        return digest_of_contents(self.files)

    @cached_property
    def project(self) -> dict[str, Any]:
        """The tables of the bundle's ``pyproject.toml``."""
        try:
            return tomllib.loads(self.files["pyproject.toml"].decode("utf-8"))
        except KeyError:
            raise BundleError(f"{self.source}: no pyproject.toml in it; build it with `fedsense app build`") from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BundleError(f"{self.source}: its pyproject.toml is no TOML: {error}") from None

    @property
    def app_id(self) -> str:
        """Return ``@publisher/name``, as Flower forms it from ``pyproject.toml``."""
        return f"@{self._field('tool', 'flwr', 'app', 'publisher')}/{self._field('project', 'name')}"

    @property
    def version(self) -> str:
        """Return the version in ``pyproject.toml``."""
        return self._field("project", "version")

    @property
    def file_name(self) -> str:
        """Return the name that Flower demands of a bundle that is installed from a file."""
        names = self.app_id.removeprefix("@").replace("/", ".")
        return f"{names}.{self.version.replace('.', '-')}.{self.digest[:8]}.fab"

    def _field(self, *keys: str) -> str:
        value: Any = self.project
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if not isinstance(value, str):
            raise BundleError(f"{self.source}: pyproject.toml has no text {'.'.join(keys)}, but {value!r}")
        return value


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, DATE)
    entry.create_system = UNIX
    entry.external_attr = 0o600 << 16
    return entry
