"""``trusted.yaml``: whose signatures an institution's SuperNode accepts (``--trusted-entities``).

A SuperNode that is given an empty list checks nothing at all, so an empty one is neither written
nor read here. Only a plain form of YAML is read, one quoted or plain ``NAME: KEY`` a line: a second
parser must not understand a file in another way than Flower does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from fedsense_core.atomic_io import write_whole
from fedsense_core.tools.app_bundle.bundle import BundleError
from fedsense_core.tools.app_bundle.signer_keys import check_name, parse_public_key, public_line

LINE = re.compile(r"""(?P<q>["']?)(?P<name>[\w.-]+)(?P=q):\s+(?P<k>["']?)(?P<key>ssh-[\w-]+ [^"'\\#]*?)(?P=k)\s*""")
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
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}") from None


def read_trusted(path: Path) -> dict[str, str]:
    """Read whom a SuperNode trusts: name -> OpenSSH public key.

    Raises BundleError naming the line that is wrong, and where nobody is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{path}: {getattr(error, 'strerror', None) or error}. `fedsense app trust` writes it"
        ) from None
    signers: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#") or line == "---":
            continue
        where = f"{path}, line {number}"
        match = LINE.fullmatch(line)
        if match is None:
            raise BundleError(f'{where}: {line[:60]!r} is not of the form "NAME": "ssh-ed25519 AAAA..."')
        name = check_name(match["name"], where)
        if name in signers:
            raise BundleError(f"{where}: {name!r} is named a second time: a name has one key")
        signers[name] = public_line(parse_public_key(match["key"], where))
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
