"""Ed25519 keys of those who sign, as OpenSSH writes them, and the names that they sign under."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from fedsense_core.tools.app_bundle.bundle import BundleError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{1,63}")
RESERVED = {"valid_license", "yes", "no", "on", "off", "true", "false", "null"}
"""Flower's own entry beside the signatures, and words that YAML does not read as text."""
MAKE_A_KEY = "Make one with `fedsense app key FILE`, or with `ssh-keygen -t ed25519 -f FILE`"


def check_name(name: str, where: str) -> str:
    """Return the name of a signer. Raises BundleError unless every file can hold it as it is."""
    if not NAME.fullmatch(name) or name.lower() in RESERVED:
        raise BundleError(
            f"{where}: {name!r} cannot name a signer: use 2 to 64 letters, digits, dots, hyphens and underscores, "
            "beginning with a letter, such as fedsense-releases"
        )
    return name


def make_key(path: Path) -> str:
    """Write a new key pair to ``path`` and ``path.pub``, for this user alone; return the public
    line. Raises BundleError rather than replace a key."""
    public_path = path.with_name(path.name + ".pub")
    for taken in (path, public_path):
        if taken.exists():
            raise BundleError(f"{taken} exists: keys are not replaced. Choose another file, or move that one away")
    key = Ed25519PrivateKey.generate()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        line = public_line(key.public_key())
        public_path.write_text(f"{line}\n", encoding="ascii")
    except OSError as error:
        raise BundleError(f"{error.filename or path}: {error.strerror or error}") from None
    return line


def public_line(key: Ed25519PublicKey) -> str:
    """Return a public key in the one form that is written: ``ssh-ed25519`` and its bytes."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read an OpenSSH private key. Raises BundleError saying what is wrong with it."""
    try:
        key = load_ssh_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}. {MAKE_A_KEY}") from None
    except TypeError:
        raise BundleError(
            f"{path}: the key has a passphrase. Sign with a copy without one (`ssh-keygen -p -N '' -f COPY`), on a "
            "machine without network, and delete the copy"
        ) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BundleError(f"{path}: no OpenSSH private key ({error}). {MAKE_A_KEY}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError(f"{path}: the key is of type {_kind(key)}, but signatures are Ed25519. {MAKE_A_KEY}")
    return key


def read_public_line(path: Path) -> str:
    """Return the line in a ``.pub`` file. Raises BundleError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{path}: {getattr(error, 'strerror', None) or error}. Give the .pub file of the signer"
        ) from None


def parse_public_key(line: str, where: str) -> Ed25519PublicKey:
    """Read the line of a ``.pub`` file. Raises BundleError with ``where`` it stands."""
    try:
        key = load_ssh_public_key(line.strip().encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BundleError(
            f"{where}: {_short(line)} is no OpenSSH public key ({error}). Copy the whole line of the .pub file, "
            "beginning with ssh-ed25519"
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(f"{where}: {_short(line)} is of type {_kind(key)}, but signatures are Ed25519. {MAKE_A_KEY}")
    return key


def _kind(key: object) -> str:
    return type(key).__name__.lstrip("_").removesuffix("PublicKey").removesuffix("PrivateKey")


def _short(line: str) -> str:
    return repr(line if len(line) <= 40 else f"{line[:37]}...")
