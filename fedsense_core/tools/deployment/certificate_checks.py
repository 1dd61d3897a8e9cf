"""Certificates and keys as they are found on the disk: read, and judged before anything starts."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedsense_core.tools.deployment.certificates import Authority, names_of
from fedsense_core.tools.deployment.documents import DeploymentError
from fedsense_core.tools.deployment.private_files import read_private

WARNING_AHEAD = timedelta(days=30)


def parse_certificate(content: bytes, where: str, remedy: str) -> x509.Certificate:
    """Read a PEM certificate. Raises DeploymentError beginning with ``where``."""
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError as error:
        raise DeploymentError(f"{where} holds no certificate in PEM form ({error}): {remedy}") from error


def read_certificate(path: Path, remedy: str) -> x509.Certificate:
    """Read a certificate from a file. Raises DeploymentError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DeploymentError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    return parse_certificate(content, str(path), remedy)


def expiry_warning(certificate: x509.Certificate, where: str, renewing: str, now: datetime) -> str | None:
    """Return a warning for a certificate that expires within 30 days.

    Raises DeploymentError, which says how to renew it, for one that has expired or is not valid
    yet.
    """
    end, start = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if now >= end:
        raise DeploymentError(f"{where}: the certificate expired on {end:%Y-%m-%d %H:%M} UTC. {renewing}")
    if now < start:
        raise DeploymentError(
            f"{where}: the certificate is valid from {start:%Y-%m-%d %H:%M} UTC on, and this machine's clock says "
            f"{now:%Y-%m-%d %H:%M} UTC: set the clock"
        )
    if end - now < WARNING_AHEAD:
        days = (end - now).days
        return f"{where}: the certificate expires in {days} days, on {end:%Y-%m-%d}. {renewing}"
    return None


def check_server(
    certificate_file: Path, key_file: Path, authority: x509.Certificate, names: list[str], remedy: str
) -> x509.Certificate:
    """Return a server's certificate that belongs to its key, its authority and its names.

    Raises DeploymentError where one does not.
    """
    certificate = read_certificate(certificate_file, remedy)
    if _public(read_key(key_file, remedy)) != _public(certificate):
        raise DeploymentError(f"{key_file} is not the key of {certificate_file}: {remedy}")
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise DeploymentError(f"{certificate_file} was not issued by the authority in ca.crt: {remedy}") from error
    missing = [name for name in names if name not in names_of(certificate)]
    if missing:
        raise DeploymentError(f"{certificate_file} is not for {', '.join(missing)}: {remedy}")
    return certificate


def read_key(path: Path, remedy: str) -> ec.EllipticCurvePrivateKey:
    """Return an elliptic-curve key in clear PEM. Raises DeploymentError."""
    content = read_private(path, remedy)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise DeploymentError(f"{path} holds no private key in PEM form ({error}): {remedy}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DeploymentError(f"{path} is no elliptic-curve key: {remedy}")
    return key


def open_authority(key_file: Path, passphrase: bytes, certificate: x509.Certificate) -> Authority:
    """Return the authority whose encrypted key is in ``key_file``. Raises DeploymentError."""
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), passphrase)
    except OSError as error:
        raise DeploymentError(f"--ca-key {key_file} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError) as error:
        raise DeploymentError(
            f"--ca-key {key_file} cannot be opened: it is no encrypted PEM key, or the passphrase is another one"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or _public(key) != _public(certificate):
        raise DeploymentError(f"--ca-key {key_file} is not the key of this coordinator's ca.crt")
    return Authority(key, certificate)


def _public(holder: x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    return holder.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
