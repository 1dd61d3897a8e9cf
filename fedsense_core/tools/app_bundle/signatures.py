"""Signatures of a bundle, in a small file beside it: made offline, checked by Flower's SuperNodes.

A signer signs the time and the SHA-256 of the bundle (RFC 8032, Ed25519), as Flower's hub has its
reviewers do. So a SuperNode's ``--trusted-entities`` checks them, and no hub is needed.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign, sign_message, verify_signature
from pydantic import Field, ValidationError

from fedsense_core.atomic_io import write_whole
from fedsense_core.section import Section
from fedsense_core.tools.app_bundle.bundle import Bundle, BundleError
from fedsense_core.tools.app_bundle.signer_keys import check_name, parse_public_key

SUFFIX = ".signatures.json"
SIGNATURE_BYTES = 64
LICENCE = {"valid_license": "Valid"}
"""Flower's SuperNode refuses a bundle without this entry, which the hub else writes."""
_SIGN_AGAIN = "sign the bundle again with `fedsense app sign`"


class Signature(Section):
    """One signer's word."""

    signed_at: Annotated[int, Field(ge=0, lt=2**53)]
    """Seconds since 1970, UTC. Signed too; nobody checks how long ago it is."""
    signature: str
    """64 bytes in URL-safe base64."""

    @property
    def content(self) -> bytes:
        """Return the bytes of the signature. Raises ValueError unless they are that many."""
        try:
            content = base64.b64decode(self.signature, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            content = b""
        if len(content) != SIGNATURE_BYTES:
            raise ValueError(f"not {SIGNATURE_BYTES} bytes in URL-safe base64")
        return content


class Signatures(Section):
    """The file beside a bundle."""

    bundle: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the bundle that was signed."""
    signatures: dict[str, Signature]
    """By the name of the signer."""

    def check_bundle(self, bundle: Bundle, where: str) -> None:
        """Raise BundleError unless these are signatures of ``bundle``."""
        if self.bundle != bundle.digest:
            raise BundleError(
                f"{where}: bundle = {self.bundle!r} was signed, but {bundle.source} is {bundle.digest}: the bundle was "
                f"changed, or the file belongs to another one. Get the bundle anew, or {_SIGN_AGAIN}"
            )
        if not self.signatures:
            raise BundleError(f"{where}: signatures is empty: {_SIGN_AGAIN}")

    def verifications(self) -> dict[str, str]:
        """Return what Flower stores beside a bundle and hands to SuperNodes."""
        own = {name: json.dumps(entry.model_dump()) for name, entry in sorted(self.signatures.items())}
        return LICENCE | own


def file_beside(bundle: Path) -> Path:
    """Return the file that holds the signatures of a ``.fab`` file."""
    return bundle.with_suffix(SUFFIX)


def sign(bundle: Bundle, key: Ed25519PrivateKey, clock: Callable[[], float] = time.time) -> Signature:
    """Return a signature of ``bundle`` at the time of ``clock``."""
    signed_at = int(clock())
    content = sign_message(key, create_message_to_sign(bytes.fromhex(bundle.digest), signed_at))
    return Signature(signed_at=signed_at, signature=base64.urlsafe_b64encode(content).decode("ascii"))


def add_signature(bundle: Bundle, path: Path, name: str, signature: Signature) -> Signatures:
    """Write ``signature`` into the file ``path``, beside those of other signers of the same bundle;
    return all of them."""
    check_name(name, "--name")
    others = {}
    if path.exists():
        before = read_signatures(path)
        before.check_bundle(bundle, str(path))
        others = before.signatures
    together = Signatures(bundle=bundle.digest, signatures=others | {name: signature})
    try:
        write_whole(path, (json.dumps(together.model_dump(), indent=2) + "\n").encode())
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}") from None
    return together


def read_signatures(path: Path) -> Signatures:
    """Read a file of signatures. Raises BundleError naming file, field and value."""
    try:
        read = Signatures.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BundleError(
            f"{path}: {error.strerror or error}. Signatures lie beside the bundle; {_SIGN_AGAIN}"
        ) from None
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        field = ".".join(map(str, wrong["loc"])) or "the file"
        raise BundleError(f"{path}: {field} = {str(wrong['input'])[:60]!r}: {wrong['msg']}; {_SIGN_AGAIN}") from None
    for name, entry in read.signatures.items():
        check_name(name, f"{path}: signatures")
        try:
            entry.content  # noqa: B018
        except ValueError as error:
            field = f"signatures.{name}.signature"
            raise BundleError(f"{path}: {field} = {entry.signature[:40]!r}: {error}; {_SIGN_AGAIN}") from None
    return read


def verify(bundle: Bundle, signatures: Signatures, trusted: Mapping[str, str], where: str) -> dict[str, Signature]:
    """Return the signatures that count, by signer: those by a key in ``trusted`` (name -> OpenSSH
    public key).

    One is enough, as for a SuperNode. Raises BundleError with what is wrong with each where there
    is none.
    """
    signatures.check_bundle(bundle, where)
    wrong, right = [], {}
    for name, entry in signatures.signatures.items():
        if name not in trusted:
            wrong.append(f"{name} is not among the trusted ({', '.join(trusted) or 'nobody is'})")
            continue
        key = parse_public_key(trusted[name], name)
        if verify_signature(key, create_message_to_sign(bytes.fromhex(bundle.digest), entry.signed_at), entry.content):
            right[name] = entry
        else:
            wrong.append(f"the signature of {name} was not made by its trusted key")
    if not right:
        raise BundleError(
            f"{where}: no signature that is trusted: {'; '.join(wrong)}. Do not run {bundle.source}; ask its sender"
        )
    return right
