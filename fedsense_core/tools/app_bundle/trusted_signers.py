"""``trusted.yaml``: whose signatures an institution's SuperNode accepts (``--trusted-entities``).

A SuperNode that is given an empty list checks nothing at all, so an empty one is neither written
nor read here. The parser is Flower's own, PyYAML: another one might read a file otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from fedsense_core.atomic_io import write_whole
from fedsense_core.tools.app_bundle.bundle import BundleError
from fedsense_core.tools.app_bundle.signer_keys import check_name, parse_public_key, public_line

_NOBODY = (
    "it names nobody, and a SuperNode that trusts nobody would run every bundle. Name at least one signer, or stop the "
    "SuperNode"
)


def write_trusted(path: Path, signers: Mapping[str, str]) -> None:
    """Write whom a SuperNode is to trust: name -> line of an OpenSSH public key.

    Raises BundleError for a name or key that cannot be used, and where there is none.
    """
    if not signers:
        raise BundleError(f"{path}: {_NOBODY}")
    lines = []
    for name, line in sorted(signers.items()):
        key = public_line(parse_public_key(line, f"{path}: {check_name(name, str(path))}"))
        lines.append(f"{json.dumps(name)}: {json.dumps(key)}\n")
    try:
        write_whole(path, "".join(lines).encode("ascii"))
        path.chmod(0o600)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}") from None


def read_trusted(path: Path) -> dict[str, str]:
    """Read whom a SuperNode trusts: name -> OpenSSH public key.

    Raises BundleError naming what is wrong, and where nobody is named.
    """
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise BundleError(f"{path}: {reason}. `fedsense app trust` writes it") from None
    if not isinstance(read, dict):
        raise BundleError(f'{path}: {str(read)[:60]!r} is not lines of the form "NAME": "ssh-ed25519 AAAA..."')
    signers = {}
    for name, line in read.items():
        if not isinstance(name, str) or not isinstance(line, str):
            raise BundleError(f'{path}: {name!r}: {line!r} is not of the form "NAME": "ssh-ed25519 AAAA..."')
        signers[name] = public_line(parse_public_key(line, f"{path}: {check_name(name, str(path))}"))
    if not signers:
        raise BundleError(f"{path}: {_NOBODY}")
    return signers


def trust(path: Path, name: str, key: str) -> dict[str, str]:
    """Add a signer to the file ``path``, which need not exist; return all of them.

    Raises BundleError where the name has another key: that is a decision to make, not a line to
    overlook.
    """
    signers = read_trusted(path) if path.exists() else {}
    line = public_line(parse_public_key(key, name))
    if signers.get(name, line) != line:
        raise BundleError(
            f"{path}: {name!r} has another key, {signers[name]}. If it was replaced, take the old one out first: "
            f"`fedsense app distrust {path} {name}`"
        )
    write_trusted(path, signers | {name: line})
    return signers | {name: line}


def distrust(path: Path, name: str) -> dict[str, str]:
    """Take a signer out of the file ``path``; return those that are left, of whom there is one at
    least. A SuperNode reads the file when it starts."""
    signers = read_trusted(path)
    if name not in signers:
        raise BundleError(f"{path}: {name!r} is not in it, only {', '.join(signers)}")
    left = {other: key for other, key in signers.items() if other != name}
    write_trusted(path, left)
    return left
