"""The key by which a coordinator knows an institution's SuperNode, as OpenSSH writes keys."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fedsense_core.tools.deployment.documents import DeploymentError
from fedsense_core.tools.deployment.private_files import read_private, write_private

CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""Curves of NIST, which Flower wants for SuperNodes."""


def make_key_pair(private: Path, public: Path, comment: str) -> None:
    """Write a new key pair on P-384: the private key for this user alone."""
    key = ec.generate_private_key(ec.SECP384R1())
    encoding, encryption = serialization.Encoding.PEM, serialization.NoEncryption()
    write_private(private, key.private_bytes(encoding, serialization.PrivateFormat.OpenSSH, encryption))
    write_public(public, key.public_key(), comment)


def write_public(path: Path, key: ec.EllipticCurvePublicKey, comment: str) -> None:
    """Write a public key as one line of OpenSSH."""
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path.write_bytes(line + f" {comment}\n".encode())


def read_private_key(path: Path, remedy: str) -> ec.EllipticCurvePrivateKey:
    """Return the private key of a SuperNode. Raises DeploymentError."""
    content = read_private(path, remedy)
    try:
        key = serialization.load_ssh_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DeploymentError(f"{path} holds no private key in OpenSSH form ({error}): {remedy}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DeploymentError(f"{path} is no elliptic-curve key, and Flower knows SuperNodes by no other: {remedy}")
    return key


def read_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Return the public key that an institution sent. Raises DeploymentError."""
    remedy = "ask the institution for the file `key.pub` that `fedsense institution join` wrote"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DeploymentError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    if b"PRIVATE KEY" in content:
        raise DeploymentError(
            f"{path} is a private key, which must never leave its institution: it needs a new one "
            "(`fedsense institution join --new-key`), of which you get `key.pub`"
        )
    try:
        key = serialization.load_ssh_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise DeploymentError(f"{path} holds no public key in OpenSSH form ({error}): {remedy}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise DeploymentError(f"{path} is no elliptic-curve key of a NIST curve: {remedy}")
    return key


def is_signing_key(line: str) -> bool:
    """Return whether a line is an Ed25519 public key in OpenSSH form, which signers of apps
    have."""
    try:
        return isinstance(serialization.load_ssh_public_key(line.encode()), ed25519.Ed25519PublicKey)
    except (ValueError, UnsupportedAlgorithm):
        return False


def key_fingerprint(line: str) -> str:
    """Return the fingerprint of a public key in OpenSSH form, as ``ssh-keygen -l`` prints it."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def fingerprint_of(key: ec.EllipticCurvePublicKey) -> str:
    """Return the fingerprint of a SuperNode's public key."""
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return key_fingerprint(line.decode())
