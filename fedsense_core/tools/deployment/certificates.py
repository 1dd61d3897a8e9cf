"""A certificate authority of one federation and the certificates it gives.

Elliptic curve P-384 with SHA-384, profiles after RFC 5280: the authority may sign certificates and
nothing below itself, a server's certificate is for servers and for the names in it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=825)
SLOW_CLOCKS = timedelta(days=1)
"""Certificates are valid from a day ago: a machine whose clock is behind would refuse a new one."""


@dataclass(frozen=True)
class Authority:
    """A certificate authority with its key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


@dataclass(frozen=True)
class ServerCertificate:
    """What a server shows, and the key that proves it: PEM, the key in clear."""

    certificate: bytes
    key: bytes


def utc_now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)


def make_authority(name: str, now: datetime) -> Authority:
    """Make a new authority. Its key is in memory only."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _common_name(name)
    builder = _builder(subject, subject, key.public_key(), now, AUTHORITY_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return Authority(key, builder.sign(key, hashes.SHA384()))


def make_server_certificate(
    authority: Authority, names: Sequence[str], now: datetime, life: timedelta = SERVER_LIFE
) -> ServerCertificate:
    """Make a key and a certificate for a server that is reached under ``names``: host names and IP
    addresses."""
    key = ec.generate_private_key(ec.SECP384R1())
    issuer = authority.certificate
    life = min(life, issuer.not_valid_after_utc - now)
    builder = _builder(_common_name("FedSense coordinator"), issuer.subject, key.public_key(), now, life)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_general_name, names))), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
    )
    certificate = builder.sign(authority.key, hashes.SHA384())
    return ServerCertificate(pem_of(certificate), key_pem(key, serialization.NoEncryption()))


def pem_of(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    """Return a private key as PEM (PKCS 8)."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate, for people who compare it over another channel."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the host names and IP addresses in a certificate."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - SLOW_CLOCKS).not_valid_after(now + life)


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
